//! Tests of archives: what is packed comes out, the same files have one digest, and nothing leaves the tree.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::pack::{FilesError, Packed, check_program, pack};
use super::unpack::unpack;
use super::*;

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

/// Makes a folder with a program, a table in a folder, and links, in an order of its own.
fn tree(names: &[&str], mode: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in names {
        match *name {
            "sim" => write(&at("sim"), "#!/bin/sh\n", 0o700 | mode),
            "link" => {
                fs::create_dir_all(at("tables/deep")).expect("made");
                symlink("../../tables/a", at("tables/deep/link")).expect("a link");
            }
            name => write(&at(name), name, 0o600 | mode),
        }
    }
    folder
}

fn packed(folder: &Path, paths: &[&str]) -> Result<Packed, FilesError> {
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    pack(folder, &paths)
}

const NAMES: [&str; 4] = ["sim", "tables/a", "tables/deep/b", "link"];

#[test]
fn the_same_files_have_one_digest_and_any_difference_that_matters_another() {
    let one = tree(&NAMES, 0o044);
    let two = tree(&["link", "tables/deep/b", "tables/a", "sim"], 0o000);
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    File::open(two.path().join("tables/a")).expect("there").set_times(old).expect("set");
    let digest = |folder: &tempfile::TempDir| packed(folder.path(), &["sim", "tables/"]).expect("packed").digest;
    assert_eq!(digest(&one), digest(&two));
    let other_order = packed(one.path(), &["tables", "./sim"]).expect("packed").digest;
    assert_eq!(other_order, digest(&one));
    let mut seen = vec![digest(&one)];
    let changes: [fn(&Path); 5] = [
        |folder| write(&folder.join("tables/a"), "other", 0o644),
        |folder| write(&folder.join("tables/deep/b"), "tables/deep/b", 0o755),
        |folder| fs::rename(folder.join("tables/a"), folder.join("tables/c")).expect("renamed"),
        |folder| fs::create_dir(folder.join("tables/empty")).expect("made"),
        |folder| fs::remove_file(folder.join("tables/deep/link")).expect("removed"),
    ];
    for change in changes {
        change(one.path());
        seen.push(digest(&one));
    }
    let number = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), number, "each change counts");
}

#[test]
fn what_is_packed_comes_out_and_nobody_may_write_to_it() {
    let folder = tree(&NAMES, 0o022);
    // What is named is meant, also where it is a link.
    symlink(folder.path().join("tables/a"), folder.path().join("named")).expect("a link");
    let archive = packed(folder.path(), &["sim", "tables", "named"]).expect("packed");
    let to = tempfile::tempdir().expect("a folder");
    let entries = unpack(archive.reader().expect("a reader").0, to.path()).expect("unpacked");
    let names: Vec<String> = entries.iter().map(|entry| entry.path.display().to_string()).collect();
    assert_eq!(names, ["named", "sim", "tables", "tables/a", "tables/deep", "tables/deep/b", "tables/deep/link"]);
    let text = |name: &str| fs::read_to_string(to.path().join(name)).expect(name);
    assert_eq!((text("named"), text("tables/deep/link")), ("tables/a".to_owned(), "tables/a".to_owned()));
    let mode = |name: &str| fs::symlink_metadata(to.path().join(name)).expect(name).mode() & 0o7777;
    assert_eq!((mode("sim"), mode("tables/a"), mode("tables"), mode("")), (0o555, 0o444, 0o555, 0o555));
}

#[test]
fn what_cannot_be_shipped_is_named() {
    let folder = tree(&NAMES, 0o044);
    let at = |name: &str| folder.path().join(name);
    let told = |path: &str| packed(folder.path(), &[path]).map(|packed| packed.digest).expect_err(path).to_string();
    assert!(told("gone").starts_with(&format!("there is no file `{}`; build it first", at("gone").display())));
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    assert!(told("socket").ends_with("/socket` is a socket; only files, folders and links can come with a stage"));
    rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RWXU).expect("a pipe");
    assert!(told("pipe").contains("is a named pipe"));
    assert!(told("/dev/null").contains("`/dev/null` is a device"));
    // Such a file is longer than the system says, like one that another process writes to.
    assert_eq!(told("/proc/version"), "`/proc/version` has changed while it was read; deploy again");
    for (number, target) in ["/etc/passwd", "../..", "../../x", "deep/../../x", "a/../b", ""].into_iter().enumerate() {
        let name = format!("odd{number}");
        fs::create_dir_all(at(&name)).expect("made");
        if symlink(target, at(&format!("{name}/link"))).is_ok() {
            let told = told(&name);
            assert!(
                told.ends_with(&format!("the link to `{target}` may leave the files that come with the stage")),
                "{told}"
            );
        }
    }
    let huge = File::create(at("huge")).expect("made");
    huge.set_len(CONTENT_MAX + 1).expect("a file with a hole");
    assert!(told("huge").starts_with("there are more than 1.0 GiB of files; "), "{}", told("huge"));
    let program = |paths: &[&str], program: &str| {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        check_program(folder.path(), &paths, program).map_err(|error| error.to_string())
    };
    assert_eq!(program(&["sim"], "./sim"), Ok(()));
    assert_eq!(program(&["tables/"], "./sim"), Err("`./sim` is not among the files; name it in `files`".to_owned()));
    assert!(program(&["tables"], "./tables/a").expect_err("no program").contains("/tables/a` is not executable; "));
    assert!(program(&["tables"], "./tables/gone").expect_err("gone").starts_with("there is no file `"));
}

#[test]
fn an_archive_made_by_hand_reaches_nothing_outside() {
    let file = |size| Kind::File { is_executable: false, size };
    let link = |target: &str| Kind::Link(target.as_bytes().to_vec());
    let archive = |entries: &[(&str, Kind)], rest: &[u8]| {
        let mut bytes = Vec::new();
        write_head(&mut bytes).expect("written");
        for (name, kind) in entries {
            write_entry(&mut bytes, name.as_bytes(), kind).expect("written");
        }
        [&bytes, rest].concat()
    };
    for (entries, rest, told) in [
        (&[("..", Kind::Folder)][..], &b""[..], "`..`: its name leaves the tree"),
        (&[("/etc/x", file(0))], b"", "`/etc/x`: its name leaves the tree"),
        (&[("a", Kind::Folder), ("a/../../x", file(0))], b"", "leaves the tree"),
        (&[("a/b", file(0))], b"", "`a/b`: its folder does not come before it"),
        (&[("a", link("b")), ("a/b", file(0))], b"", "`a/b`: its folder does not come before it"),
        (&[("a", link("/etc"))], b"", "`a`: the link to `/etc` may leave"),
        (&[("a", link("b/../../x"))], b"", "may leave"),
        (&[("b", file(0)), ("a", file(0))], b"", "`a`: the names are not in order"),
        (&[("a", file(0)), ("a", file(0))], b"", "`a`: the names are not in order"),
        (&[("a", file(9))], b"short", "`a`: its content ends too early"),
        (&[("a", file(u64::MAX))], b"", "it holds more than may come with a stage"),
        (&[], b"c\0\0\0\x01a", "`a`: it is neither a file nor a folder nor a link"),
        (&[], b"f\xff\xff\xff\xff", "it has a name of 4294967295 bytes"),
        (&[], b"f\0\0\0\x05ab", "it ends too early"),
    ] {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("copy");
        fs::create_dir(&folder).expect("made");
        let refused = unpack(archive(entries, rest).as_slice(), &folder).expect_err(told).to_string();
        assert!(refused.contains(told), "{refused}");
        assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 1);
    }
    assert!(unpack(&b"PK\x03\x04 something else"[..], Path::new("/nowhere")).is_err());
    let good = archive(&[("a", Kind::Folder), ("a/b", file(2)), ("a/c", link("../a/b"))], b"");
    assert!(unpack(good.as_slice(), Path::new("/nowhere")).is_err(), "the content is missing");
}
