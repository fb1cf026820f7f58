//! Sees which files have changed, once they are quiet.
//!
//! Files are looked at ten times a second. Chains have a few hundred, so this costs next to nothing, and it sees what messages of the
//! kernel miss: folders of the network, links, folders that are made anew, and files beyond the limit of watches. A file counts
//! as changed if its content is another, not if it was only written. A file that this command prints into never counts: each result
//! would be a change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::build;
use crate::name::Digest;

/// The pause between two looks. Files are quiet that are the same in two looks.
const LOOK: Duration = Duration::from_millis(100);
/// A look takes at most this part of the time.
const SHARE: u32 = 10;
/// How long files may change until they count as they are.
const RESTLESS: Duration = Duration::from_secs(2);
/// How long git may take to write files. One that was killed leaves its lock.
const GIT: Duration = Duration::from_secs(10);
/// The lock that git holds while it writes files.
const GIT_LOCK: &str = ".git/index.lock";
/// Folders of tools beside those that builds leave out.
const TOOLS: [&str; 2] = ["node_modules", "zig-out"];

/// What tells versions of a file apart without reading it. `None` if it is not there.
type Stamp = Option<[i128; 5]>;

/// Files that are looked at, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The files, and the folders that count with all their files.
    roots: BTreeSet<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    stamp: Stamp,
    /// The digest of its content. `None` if it cannot be read.
    content: Option<Digest>,
}

impl Changes {
    /// Looks at these files and folders from now on. Those that were looked at before have changed if they differ from what is known.
    pub(super) fn follow(&mut self, roots: BTreeSet<PathBuf>) {
        let new = roots.difference(&self.roots).cloned().collect();
        let plain: Vec<PathBuf> = roots.iter().map(|root| self::plain(root)).collect();
        self.known.retain(|path, _| plain.iter().any(|root| path.starts_with(root)));
        for (path, stamp) in stamps(&new) {
            self.known.entry(path).or_insert_with_key(|path| Known::read(path, stamp));
        }
        self.roots = roots;
    }

    /// Returns how many files are looked at.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Returns the files whose content has changed, without a wait.
    pub(super) fn now(&mut self) -> Vec<PathBuf> {
        self.take(stamps(&self.roots))
    }

    /// Waits until the content of files has changed and they are quiet. Returns them.
    pub(super) async fn next(&mut self) -> Vec<PathBuf> {
        loop {
            let began = Instant::now();
            let stamps = stamps(&self.roots);
            if self.is_same(&stamps) {
                tokio::time::sleep(LOOK.max(began.elapsed() * SHARE)).await;
                continue;
            }
            let changed = self.take(quiet(&self.roots, stamps).await);
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    fn is_same(&self, stamps: &BTreeMap<PathBuf, Stamp>) -> bool {
        self.known.iter().map(|(path, known)| (path, &known.stamp)).eq(stamps)
    }

    /// Takes files as they are now. Returns those whose content is another.
    fn take(&mut self, stamps: BTreeMap<PathBuf, Stamp>) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        let mut before = std::mem::take(&mut self.known);
        for (path, stamp) in stamps {
            let known = match before.remove(&path) {
                Some(known) if known.stamp == stamp => known,
                old => {
                    let new = Known::read(&path, stamp);
                    if old.is_none_or(|old| old.content != new.content) {
                        changed.push(path.clone());
                    }
                    new
                }
            };
            self.known.insert(path, known);
        }
        changed.extend(before.into_keys());
        changed.sort();
        changed
    }
}

impl Known {
    fn read(path: &Path, stamp: Stamp) -> Self {
        let content = stamp.and_then(|_| fs::read(path).ok()).map(|bytes| Digest::of(&bytes));
        Self { stamp, content }
    }
}

/// Waits until files are quiet. Returns their stamps.
async fn quiet(roots: &BTreeSet<PathBuf>, mut stamps: BTreeMap<PathBuf, Stamp>) -> BTreeMap<PathBuf, Stamp> {
    let began = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let again = self::stamps(roots);
        let is_quiet = again == stamps || began.elapsed() >= RESTLESS;
        stamps = again;
        if is_quiet && (began.elapsed() >= GIT || !is_git_busy(roots)) {
            return stamps;
        }
    }
}

/// Returns `true` if git is writing files of a repository that has any of these.
fn is_git_busy(roots: &BTreeSet<PathBuf>) -> bool {
    let is_busy = |path: &Path| path.ancestors().any(|folder| folder.join(GIT_LOCK).exists());
    roots.iter().filter_map(|path| std::path::absolute(path).ok()).any(|path| is_busy(&path))
}

/// Returns the stamps of files, and of all files in folders.
fn stamps(roots: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Stamp> {
    let (mut stamps, printed) = (BTreeMap::new(), printed());
    let is_printed = |stamp: &Stamp| stamp.is_some_and(|[device, inode, ..]| printed.contains(&[device, inode]));
    for root in roots {
        // A folder that vanishes meanwhile counts as one that is not there.
        match root.is_dir().then(|| build::sources(root)) {
            Some(Ok(files)) => {
                let files = files.into_iter().filter(|file| !is_left_out(file.strip_prefix(root).unwrap_or(file)));
                stamps.extend(files.map(|file| (plain(&file), stamp(&file))));
            }
            _ => _ = stamps.insert(plain(root), stamp(root)),
        }
    }
    stamps.retain(|_, stamp| !is_printed(stamp));
    stamps
}

/// Returns device and number of the files that are standard output and standard error.
fn printed() -> Vec<[i128; 2]> {
    let files = ["/proc/self/fd/1", "/proc/self/fd/2"].iter().filter_map(|path| fs::metadata(path).ok());
    files.filter(fs::Metadata::is_file).map(|data| [data.dev().into(), data.ino().into()]).collect()
}

/// Returns `true` if a file of a folder is one of tools, or a copy that an editor keeps.
fn is_left_out(file: &Path) -> bool {
    let is_tool = |part: Component<'_>| TOOLS.iter().any(|tool| part.as_os_str() == *tool);
    file.to_string_lossy().ends_with('~') || file.components().any(is_tool)
}

fn stamp(path: &Path) -> Stamp {
    let data = fs::metadata(path).ok()?;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let (written, changed) = (time(data.mtime(), data.mtime_nsec()), time(data.ctime(), data.ctime_nsec()));
    Some([data.dev().into(), data.ino().into(), data.size().into(), written, changed])
}

/// Returns a path as people write it, without `./`.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with files, and what looks at it.
    struct Place {
        folder: tempfile::TempDir,
        changes: Changes,
    }

    impl Place {
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let place = Self { folder, changes: Changes::default() };
            for file in files {
                place.write(file, "first");
            }
            let roots = [place.folder.path().join("src"), place.folder.path().join("chain.toml")].into();
            Self {
                changes: {
                    let mut changes = Changes::default();
                    changes.follow(roots);
                    changes
                },
                ..place
            }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.at(name).parent().expect("a folder")).expect("made");
            fs::write(self.at(name), text).expect("written");
        }

        /// Returns what has changed since the last look.
        fn changed(&mut self) -> Vec<String> {
            let stamps = stamps(&self.changes.roots);
            let is_same = self.changes.is_same(&stamps);
            let changed = self.changes.take(stamps);
            assert!(!is_same || changed.is_empty());
            let root = self.folder.path();
            changed.iter().map(|path| path.strip_prefix(root).expect("below").display().to_string()).collect()
        }
    }

    #[test]
    fn another_content_counts_however_it_came_and_nothing_else_does() {
        let mut place = Place::new(&["src/a", "src/deep/b", "chain.toml", "other"]);
        assert!(place.changed().is_empty());
        place.write("src/a", "first");
        place.write("other", "second");
        for name in ["src/.a.swp", "src/a~", "src/target/x", "src/__pycache__/x", "src/node_modules/x/y"] {
            place.write(name, "x");
        }
        assert!(place.changed().is_empty(), "touched, beside it, hidden, or of tools");
        place.write("new", "third");
        fs::rename(place.at("new"), place.at("src/a")).expect("renamed");
        assert_eq!(place.changed(), ["src/a"], "saved by rename");
        place.write("src/more/c", "1");
        place.write("chain.toml", "2");
        assert_eq!(place.changed(), ["chain.toml", "src/more/c"]);
        fs::remove_dir_all(place.at("src")).expect("removed");
        let gone = place.changed();
        assert!(gone.contains(&"src/a".to_owned()) && gone.contains(&"src/more/c".to_owned()), "{gone:?}");
        place.write("src/a", "fourth");
        assert!(place.changed().contains(&"src/a".to_owned()), "a folder that is made anew");
        assert!(place.changed().is_empty());
    }

    #[test]
    fn a_file_of_the_same_size_and_time_is_another_if_its_content_is() {
        let mut place = Place::new(&["src/a"]);
        let time = fs::metadata(place.at("src/a")).and_then(|data| data.modified()).expect("a time");
        place.write("src/a", "f1rst");
        fs::File::options().append(true).open(place.at("src/a")).and_then(|file| file.set_modified(time)).expect("set");
        assert_eq!(place.changed(), ["src/a"]);
    }

    #[test]
    fn a_link_counts_as_what_it_leads_to() {
        let mut place = Place::new(&["src/a", "one/a", "two/a"]);
        place.write("two/a", "second");
        symlink(place.at("one/a"), place.at("src/link")).expect("linked");
        symlink(place.at("src"), place.at("src/circle")).expect("linked");
        assert_eq!(place.changed(), ["src/link"]);
        place.write("one/a", "third");
        assert_eq!(place.changed(), ["src/link"]);
        fs::remove_file(place.at("src/link")).expect("removed");
        symlink(place.at("two/a"), place.at("src/link")).expect("linked");
        assert_eq!(place.changed(), ["src/link"]);
        fs::remove_file(place.at("two/a")).expect("removed");
        assert_eq!(place.changed(), ["src/link"]);
    }

    #[test]
    fn what_is_followed_later_is_new_and_what_was_known_stays_known() {
        let mut place = Place::new(&["src/a", "shared"]);
        place.write("src/a", "second");
        place.write("src/b", "first");
        let roots = [place.at("src"), place.at("shared")].into();
        place.changes.follow(roots);
        assert_eq!(place.changed(), ["src/a", "src/b"], "they changed before");
        place.write("shared", "second");
        assert_eq!(place.changed(), ["shared"]);
    }

    #[tokio::test(start_paused = true)]
    async fn git_holds_a_look_up_while_it_writes() {
        let place = Place::new(&["src/a", ".git/index.lock"]);
        let roots = &place.changes.roots;
        assert!(is_git_busy(roots));
        fs::remove_file(place.at(".git/index.lock")).expect("removed");
        assert!(!is_git_busy(roots));
        assert_eq!(quiet(roots, BTreeMap::new()).await, stamps(roots));
    }
}
