//! Reads whole files, up to a size. Without that limit, reading a device would never end.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// The most bytes of a plugin.
pub const PLUGIN_MAX: u64 = 256 << 20;
/// The most bytes of a text file: a manifest, settings, or credentials.
pub const TEXT_MAX: u64 = 64 << 20;

/// Reads a file of at most `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= max {
        return Ok(bytes);
    }
    let max = bytesize::ByteSize(max).display().iec();
    Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {max}")))
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, TEXT_MAX)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_most_bytes_and_no_further() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "abc").expect("written");
        assert_eq!(read(&path, 3).expect("its bytes"), b"abc");
        assert_eq!(read(&path, 2).expect_err("too large").to_string(), "it has more than 2 B");
        let endless = read(Path::new("/dev/zero"), 1 << 20).expect_err("no end");
        assert_eq!(
            (endless.kind(), endless.to_string()),
            (ErrorKind::FileTooLarge, "it has more than 1.0 MiB".to_owned())
        );
    }

    #[test]
    fn a_text_is_utf_8() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "größe").expect("written");
        assert_eq!(read_text(&path).expect("its text"), "größe");
        std::fs::write(&path, b"\xff").expect("written");
        assert_eq!(read_text(&path).expect_err("not UTF-8").kind(), ErrorKind::InvalidData);
    }
}
