//! The archive of the files that come with a stage.
//!
//! A tree has exactly one archive, which `runtime/WIRE.md` describes, so the same files have the same digest wherever they lie. It holds names, contents, links, and
//! whether a file is executable: times, owners and other rights differ between checkouts and mean nothing on a node.
//!
//! After the line [`HEAD`] come the entries, in the order of their names as bytes. An entry is a letter (`d` folder, `f` file, `x`
//! executable file, `l` link), the name (four bytes of length, then the bytes), and for all but folders the content or the target
//! (eight bytes of length, then the bytes). Numbers are big-endian. The folder of an entry comes before it.

pub(crate) mod pack;
pub(crate) mod unpack;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

/// The first line. Its number changes with the form.
const HEAD: &[u8] = b"pcluster files 1\n";
/// The most bytes of all contents.
pub(crate) const CONTENT_MAX: u64 = 1 << 30;
/// The most bytes of an archive.
pub(crate) const ARCHIVE_MAX: u64 = CONTENT_MAX + (512 << 20);
/// The most entries.
pub(crate) const ENTRIES_MAX: usize = 100_000;
/// The most bytes of a name, with those of its folders, and of a link's target. Systems take paths of 4 KiB.
const NAME_MAX: usize = 2_048;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// `true` if it may be executed.
        is_executable: bool,
        /// Its size in bytes.
        size: u64,
    },
    /// A symbolic link, with its target.
    Link(Vec<u8>),
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It is not what a deploy writes.
    #[error("it is no archive of files: {0}")]
    Wrong(String),
    /// The system refuses something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes the beginning of an archive.
pub(crate) fn write_head(to: &mut impl Write) -> io::Result<()> {
    to.write_all(HEAD)
}

/// Writes an entry up to the content of a file.
pub(crate) fn write_entry(to: &mut impl Write, name: &[u8], kind: &Kind) -> io::Result<()> {
    let letter = match kind {
        Kind::Folder => b'd',
        Kind::File { is_executable: false, .. } => b'f',
        Kind::File { is_executable: true, .. } => b'x',
        Kind::Link(_) => b'l',
    };
    let length = u32::try_from(name.len()).map_err(io::Error::other)?;
    to.write_all(&[letter])?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(name)?;
    match kind {
        Kind::Folder => Ok(()),
        Kind::File { size, .. } => to.write_all(&size.to_be_bytes()),
        Kind::Link(target) => {
            to.write_all(&(target.len() as u64).to_be_bytes())?;
            to.write_all(target)
        }
    }
}

/// Reads an archive, and hands each entry to `take`, with the content of a file. Nothing that it hands out leaves the tree.
///
/// # Errors
///
/// If it is anything but what a deploy writes, or `take` fails.
pub(crate) fn read(
    mut from: impl Read,
    mut take: impl FnMut(&[u8], &Kind, &mut dyn Read) -> io::Result<()>,
) -> Result<(), ArchiveError> {
    let wrong = |what: &str| ArchiveError::Wrong(what.to_owned());
    let head: [u8; HEAD.len()] = array(&mut from)?;
    if head != HEAD {
        return Err(wrong("it begins with something else"));
    }
    let (mut last, mut folders) = (Vec::new(), BTreeSet::new());
    let (mut entries, mut bytes) = (0, 0_u64);
    while let Some(letter) = letter(&mut from)? {
        let length = u32::from_be_bytes(array(&mut from)?);
        let name = text(&mut from, length.into())?;
        let told = String::from_utf8_lossy(&name).into_owned();
        let of = |problem: &str| ArchiveError::Wrong(format!("`{told}`: {problem}"));
        check_name(&name).map_err(|problem| of(&problem))?;
        if name <= last {
            return Err(of("the names are not in order"));
        }
        if let Some(folder) = parent(&name)
            && !folders.contains(folder)
        {
            return Err(of("its folder does not come before it"));
        }
        let kind = match letter {
            b'd' => Kind::Folder,
            b'f' | b'x' => Kind::File { is_executable: letter == b'x', size: u64::from_be_bytes(array(&mut from)?) },
            b'l' => {
                let length = u64::from_be_bytes(array(&mut from)?);
                Kind::Link(text(&mut from, length)?)
            }
            _ => return Err(of("it is neither a file nor a folder nor a link")),
        };
        let size = match &kind {
            Kind::Folder => 0,
            Kind::File { size, .. } => *size,
            Kind::Link(target) => {
                check_link(&name, target).map_err(|problem| of(&problem))?;
                0
            }
        };
        (entries, bytes) = (entries + 1, bytes.saturating_add(size));
        if entries > ENTRIES_MAX || bytes > CONTENT_MAX {
            return Err(wrong("it holds more than may come with a stage"));
        }
        let mut content = (&mut from).take(size);
        take(&name, &kind, &mut content)?;
        if content.limit() > 0 {
            return Err(of("its content ends too early"));
        }
        if kind == Kind::Folder {
            folders.insert(name.clone());
        }
        last = name;
    }
    Ok(())
}

/// Reads the letter of an entry. `None` at the end.
fn letter(from: &mut impl Read) -> io::Result<Option<u8>> {
    let mut letter = Vec::new();
    from.take(1).read_to_end(&mut letter)?;
    Ok(letter.first().copied())
}

fn array<const LENGTH: usize>(from: &mut impl Read) -> Result<[u8; LENGTH], ArchiveError> {
    let mut bytes = [0; LENGTH];
    from.read_exact(&mut bytes).map_err(short)?;
    Ok(bytes)
}

fn short(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Wrong("it ends too early".to_owned()),
        _ => error.into(),
    }
}

fn text(from: &mut impl Read, length: u64) -> Result<Vec<u8>, ArchiveError> {
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= NAME_MAX) else {
        return Err(ArchiveError::Wrong(format!("it has a name of {length} bytes")));
    };
    let mut text = vec![0; length];
    from.read_exact(&mut text).map_err(short)?;
    Ok(text)
}

/// Returns the name of an entry's folder. `None` for an entry at the top.
fn parent(name: &[u8]) -> Option<&[u8]> {
    name.iter().rposition(|byte| *byte == b'/').map(|at| &name[..at])
}

/// Refuses a name that is no path below the top.
fn check_name(name: &[u8]) -> Result<(), String> {
    if name.len() > NAME_MAX {
        return Err(format!("its name has {} bytes; {NAME_MAX} is the most", name.len()));
    }
    let is_wrong = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.contains(&0);
    if name.split(|byte| *byte == b'/').any(is_wrong) {
        return Err("its name leaves the tree".to_owned());
    }
    Ok(())
}

/// Refuses a link that may lead out of the tree.
///
/// Parents may stand at the beginning alone: there they climb folders of the tree, while one behind the name of another link would
/// climb from wherever that link leads.
fn check_link(name: &[u8], target: &[u8]) -> Result<(), String> {
    let told = String::from_utf8_lossy(target);
    if target.is_empty() || target.len() > NAME_MAX || target.contains(&0) {
        return Err("the target of the link is no path".to_owned());
    }
    let depth = name.split(|byte| *byte == b'/').count() - 1;
    let parts: Vec<&[u8]> = target.split(|byte| *byte == b'/').filter(|part| *part != b".").collect();
    let up = parts.iter().take_while(|part| **part == b"..").count();
    if target.starts_with(b"/") || up > depth || parts[up..].contains(&&b".."[..]) {
        return Err(format!("the link to `{told}` may leave the files that come with the stage"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
