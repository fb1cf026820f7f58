//! Removes a folder with all that it holds, however deep, whatever rights it has. Follows no link, and enters no mount.
//!
//! A folder that is not empty moves to the top before its turn comes. So a depth that a program chooses needs neither stack nor open
//! files, and no path becomes too long.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// A folder that is being removed.
struct Removal {
    top: OwnedFd,
    /// Folders at the top that may hold something, by their names.
    folders: Vec<CString>,
    /// The number that is the next name at the top.
    next: u64,
    /// The first refusal of the system. The rest is removed all the same.
    refused: Option<Errno>,
}

/// Removes what is at a path, if anything is.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => return Ok(()),
            // A program has put something else in its place.
            io::ErrorKind::NotADirectory => return fs::remove_file(path),
            // Something is mounted there.
            io::ErrorKind::ResourceBusy => return Err(error),
            _ => {}
        },
    }
    // The end of a node removes all folders, also those that are about to be removed.
    let top = match open(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        top => top?,
    };
    let mut removal = Removal { top: top.try_clone()?, folders: Vec::new(), next: 0, refused: None };
    removal.empty(&top, true)?;
    while let Some(name) = removal.folders.pop() {
        let removed = removal.remove(&name);
        removal.note(removed);
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(removal.refused.map_or(error, io::Error::from)),
        _ => Ok(()),
    }
}

impl Removal {
    fn remove(&mut self, name: &CStr) -> Result<(), Errno> {
        let folder = open(&self.top, name)?;
        self.empty(&folder, false)?;
        unlinkat(&self.top, name, AtFlags::REMOVEDIR)
    }

    /// Removes what a folder holds, but for folders that hold something: they are at the top then.
    fn empty(&mut self, folder: &OwnedFd, is_top: bool) -> Result<(), Errno> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut removed = unlinkat(folder, name, AtFlags::empty());
            if removed == Err(Errno::ISDIR) {
                removed = unlinkat(folder, name, AtFlags::REMOVEDIR);
            }
            match removed {
                Err(Errno::NOTEMPTY | Errno::EXIST) if is_top => self.folders.push(name.to_owned()),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let moved = self.move_to_top(folder, name);
                    self.note(moved);
                }
                removed => self.note(removed),
            }
        }
        Ok(())
    }

    fn move_to_top(&mut self, from: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        // To move a folder is to write its `..`.
        let _ = chmodat(from, name, Mode::RWXU, AtFlags::empty());
        loop {
            let new = CString::new(self.next.to_string()).map_err(|_| Errno::INVAL)?;
            self.next += 1;
            match renameat(from, name, &self.top, &new) {
                // The name of another.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.folders.push(new);
                    return Ok(());
                }
            }
        }
    }

    fn note(&mut self, done: Result<(), Errno>) {
        match done {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => drop(self.refused.get_or_insert(error)),
        }
    }
}

/// Opens a folder, and lets this process change it.
fn open(beside: impl AsFd, name: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match openat(&beside, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(&beside, name, Mode::RWXU, AtFlags::empty())?;
            openat(&beside, name, flags, Mode::empty())?
        }
        folder => folder?,
    };
    // One of another user may be writable too.
    let _ = fchmod(&folder, Mode::RWXU);
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::mkdirat;

    use super::*;

    /// Makes folders in each other. Returns the innermost.
    fn nest(top: &Path, depth: usize) -> OwnedFd {
        let mut folder = open(CWD, top).expect("a folder");
        for _ in 0..depth {
            mkdirat(&folder, "0", Mode::RWXU).expect("made");
            folder = open(&folder, "0").expect("a folder");
        }
        folder
    }

    #[test]
    fn no_depth_is_too_deep() {
        let all = tempfile::tempdir().expect("a folder");
        let folder = all.path().join("a");
        fs::create_dir(&folder).expect("made");
        // Deeper than a path may be, and than a small stack would take a call for each.
        let last = nest(&folder, 2_200);
        fchmod(&last, Mode::empty()).expect("set");
        let removed = std::thread::Builder::new().stack_size(64 << 10).spawn({
            let folder = folder.clone();
            move || remove(&folder)
        });
        removed.expect("started").join().expect("ended").expect("removed");
        assert!(!folder.exists());
        remove(&folder).expect("there is none");
    }

    #[test]
    fn names_that_are_taken_links_and_rights_do_not_stop_it() {
        let all = tempfile::tempdir().expect("a folder");
        let [folder, outside] = ["a", "outside"].map(|name| all.path().join(name));
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("kept"), "").expect("written");
        for path in ["a/0/0/1", "a/1/0", "a/2/x/y/z", "a/x/0/1/2"] {
            fs::create_dir_all(all.path().join(path)).expect("made");
        }
        for path in ["a/0/file", "a/3", "a/x/0/1/file"] {
            fs::write(all.path().join(path), "").expect("written");
        }
        symlink(&outside, folder.join("2/x/link")).expect("a link");
        for path in ["a/2/x/y", "a/2/x", "a/x/0", "a/x", "a"] {
            fs::set_permissions(all.path().join(path), fs::Permissions::from_mode(0o000)).expect("set");
        }
        remove(&folder).expect("removed");
        assert!(!folder.exists() && outside.join("kept").exists());
        symlink(&outside, &folder).expect("a link");
        remove(&folder).expect("removed");
        assert!(!folder.exists() && outside.join("kept").exists(), "the link was removed, and not what it leads to");
    }
}
