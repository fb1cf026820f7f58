//! Reads text a few bytes ahead of its parser. Counts lines and columns for errors.

use std::io::{self, Read};

/// How many bytes are read at once.
const CHUNK: usize = 64 << 10;
/// The byte-order mark that some programs write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A position in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, counted from 1.
    pub line: u64,
    /// The column in characters, counted from 1.
    pub column: u64,
}

impl Place {
    /// Returns the position of the first character of this line.
    pub fn in_line(line: u64) -> Self {
        Self { line, column: 1 }
    }

    /// Returns the position after these bytes, which begin here.
    fn behind(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            match byte {
                b'\n' => self = Self::in_line(self.line + 1),
                // The byte continues a character.
                0x80..0xc0 => {}
                _ => self.column += 1,
            }
        }
        self
    }
}

/// A text that is being read. Reads from its source only if the next byte is not in memory.
pub struct Text<R> {
    source: R,
    buffer: Vec<u8>,
    /// The position of the next byte in the buffer.
    at: usize,
    /// The position of the buffer in the text.
    begins: Place,
    is_over: bool,
}

impl<R: Read> Text<R> {
    /// Creates the text of a source.
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), at: 0, begins: Place::in_line(1), is_over: false }
    }

    /// Returns the next byte. `None` at the end.
    pub fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.at == self.buffer.len() {
            self.forget();
            self.fill()?;
        }
        Ok(self.buffer.get(self.at).copied())
    }

    /// Returns the bytes in memory: at least one, unless the text is at its end.
    pub fn rest(&mut self) -> io::Result<&[u8]> {
        self.peek()?;
        Ok(&self.buffer[self.at..])
    }

    /// Returns the bytes in memory: at least this many, unless the text ends before.
    pub fn ahead(&mut self, bytes: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.at < bytes && !self.is_over {
            if self.at > 0 {
                self.forget();
            }
            self.fill()?;
        }
        Ok(&self.buffer[self.at..])
    }

    /// Skips bytes that have been read.
    pub fn pass(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.buffer.len());
    }

    /// Skips the white space within a line.
    pub fn pass_spaces(&mut self) -> io::Result<()> {
        while matches!(self.peek()?, Some(b' ' | b'\t' | b'\r')) {
            self.pass(1);
        }
        Ok(())
    }

    /// Returns the position of the next byte.
    pub fn place(&self) -> Place {
        self.begins.behind(&self.buffer[..self.at])
    }

    /// Skips a byte-order mark of UTF-8, if it comes next.
    pub fn pass_mark(&mut self) -> io::Result<()> {
        for length in 1..=BYTE_ORDER_MARK.len() {
            // Waits for no byte that cannot be part of the mark.
            if self.ahead(length)?.get(..length) != Some(&BYTE_ORDER_MARK[..length]) {
                return Ok(());
            }
        }
        self.buffer.drain(..self.at + BYTE_ORDER_MARK.len());
        self.at = 0;
        Ok(())
    }

    /// Drops the skipped bytes.
    fn forget(&mut self) {
        self.begins = self.place();
        self.buffer.drain(..self.at);
        self.at = 0;
    }

    fn fill(&mut self) -> io::Result<()> {
        let filled = self.buffer.len();
        while !self.is_over && self.buffer.len() == filled {
            self.buffer.resize(filled + CHUNK, 0);
            let read = self.source.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => self.is_over = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => drop(read?),
            }
        }
        Ok(())
    }
}

impl Text<io::Empty> {
    /// Creates a text in memory that begins on this line. A byte-order mark is skipped.
    pub fn of(bytes: &[u8], line: u64) -> Self {
        let buffer = without_mark(bytes).to_vec();
        Self { source: io::empty(), buffer, at: 0, begins: Place::in_line(line), is_over: true }
    }
}

/// Returns the bytes without a byte-order mark of UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte at a time, as a slow program does.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = self.0.len().min(1).min(buffer.len());
            (&mut self.0).take(some as u64).read(buffer)
        }
    }

    #[test]
    fn a_place_is_a_line_and_a_character_of_it() {
        let mut text = Text::new(Slow("ab\näö\nc".as_bytes()));
        let mut places = Vec::new();
        while text.peek().expect("memory").is_some() {
            let Place { line, column } = text.place();
            places.push((line, column));
            text.pass(1);
        }
        // The letters of the second line have two bytes each.
        assert_eq!(places, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 2), (2, 3), (2, 3), (3, 1)]);
    }

    #[test]
    fn nothing_is_read_that_nobody_asks_for() {
        let mut text = Text::new(Slow(b"abcdef"));
        assert_eq!(text.ahead(3).expect("memory"), b"abc");
        text.pass(2);
        assert_eq!(text.rest().expect("memory"), b"c");
        assert_eq!(text.ahead(9).expect("memory"), b"cdef");
        assert_eq!(text.place(), Place { line: 1, column: 3 });
    }

    #[test]
    fn a_mark_is_no_part_of_the_text() {
        for (bytes, first) in [(&b"\xef\xbb\xbfa"[..], Some(b'a')), (b"\xef\xbb", Some(0xef)), (b"\xef\xbb\xbf", None)]
        {
            let mut text = Text::new(Slow(bytes));
            text.pass_mark().expect("memory");
            assert_eq!((text.peek().expect("memory"), text.place()), (first, Place::in_line(1)));
        }
        assert_eq!(Text::of(b"\xef\xbb\xbfa", 7).place(), Place::in_line(7));
    }
}
