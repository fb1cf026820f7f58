//! The large items that a node has fetched, in files without names.
//!
//! A file counts once it is whole and checked. Those who want the same item at the same time share one fetch. A file stays as long
//! as an item uses it, and after that while all files together are within a bound: the next item may want it too. Files without
//! names go with the process, however it ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OnceCell;

use crate::broker::large::{LargeError, LargeStore};
use crate::frame::large::Reference;
use crate::lock::lock;
use crate::run::item::ItemFile;

/// The most bytes of files that no item uses.
const UNUSED: u64 = 256 << 20;

/// Where the bytes of large items come from.
pub(crate) trait Source: Sync {
    /// Writes the bytes of a large item into a file. They count after `Ok`.
    fn fetch(&self, reference: &Reference, into: &mut File) -> impl Future<Output = Result<(), LargeError>> + Send;
}

impl Source for LargeStore {
    async fn fetch(&self, reference: &Reference, into: &mut File) -> Result<(), LargeError> {
        Self::fetch(self, reference, into).await
    }
}

/// The files of a node.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    /// The most bytes of files that no item uses.
    most: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the whole reference: one made by hand may name the object of another and a wrong digest.
    files: HashMap<Reference, Entry>,
    /// Rises with each use.
    now: u64,
}

#[derive(Debug)]
struct Entry {
    cell: Cell,
    used: u64,
}

/// A file, once it is fetched, and what its users share.
type Cell = Arc<OnceCell<(ItemFile, Arc<()>)>>;

/// What a user of a file holds.
struct Use {
    files: Weak<Files>,
    /// `None` once it is dropped.
    shared: Option<Arc<()>>,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.shared.take();
        if let Some(files) = self.files.upgrade() {
            files.drop_unused(files.most);
        }
    }
}

impl Files {
    /// Creates the files of a node in a folder.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, most: UNUSED, kept: Mutex::default() }
    }

    /// Returns the file of a large item. Fetches it if no other has.
    ///
    /// # Errors
    ///
    /// Those of the source, and if the file cannot be made. The next to ask fetches again.
    pub(crate) async fn get(
        self: &Arc<Self>,
        reference: &Reference,
        source: &impl Source,
    ) -> Result<ItemFile, LargeError> {
        let cell = self.cell(reference);
        let fetched = cell.get_or_try_init(|| self.fetch(reference, source)).await;
        let found = fetched.map(|(file, shared)| {
            let user = Use { files: Arc::downgrade(self), shared: Some(Arc::clone(shared)) };
            file.clone().keeping(Arc::new(user))
        });
        drop(cell);
        if found.is_err() {
            self.drop_unused(self.most);
        }
        found
    }

    async fn fetch(&self, reference: &Reference, source: &impl Source) -> Result<(ItemFile, Arc<()>), LargeError> {
        let fetched = match self.try_fetch(reference, source).await {
            Err(error) if error.is_disk_full() => {
                self.drop_unused(0);
                self.try_fetch(reference, source).await
            }
            fetched => fetched,
        };
        fetched.map(|file| (ItemFile::new(file, reference.size, &reference.digest, reference.form), Arc::default()))
    }

    async fn try_fetch(&self, reference: &Reference, source: &impl Source) -> Result<File, LargeError> {
        let failed = |error| LargeError::File { what: "make a file for a large item", error: Arc::new(error) };
        let mut file = tempfile::tempfile_in(&self.folder).map_err(failed)?;
        check_room(&file, reference.size).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        source.fetch(reference, &mut file).await?;
        Ok(file)
    }

    fn cell(&self, reference: &Reference) -> Cell {
        let mut kept = lock(&self.kept);
        kept.now += 1;
        let now = kept.now;
        let entry = kept.files.entry(reference.clone()).or_insert_with(|| Entry { cell: Cell::default(), used: now });
        entry.used = now;
        Arc::clone(&entry.cell)
    }

    /// Drops files that no item uses, those first that were not used for longest, until the rest has no more than `most` bytes.
    fn drop_unused(&self, most: u64) {
        let mut kept = lock(&self.kept);
        let mut unused: Vec<(u64, u64, Reference)> = kept
            .files
            .iter()
            .filter(|(_, entry)| entry.is_unused())
            .map(|(reference, entry)| {
                let size = entry.cell.get().map_or(0, |_| reference.size);
                (entry.used, size, reference.clone())
            })
            .collect();
        unused.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut bytes = 0_u64;
        for (_, size, reference) in unused {
            bytes += size;
            // What was not fetched is no file.
            if size == 0 || bytes > most {
                kept.files.remove(&reference);
            }
        }
    }
}

impl Entry {
    /// Returns `true` if nobody has the file or waits for it.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.cell) == 1 && self.cell.get().is_none_or(|(_, shared)| Arc::strong_count(shared) == 1)
    }
}

/// Fails if a file of this size would leave too little room on its file system.
fn check_room(file: &File, size: u64) -> std::io::Result<()> {
    /// Room that stays free.
    const FREE: u64 = 64 << 20;
    let system = rustix::fs::fstatvfs(file)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if free >= size.saturating_add(FREE) {
        return Ok(());
    }
    let [size, free] = [size, free].map(bytesize::ByteSize);
    let problem = format!("it has {size}, and the folder for temporary files has only {free} left");
    Err(std::io::Error::new(std::io::ErrorKind::StorageFull, problem))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;
    use crate::frame::large::Form;

    fn reference(name: &str, size: u64) -> Reference {
        let digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned();
        Reference { name: name.to_owned(), size, digest, form: Form::Bytes }
    }

    fn files(most: u64) -> Arc<Files> {
        Arc::new(Files { most, ..Files::new(std::env::temp_dir()) })
    }

    /// Counts the fetches.
    #[derive(Default)]
    struct Counted {
        fetches: AtomicU32,
        fails: bool,
    }

    impl Source for Counted {
        async fn fetch(&self, reference: &Reference, into: &mut File) -> Result<(), LargeError> {
            self.fetches.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            let failed = |error| LargeError::File { what: "write", error: Arc::new(error) };
            if self.fails {
                return Err(failed(std::io::Error::from(std::io::ErrorKind::StorageFull)));
            }
            into.write_all(&vec![7; usize::try_from(reference.size).expect("small")]).map_err(failed)
        }
    }

    #[tokio::test]
    async fn a_crowd_shares_one_fetch_and_the_file_stays_within_the_bound() {
        let (files, source) = (files(10), Counted::default());
        let (first, second) = (reference("a", 6), reference("b", 6));
        let got = join_all((0..100).map(|_| files.get(&first, &source))).await;
        assert_eq!(source.fetches.load(SeqCst), 1);
        assert!(got.iter().all(|file| file.as_ref().is_ok_and(|file| file.read().expect("read")[1..] == [7; 6])));
        drop(got);
        files.get(&first, &source).await.expect("it is there");
        assert_eq!(source.fetches.load(SeqCst), 1, "the next item finds it");
        let other = files.get(&second, &source).await.expect("fetched");
        drop(files.get(&first, &source).await);
        assert_eq!(source.fetches.load(SeqCst), 2, "one is in use, the other within the bound");
        drop(other);
        drop(files.get(&second, &source).await);
        drop(files.get(&first, &source).await);
        assert_eq!(source.fetches.load(SeqCst), 4, "both together are more than the bound");
    }

    #[tokio::test]
    async fn a_failed_fetch_leaves_nothing_and_a_wrong_digest_finds_no_file_of_another() {
        let (files, source) = (files(100), Counted::default());
        let wanted = reference("a", 1);
        assert!(files.get(&wanted, &Counted { fails: true, ..Counted::default() }).await.is_err());
        assert!(lock(&files.kept).files.is_empty());
        files.get(&wanted, &source).await.expect("fetched");
        let wrong = Reference { size: 2, ..wanted };
        files.get(&wrong, &source).await.expect("fetched");
        assert_eq!(source.fetches.load(SeqCst), 2);
    }
}
