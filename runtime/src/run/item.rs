//! The bytes of an item: in memory, or in a file if the item is large.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::frame::large::{Form, Reference};

/// The bytes of an item, as a run takes or gives them. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemBytes {
    /// In memory: one CBOR data item.
    Whole(Bytes),
    /// In a file.
    File(ItemFile),
}

/// The content of a large item in a file, whole and with its digest. Cheap to clone.
///
/// Clones share the file. So it is read at offsets alone, never from where the last read has ended.
#[derive(Clone)]
pub struct ItemFile {
    file: Arc<File>,
    size: u64,
    digest: Arc<str>,
    form: Form,
    /// What is kept as long as the file is needed.
    _keep: Option<Arc<dyn Send + Sync>>,
}

/// Reads a file of an item from its beginning.
pub struct Reader<'a> {
    file: &'a ItemFile,
    offset: u64,
}

impl ItemBytes {
    /// Returns the bytes of the item as CBOR.
    pub fn size(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File(file) => file.item_size(),
        }
    }

    /// Returns the item in memory. Blocks while a file is read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn into_whole(self) -> io::Result<Bytes> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::File(file) => file.read(),
        }
    }
}

impl From<Bytes> for ItemBytes {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl ItemFile {
    /// Creates an item of a file that holds its content. `digest` is written as in a [`Reference`].
    pub fn new(file: File, size: u64, digest: &str, form: Form) -> Self {
        Self { file: Arc::new(file), size, digest: digest.into(), form, _keep: None }
    }

    /// Returns the item, which keeps `keep` until its last clone is dropped.
    #[must_use]
    pub fn keeping(self, keep: Arc<dyn Send + Sync>) -> Self {
        Self { _keep: Some(keep), ..self }
    }

    /// Returns the file, which must be read at offsets alone.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Returns the bytes of the content.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the bytes of the item as CBOR.
    pub fn item_size(&self) -> u64 {
        self.size.saturating_add(self.form.head(self.size).len() as u64)
    }

    /// Returns the SHA-256 of the content, written as in a [`Reference`].
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns what the content is.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns `true` if a reference names the same bytes.
    pub fn is_same(&self, reference: &Reference) -> bool {
        (self.size, self.form, &*self.digest) == (reference.size, reference.form, &*reference.digest)
    }

    /// Reads content from an offset on. Returns the bytes read, 0 at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Returns a reader of the content.
    pub fn reader(&self) -> Reader<'_> {
        Reader { file: self, offset: 0 }
    }

    /// Returns the item as CBOR, in memory. Blocks meanwhile.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has become shorter.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut item = self.form.head(self.size);
        let head = item.len();
        item.resize(head + usize::try_from(self.size).map_err(io::Error::other)?, 0);
        self.file.read_exact_at(&mut item[head..], 0)?;
        Ok(item.into())
    }
}

/// Equal are items with equal content, in whatever files.
impl PartialEq for ItemFile {
    fn eq(&self, other: &Self) -> bool {
        (self.size, self.form, &self.digest) == (other.size, other.form, &other.digest)
    }
}

impl Eq for ItemFile {}

impl std::fmt::Debug for ItemFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = formatter.debug_struct("ItemFile");
        fields.field("size", &self.size).field("digest", &self.digest).field("form", &self.form).finish_non_exhaustive()
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.offset)?;
        self.offset += bytes as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::frame::large::Hasher;

    fn item(content: &[u8], form: Form) -> ItemFile {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        let mut hasher = Hasher::default();
        hasher.update(content);
        ItemFile::new(file, content.len() as u64, &hasher.digest(), form)
    }

    #[test]
    fn an_item_in_a_file_is_read_as_often_as_one_likes() {
        for (form, head) in [(Form::Bytes, &[0x43][..]), (Form::Text, &[0x63]), (Form::Cbor, &[])] {
            let item = item(b"\x01ab", form);
            for _ in 0..2 {
                assert_eq!(item.read().expect("read"), [head, b"\x01ab"].concat());
                let mut content = Vec::new();
                item.reader().read_to_end(&mut content).expect("read");
                assert_eq!(content, b"\x01ab");
            }
            assert_eq!((item.size(), item.item_size()), (3, 3 + head.len() as u64));
            assert_eq!(ItemBytes::File(item.clone()).size(), item.item_size());
        }
    }

    #[test]
    fn an_item_is_the_same_as_a_reference_to_its_bytes() {
        let item = item(b"", Form::Text);
        let digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned();
        let reference = Reference { name: "a".to_owned(), size: 0, digest, form: Form::Text };
        assert!(item.is_same(&reference));
        assert!(!item.is_same(&Reference { form: Form::Bytes, ..reference.clone() }));
        assert!(!item.is_same(&Reference { size: 1, ..reference }));
    }

    #[test]
    fn what_is_kept_goes_with_the_last_clone() {
        let keep = Arc::new(());
        let first = item(b"a", Form::Bytes).keeping(Arc::clone(&keep) as Arc<dyn Send + Sync>);
        let second = first.clone();
        drop(first);
        assert_eq!(Arc::strong_count(&keep), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&keep), 1);
    }
}
