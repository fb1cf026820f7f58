use std::collections::HashSet;
use std::io::Write;

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII")).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_name_is_one_file_in_the_folder_whatever_the_id() {
    for (id, expected) in [
        ("order-17", "order-17"),
        ("batch.7#3", "batch.7%233"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        (".hidden", "%2Ehidden"),
        ("-rf", "%2Drf"),
        ("a~2", "a%7E2"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("", "%"),
        (".", "%2E"),
        ("..", "%2E."),
        ("a%2Fb", "a%252Fb"),
    ] {
        assert_eq!(stem(id), expected);
    }
}

#[test]
fn long_names_are_cut_and_stay_apart() {
    let mut seen = HashSet::new();
    for length in [150, 189, 190, 250, 255, 10_000] {
        for end in ["a", "b", "/", "ä"] {
            for middle in ["x", "/"] {
                let stem = stem(&format!("{}{end}", middle.repeat(length)));
                assert!(stem.len() <= STEM_MAX, "{stem}");
                assert!(seen.insert(stem.clone()), "{stem}");
                let numbered = format!("{stem}~{}", u32::MAX);
                assert!(numbered.len() <= NAME_MAX, "{numbered}");
                let parts: Vec<&str> = stem.split('%').skip(1).collect();
                let is_whole = |part: &&str| part.len() >= 2 && part[..2].bytes().all(|byte| byte.is_ascii_hexdigit());
                assert!(parts.iter().all(is_whole), "{stem}");
            }
        }
    }
}

#[test]
fn nothing_is_overwritten_and_a_further_item_of_an_id_has_a_number() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a"), "mine").expect("written");
    std::os::unix::fs::symlink("nowhere", folder.path().join("b")).expect("linked");
    let saved = Folder::open(&folder.path().join("")).expect("opened");
    for (id, expected) in [("a", "a~2"), ("a", "a~3"), ("b", "b~2"), ("c", "c")] {
        let mut draft = saved.begin().expect("begun");
        draft.file().write_all(id.as_bytes()).expect("written");
        let path = saved.finish(draft, id).expect("saved");
        assert_eq!(path, folder.path().join(expected));
        assert_eq!(std::fs::read_to_string(path).expect("whole"), id);
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("a")).expect("there"), "mine");
    assert_eq!(names(folder.path()), ["a", "a~2", "a~3", "b", "b~2", "c"]);
}

#[test]
fn a_file_that_is_not_finished_is_absent() {
    let folder = tempfile::tempdir().expect("a folder");
    let saved = Folder::open(folder.path()).expect("opened");
    let mut draft = saved.begin().expect("begun");
    draft.file().write_all(b"half").expect("written");
    drop(draft);
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_file_with_a_hidden_name_is_finished_in_the_same_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let saved = Folder::open(folder.path()).expect("opened");
    for expected in ["a", "a~2"] {
        let hidden = tempfile::Builder::new().prefix(".pcluster-").tempfile_in(folder.path()).expect("made");
        let path = saved.finish(Draft(Unnamed::Hidden(hidden)), "a").expect("saved");
        assert_eq!(path, folder.path().join(expected));
    }
    assert_eq!(names(folder.path()), ["a", "a~2"]);
}
