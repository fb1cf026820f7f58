//! A whole input that is one byte string or text. What is little is read into memory, the rest stays or goes into a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use anyhow::anyhow;
use bytes::Bytes;

use super::{Content, Sink, Stop, guess, undo};
use crate::frame::large::{Form, MAX_STREAMED};
use crate::frame::text::{Text, without_mark};

/// The most bytes in memory.
const MEMORY: usize = 1 << 20;

/// A second handle of a file that need not be copied.
#[derive(Debug)]
pub struct Original {
    file: File,
    size: u64,
}

impl Original {
    /// Returns the handle of a regular file; `None` for pipes and devices.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        let original = || Ok::<_, io::Error>(Self { file: file.try_clone()?, size: metadata.len() });
        metadata.is_file().then(original).transpose()
    }

    /// Returns `true` if the file can be fed as it is. A mark at the beginning is no part of a text.
    fn is_content(&self, form: Form) -> io::Result<bool> {
        if self.size <= MEMORY as u64 {
            return Ok(false);
        }
        let mut start = [0; 3];
        self.file.read_exact_at(&mut start, 0)?;
        Ok(form != Form::Text || without_mark(&start).len() == start.len())
    }
}

/// Reads a text or a byte string. `name` is the file's name; `None` for standard input.
pub fn read(
    text: &mut Text<impl Read>,
    form: Form,
    name: Option<&str>,
    original: Option<Original>,
    sink: &mut Sink,
) -> Result<(), Stop> {
    if form == Form::Text {
        if let Some(disguise) = guess::disguise(text)? {
            return Err(anyhow!("{disguise}; {}", undo(disguise, name)).into());
        }
        text.pass_mark()?;
    }
    if let Some(original) = original {
        if original.size > MAX_STREAMED {
            return Err(anyhow!("it has {} bytes; {}", original.size, most(form)).into());
        }
        if original.is_content(form)? {
            let mut file = original.file;
            // The start was read through the other handle, which has the same position.
            file.seek(SeekFrom::Start(0))?;
            return sink.content(Content::File(file, form));
        }
    }
    match copy(text, form)? {
        Copied::Memory(content) => sink.item(item(form, &content)?),
        Copied::File(file) => sink.content(Content::File(file, form)),
    }
}

enum Copied {
    Memory(Vec<u8>),
    File(File),
}

/// Reads the rest into memory, or if that is too much, into a file without a name.
fn copy(text: &mut Text<impl Read>, form: Form) -> Result<Copied, Stop> {
    let (mut memory, mut file, mut size) = (Vec::new(), None, 0);
    loop {
        let rest = text.rest()?;
        let read = rest.len();
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > MAX_STREAMED {
            return Err(anyhow!("it has more than {MAX_STREAMED} bytes; {}", most(form)).into());
        }
        memory.extend_from_slice(rest);
        text.pass(read);
        if memory.len() > MEMORY {
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile().map_err(|error| no_copy(&error))?),
            };
            file.write_all(&memory).map_err(|error| no_copy(&error))?;
            memory.clear();
        }
    }
    let Some(mut file) = file else { return Ok(Copied::Memory(memory)) };
    file.write_all(&memory).map_err(|error| no_copy(&error))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Copied::File(file))
}

fn most(form: Form) -> String {
    format!("a {} has at most {MAX_STREAMED} bytes (1 GiB)", noun(form))
}

/// Returns what an item of this form is.
pub fn noun(form: Form) -> &'static str {
    match form {
        Form::Text => "text",
        Form::Bytes => "byte string",
        Form::Cbor => "CBOR data item",
    }
}

fn no_copy(error: &io::Error) -> anyhow::Error {
    let folder = std::env::temp_dir();
    anyhow!("it cannot be copied into `{}`, which TMPDIR names: {error}", folder.display())
}

fn item(form: Form, content: &[u8]) -> Result<Bytes, anyhow::Error> {
    if form == Form::Text
        && let Err(error) = std::str::from_utf8(content)
    {
        return Err(anyhow!("not UTF-8 after byte {}; feed it with --format bytes", error.valid_up_to()));
    }
    Ok([&form.head(content.len() as u64), content].concat().into())
}
