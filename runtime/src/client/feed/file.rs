//! A file as an item that no message holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::large::{checked, read, unread};
use crate::client::ClientError;
use crate::frame::large::{Form, Hasher};
use crate::run::item::{ItemBytes, ItemFile};

/// The most bytes of a file that is read at once. A larger one stays a file.
const READ_MAX: u64 = 8 << 20;
/// The bytes that are hashed at once.
const PIECE: usize = 256 << 10;

/// Returns the item that a file holds.
///
/// # Errors
///
/// If the file cannot be read, is too large, or should be a text and is not UTF-8.
pub(crate) async fn item_of(file: File, form: Form) -> Result<ItemBytes, ClientError> {
    let (file, size) = checked(file, form).await?;
    if size <= READ_MAX {
        return read(file, size, form).await.map(ItemBytes::Whole);
    }
    let hash = move || hash(&file, size).map(|digest| ItemFile::new(file, size, &digest, form));
    let hashed = tokio::task::spawn_blocking(hash).await.map_err(io::Error::other).flatten();
    hashed.map(ItemBytes::File).map_err(unread)
}

fn hash(file: &File, size: u64) -> io::Result<String> {
    let (mut hasher, mut piece, mut at) = (Hasher::default(), vec![0; PIECE], 0);
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        file.read_exact_at(&mut piece[..most], at)?;
        hasher.update(&piece[..most]);
        at += most as u64;
    }
    Ok(hasher.digest())
}
