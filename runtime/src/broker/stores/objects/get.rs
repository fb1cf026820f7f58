//! Reads objects.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::super::get::Stored;
use super::super::super::object_head::{ObjectHead, SHA_256};
use super::Object;
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::message::{Response, quoted};
use crate::subject::stores as subject;

/// How often an object is read that is replaced meanwhile.
const TRIES: usize = 5;

/// Why the bytes of an object cannot be read.
enum Unread {
    /// They are not as the head says. The head may have been replaced.
    Damaged(&'static str),
    Failed(CallFailure),
}

impl From<CallFailure> for Unread {
    fn from(failure: CallFailure) -> Self {
        Self::Failed(failure)
    }
}

/// The bytes to read.
#[derive(Debug, Clone, Copy)]
struct Range {
    from: u64,
    to: u64,
}

impl Object<'_> {
    /// Returns bytes of the object. A whole object is returned only if its digest is right.
    pub(super) async fn get(&self, from: u64, length: Option<u64>, room: u64) -> Result<Bytes, CallFailure> {
        let (mut place, mut head) = self.existing().await?;
        for _ in 0..TRIES {
            let end = length.map_or(head.size, |length| from.saturating_add(length).min(head.size));
            let range = Range { from: from.min(end), to: end };
            let size = range.to - range.from;
            if size > room {
                return Err(self.too_large(size, room));
            }
            // Twice: once as bytes, once in the response.
            let kept = self.stores.memory.reserve(usize::try_from(size).unwrap_or(usize::MAX).saturating_mul(2)).await;
            let problem = match self.bytes(&head, range).await {
                Ok(data) => return Ok(kept.keep(response(&head, &data))),
                Err(Unread::Failed(failure)) => return Err(failure),
                Err(Unread::Damaged(problem)) => problem,
            };
            let newest = self.existing().await?;
            if newest.0 == place {
                return Err(self.damaged(problem));
            }
            (place, head) = newest;
        }
        Err(CallFailure::unavailable(format!("the object `{}` is replaced all the time", quoted(self.name.as_str()))))
    }

    /// Returns the description of an object that can be read, with its sequence number.
    async fn existing(&self) -> Result<(u64, ObjectHead), CallFailure> {
        let name = quoted(self.name.as_str());
        match self.head().await? {
            Some((_, None)) => Err(self.damaged("its description cannot be read")),
            Some((place, Some(head))) if head.is_there() => Ok((place, head)),
            Some((_, Some(head))) if !head.deleted => Err(CallFailure::denied(format!(
                "the object `{name}` is a link to another one, and links are not followed; ask for that one"
            ))),
            _ => {
                let said = format!("the object store `{}` has no object `{name}`", self.store);
                Err(CallFailure::new(FailureKind::NotFound, said))
            }
        }
    }

    async fn bytes(&self, head: &ObjectHead, range: Range) -> Result<Vec<u8>, Unread> {
        let is_whole = range.from == 0 && range.to == head.size;
        let mut data = Vec::new();
        if range.from < range.to {
            let chunks = subject::object_chunks(self.store.as_str(), &head.nuid);
            let chunks = chunks.ok_or(Unread::Damaged("the id of its bytes is no part of a subject"))?;
            let reader = Chunks { object: *self, head, subject: &chunks };
            data = match reader.skipped(range).await? {
                Some(data) => data,
                None => reader.walked(range).await?,
            };
        }
        if is_whole {
            check_digest(head, &data)?;
        }
        Ok(data)
    }

    fn damaged(&self, problem: &str) -> CallFailure {
        let said = format!("the object `{}` is damaged: {problem}; store it again", quoted(self.name.as_str()));
        CallFailure { is_transient: false, ..CallFailure::unavailable(said) }
    }

    fn too_large(&self, size: u64, room: u64) -> CallFailure {
        let name = quoted(self.name.as_str());
        let said = format!(
            "{size} bytes of the object `{name}` are asked for, and the response has room for {room}; read it in ranges"
        );
        CallFailure::new(FailureKind::TooLarge, said)
    }
}

fn response(head: &ObjectHead, data: &[u8]) -> Bytes {
    let mut response = Response::new();
    response.bytes("data", data);
    response.number("size", head.size);
    response.text("digest", &head.digest);
    response.finish()
}

fn check_digest(head: &ObjectHead, data: &[u8]) -> Result<(), Unread> {
    let Some(digest) = head.digest.strip_prefix(SHA_256) else {
        return Err(Unread::Damaged("its description has no SHA-256"));
    };
    let own = BASE64_URL_SAFE.encode(Sha256::digest(data));
    // Some clients leave the padding out.
    if own.trim_end_matches('=') == digest.trim_end_matches('=') {
        Ok(())
    } else {
        Err(Unread::Damaged("its bytes have another digest"))
    }
}

/// The chunks of one upload.
struct Chunks<'a> {
    object: Object<'a>,
    head: &'a ObjectHead,
    subject: &'a str,
}

impl Chunks<'_> {
    /// Reads the chunks of a range alone. `None` if their places cannot be told: other uploads went on at the same time.
    async fn skipped(&self, range: Range) -> Result<Option<Vec<u8>>, Unread> {
        let Some(chunk) = self.head.chunk_size() else { return Ok(None) };
        let first = range.from / chunk;
        if first == 0 || self.head.chunks != self.head.size.div_ceil(chunk) {
            return Ok(None);
        }
        let begin = self.first(1).await?.sequence;
        let end = self.chunk(&json!({ "last_by_subj": self.subject })).await?.sequence;
        if begin + self.head.chunks != end + 1 {
            return Ok(None);
        }
        let mut data = Vec::new();
        for number in first..=(range.to - 1) / chunk {
            let place = begin + number;
            let Some(part) = self.read(&json!({ "seq": place })).await?.filter(|part| part.subject == self.subject)
            else {
                return Err(Unread::Damaged("some of its bytes are missing"));
            };
            let from = number * chunk;
            if part.payload.len() as u64 != chunk.min(self.head.size - from) {
                return Err(Unread::Damaged("a part of its bytes has another size"));
            }
            append(&mut data, from, &part.payload, range);
        }
        Ok(Some(data))
    }

    /// Reads all chunks up to the end of a range.
    async fn walked(&self, range: Range) -> Result<Vec<u8>, Unread> {
        let (mut data, mut next, mut from) = (Vec::new(), 1, 0);
        for _ in 0..self.head.chunks {
            let part = self.first(next).await?;
            next = part.sequence + 1;
            append(&mut data, from, &part.payload, range);
            from += part.payload.len() as u64;
            if from > self.head.size {
                return Err(Unread::Damaged("it has more bytes than its description says"));
            }
            if from >= range.to {
                return Ok(data);
            }
        }
        Err(Unread::Damaged("some of its bytes are missing"))
    }

    /// Returns the first chunk at this place of the stream or after it.
    async fn first(&self, place: u64) -> Result<Stored, Unread> {
        self.chunk(&json!({ "seq": place, "next_by_subj": self.subject })).await
    }

    async fn chunk(&self, request: &Value) -> Result<Stored, Unread> {
        self.read(request).await?.ok_or(Unread::Damaged("some of its bytes are missing"))
    }

    async fn read(&self, request: &Value) -> Result<Option<Stored>, Unread> {
        Ok(self.object.stores.read(self.object.place(), request).await?)
    }
}

/// Appends the part of a chunk that lies in a range. `from` is the place of the chunk in the object.
fn append(data: &mut Vec<u8>, from: u64, chunk: &[u8], range: Range) {
    let within = |place: u64| usize::try_from(place.saturating_sub(from)).unwrap_or(usize::MAX).min(chunk.len());
    data.extend_from_slice(&chunk[within(range.from)..within(range.to)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_takes_its_part_of_each_chunk() {
        for (from, to, taken) in
            [(0, 9, "abcdefghi"), (2, 4, "cd"), (3, 6, "def"), (5, 7, "fg"), (8, 9, "i"), (4, 4, "")]
        {
            let mut data = Vec::new();
            for (place, chunk) in [(0, "abc"), (3, "def"), (6, "ghi")] {
                append(&mut data, place, chunk.as_bytes(), Range { from, to });
            }
            assert_eq!(data, taken.as_bytes(), "{from} {to}");
        }
    }
}
