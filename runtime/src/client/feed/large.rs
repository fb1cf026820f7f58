//! Items that a feeder puts beside the queue: their bytes go to the chain's object store, and a reference into the message.
//!
//! Until the message is stored, a lease of the feeder holds the object. A feeder that dies leaves nothing: its lease ends, and the
//! sweep of the nodes removes objects that no message refers to. So a feeder that was stopped or cut off for long may find its object
//! gone. It looks before it publishes, and stores the bytes anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::delivery::{Delivered, Waits};
use crate::broker::large::{Content, Holder, Lease, Maker, Share};
use crate::broker::stream::Stream;
use crate::client::large::{LargeItems, references};
use crate::client::{Client, ClientError};
use crate::frame::large::{Form, Reference};
use crate::name::ChainName;
use crate::subject;

/// How many bytes of a file are checked at once.
const PIECE: usize = 256 << 10;
/// How much of large items is on its way at once, in MiB.
const WINDOW: usize = 64;
/// What an item counts for at least, in MiB. So eight of them are on their way at once.
const LEAST: usize = 8;
/// What an item in a file counts for, in MiB: no more of it is in memory.
const OF_FILE: u32 = 16;
/// How often to look whether the store has room.
const LOOK: Duration = Duration::from_secs(1);

/// The content of a large item.
pub(super) enum Source {
    /// It is in memory.
    Memory(Bytes),
    /// It is in a file of this size.
    File(File, u64),
}

impl Source {
    /// Returns the number of bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Memory(content) => content.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

/// Permit to have a large item on its way.
pub(super) type Room = OwnedSemaphorePermit;

/// Puts large items beside the queue of one chain.
pub(super) struct Large {
    client: Client,
    chain: ChainName,
    items: LargeItems,
    /// Holds objects until their messages are stored.
    lease: OnceLock<Lease>,
    window: Arc<Semaphore>,
    /// Closed once the feeder is abandoned. It has no permits.
    closing: Semaphore,
}

impl Large {
    pub(super) fn new(client: Client, chain: ChainName, items: LargeItems) -> Self {
        let window = Arc::new(Semaphore::new(WINDOW));
        Self { client, chain, items, lease: OnceLock::new(), window, closing: Semaphore::new(0) }
    }

    /// Returns the most bytes of an item that goes in a message.
    pub(super) fn threshold(&self) -> u64 {
        let max = self.client.broker.limits().max_item() as u64;
        self.items.threshold.map_or(max, |threshold| threshold.min(max))
    }

    /// Waits until an item may be sent.
    pub(super) async fn room(&self, source: &Source) -> Result<Room, ClientError> {
        let weight = match source {
            Source::Memory(content) => u32::try_from((content.len() >> 20).clamp(LEAST, WINDOW)).unwrap_or(OF_FILE),
            Source::File(..) => OF_FILE,
        };
        let room = Arc::clone(&self.window).acquire_many_owned(weight).await;
        room.map_err(|_| given_up())
    }

    /// Stops sending. An upload that is under way ends, and what is stored of it is removed.
    pub(super) fn close(&self) {
        self.window.close();
        self.closing.close();
    }

    /// Waits until what uploads have left that did not end is removed.
    pub(super) async fn has_removed(&self) {
        self.items.store.has_removed().await;
    }

    /// Stores an item in the object store. The feeder's lease holds it then.
    pub(super) async fn upload(&self, source: &Source, form: Form, waits: &Waits) -> Result<Reference, ClientError> {
        let lease = self.lease.get_or_init(|| self.items.store.lease());
        let content = match source {
            Source::Memory(content) => Content::Bytes(content.clone()),
            Source::File(file, size) => Content::File { file, size: *size },
        };
        let upload = self.items.store.upload(content, form, Maker::Lease(lease), Share::Feeder);
        tokio::select! {
            uploaded = upload => uploaded.map_err(|error| shown(error.into())),
            never = self.tell_waits(waits) => match never {},
            // No permit is ever added.
            _ = self.closing.acquire() => Err(given_up()),
        }
    }

    /// Returns `true` if the lease has held an object without a break, and does so a while longer.
    pub(super) fn is_held(&self, reference: &Reference) -> bool {
        self.lease.get().is_some_and(|lease| lease.is_fresh(&reference.name))
    }

    /// Holds an object that the lease may have lost. Returns `false` if the object is gone.
    pub(super) async fn hold_again(&self, reference: &Reference) -> Result<bool, ClientError> {
        let Some(lease) = self.lease.get() else { return Ok(false) };
        let name = &reference.name;
        let held = async {
            lease.hold(name).await?;
            let is_there = self.items.store.has(name).await?;
            if !is_there {
                lease.release(name).await?;
            }
            Ok(is_there)
        };
        tokio::select! {
            held = held => held,
            // No permit is ever added.
            _ = self.closing.acquire() => Err(given_up()),
        }
    }

    /// Lets an object go whose message was not fed.
    ///
    /// If the message may be stored nevertheless, the object stays, and the sweep finds out what becomes of it.
    pub(super) async fn give_up(&self, reference: &Reference, error: &ClientError, is_unanswered: bool) {
        let Some(lease) = self.lease.get() else { return };
        let name = &reference.name;
        // No renewal writes the record again, also if its removal is cut short.
        lease.forget(name);
        if is_unanswered || !matches!(error, ClientError::TooLarge { .. } | ClientError::Closed(_)) {
            return;
        }
        tokio::select! {
            released = lease.release(name) => {
                if let Err(error) = released {
                    tracing::debug!(%error, name, "the object of an item that was not fed is left to the sweep");
                }
            }
            _ = self.closing.acquire() => {}
        }
    }

    /// Says so while the object store is too full for feeders.
    async fn tell_waits(&self, waits: &Waits) -> std::convert::Infallible {
        let Some(limit) = self.items.limit else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            let Ok(usage) = self.items.store.usage().await else { continue };
            if usage.bytes > limit / 2 {
                let shown = |bytes| bytesize::ByteSize(bytes).display().iec().to_string();
                let (bytes, limit) = (shown(usage.bytes), shown(limit));
                waits.met(&format!("large items take {bytes} of {limit}, and feeders leave a quarter to the nodes"));
            }
        }
    }

    /// Lets the message hold the object in place of the lease, once it is stored.
    ///
    /// A node may have handled the message already: then the record is taken back, and with the last record the object goes. So does
    /// the object of an item that the chain had before under the same id.
    ///
    /// After an error the sweep finds the message, and records it.
    pub(super) async fn settle(&self, reference: &Reference, delivered: Delivered) -> Result<(), ClientError> {
        let settled = self.record(reference, delivered).await;
        if let (Err(_), Some(lease)) = (&settled, self.lease.get()) {
            lease.forget(&reference.name);
        }
        settled
    }

    async fn record(&self, reference: &Reference, delivered: Delivered) -> Result<(), ClientError> {
        let (store, name, message) = (&self.items.store, &reference.name, Holder::Work(delivered.place));
        if delivered.is_new || self.is_in(delivered.place, name).await? {
            store.hold(name, message).await?;
            if !self.is_in(delivered.place, name).await? {
                store.release(name, message).await?;
            }
        }
        if let Some(lease) = self.lease.get() {
            lease.release(name).await?;
        }
        Ok(())
    }

    /// Returns `true` if the message at a place of the work stream refers to an object.
    async fn is_in(&self, place: u64, name: &str) -> Result<bool, ClientError> {
        let stream = subject::work_stream(&self.chain);
        let Some(message) = Stream::of(&self.client.broker, &stream).message(place).await? else { return Ok(false) };
        let references = references(&message.headers, &message.payload);
        Ok(references.iter().any(|(_, reference)| reference.name == *name))
    }
}

fn given_up() -> ClientError {
    ClientError::TimedOut("feeding was given up".to_owned())
}

/// Checks that an item of this form may have this many bytes.
pub(super) fn check_size(size: u64, form: Form) -> Result<(), ClientError> {
    let max = form.max();
    let why = match form {
        Form::Bytes => " of a byte string",
        Form::Text => " of a text",
        Form::Cbor => " of an item that is neither a byte string nor a text",
    };
    if size > max { Err(ClientError::Oversized { size, max, why }) } else { Ok(()) }
}

/// Checks the size of a file, and that a text is UTF-8. Returns the file and its size.
pub(super) async fn checked(file: File, form: Form) -> Result<(File, u64), ClientError> {
    let size = file.metadata().map_err(unread)?.len();
    check_size(size, form)?;
    if form != Form::Text {
        return Ok((file, size));
    }
    let check = move || check_utf8(|piece, at| file.read_at(piece, at)).map(|()| file);
    let file = tokio::task::spawn_blocking(check).await.map_err(|error| unread(io::Error::other(error)))??;
    Ok((file, size))
}

/// Reads a small file as an item.
pub(super) async fn read(file: File, size: u64, form: Form) -> Result<Bytes, ClientError> {
    let read = move || {
        let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact_at(&mut content, 0)?;
        Ok([form.head(size), content].concat().into())
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.map_err(unread),
        Err(error) => Err(unread(io::Error::other(error))),
    }
}

pub(super) fn unread(error: io::Error) -> ClientError {
    shown(ClientError::ItemFile { what: "read the file of an item", error: Arc::new(error) })
}

/// Says of a file that ends too soon what has become of it.
fn shown(error: ClientError) -> ClientError {
    match error {
        ClientError::ItemFile { what, error } if error.kind() == io::ErrorKind::UnexpectedEof => {
            let reason = "it has become shorter while it was fed; feed it again once nothing writes to it";
            ClientError::ItemFile { what, error: Arc::new(io::Error::new(error.kind(), reason)) }
        }
        error => error,
    }
}

/// Checks that what `read` gives is UTF-8. `read` fills a buffer from a position on.
fn check_utf8(read: impl Fn(&mut [u8], u64) -> io::Result<usize>) -> Result<(), ClientError> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let count = match read(&mut piece, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count.map_err(unread)?,
        };
        if count == 0 {
            return Ok(());
        }
        match std::str::from_utf8(&piece[..count]) {
            Ok(_) => at += count as u64,
            // The piece ends within a character, whose other bytes the next one has.
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => at += error.valid_up_to() as u64,
            Err(error) => return Err(ClientError::NotUtf8(at + error.valid_up_to() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], most: usize) -> Option<u64> {
        let read = |piece: &mut [u8], at: u64| {
            let rest = &text[usize::try_from(at).expect("small")..];
            let count = rest.len().min(most);
            piece[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        match check_utf8(read) {
            Ok(()) => None,
            Err(ClientError::NotUtf8(at)) => Some(at),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_text_is_checked_across_the_pieces_that_it_is_read_in() {
        for most in 4..12 {
            assert_eq!(check("aäö€😀x".repeat(20).as_bytes(), most), None, "{most}");
            assert_eq!(check(b"", most), None);
            assert_eq!(check(b"abcdefgh\xffi", most), Some(8), "{most}");
            assert_eq!(check("abcdefg€".as_bytes().split_last().expect("some").1, most), Some(7), "{most}");
        }
    }
}
