//! Tests that any archive is refused, or is the one archive of its tree.

use std::io::Read;
use std::path::{Component, Path};

use super::{damage, rounds, try_door};
use crate::archive::{Kind, read, write_entry, write_head};

/// Writes the archive of these entries. The content of a file is its first letter, again and again.
fn archive(entries: &[(&str, Kind)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_head(&mut bytes).expect("written");
    for (name, kind) in entries {
        write_entry(&mut bytes, name.as_bytes(), kind).expect("written");
        if let Kind::File { size, .. } = kind {
            bytes.extend(name.bytes().take(1).cycle().take(usize::try_from(*size).expect("small")));
        }
    }
    bytes
}

#[test]
fn any_archive_is_refused_or_the_one_of_its_tree() {
    let file = |is_executable, size| Kind::File { is_executable, size };
    let link = |target: &[u8]| Kind::Link(target.to_vec());
    let seeds = [
        archive(&[("sim", file(true, 9)), ("tables", Kind::Folder), ("tables/x", file(false, 3))]),
        archive(&[("a", Kind::Folder), ("a/b", Kind::Folder), ("a/b/c", link(b"../../d")), ("d", link(b"a/b"))]),
        archive(&[("..", file(false, 0))]),
        archive(&[("a", link(b"/etc")), ("a/b", file(true, 1))]),
        archive(&[]),
    ];
    let (mut refused, mut accepted) = (0, 0);
    let make = |random: &mut super::Random| {
        let mut bytes = random.pick(&seeds).clone();
        if !random.once_in(8) {
            damage(random, &mut bytes, &seeds);
        }
        bytes
    };
    try_door(rounds(), make, |bytes| {
        let mut again = Vec::new();
        write_head(&mut again).expect("written");
        let read = read(bytes.as_slice(), |name, kind, content: &mut dyn Read| {
            use std::os::unix::ffi::OsStrExt;
            let path = Path::new(std::ffi::OsStr::from_bytes(name));
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{}", path.display());
            if let Kind::Link(target) = kind {
                assert!(!target.starts_with(b"/"));
            }
            write_entry(&mut again, name, kind)?;
            content.read_to_end(&mut again).map(drop)
        });
        match read {
            Ok(()) => {
                assert_eq!(*bytes, again, "a tree has one archive");
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    });
    assert!(accepted > 100 && refused > 100, "{accepted} accepted, {refused} refused");
}
