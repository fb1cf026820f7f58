//! Bodies of responses: read up to a size, decompressed, in memory that is reserved.

use std::io::{Error, Write};

use bytes::Bytes;
use flate2::write::GzDecoder;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_ENCODING;

use crate::calls::memory::{Held, Memory, SMALL};

/// The most bytes that a body may have on the wire beyond its size: compression can make it larger, and frames can be empty.
const WIRE_MORE: usize = 64 << 10;
/// The bytes that are decompressed in one step before memory is reserved: they become at most four times [`SMALL`].
const STEP: usize = 256;
/// The most gzip members of a body, each of which sets up the decompression anew.
const MEMBERS_MAX: u32 = 10_000;

/// Why a body cannot be read.
#[derive(Debug)]
pub(super) enum BodyProblem {
    /// It exceeds its limit.
    TooLarge,
    /// It ended too early, or is malformed.
    CutOff(String),
}

/// Returns `true` if a body is compressed in the way that requests ask for. Others reach the task as they are.
pub(super) fn is_gzip(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let (Some(encoding), None) = (encodings.next(), encodings.next()) else { return false };
    [b"gzip".as_slice(), b"x-gzip"].iter().any(|gzip| encoding.as_bytes().eq_ignore_ascii_case(gzip))
}

/// Reads a body of at most `most` bytes. `count` is told of all bytes that come.
pub(super) async fn read(
    mut body: Incoming,
    is_gzip: bool,
    most: usize,
    memory: &Memory,
    count: impl Fn(usize),
) -> Result<(Bytes, Held), BodyProblem> {
    let announced = body.size_hint().exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if !is_gzip && announced.is_some_and(|size| size > most) {
        return Err(BodyProblem::TooLarge);
    }
    let expected = announced.filter(|_| !is_gzip).unwrap_or(most);
    let (mut sink, mut held, mut wire) = (Sink::new(is_gzip, most), Held::default(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyProblem::CutOff(error.to_string()))?;
        // Trailers are not for tasks.
        let Ok(data) = frame.into_data() else { continue };
        count(data.len());
        wire = wire.saturating_add(data.len());
        if wire > most.saturating_add(WIRE_MORE) {
            return Err(BodyProblem::TooLarge);
        }
        let mut data = &data[..];
        while !data.is_empty() {
            if held.is_empty() && sink.len() + data.len().min(STEP) > SMALL {
                held = memory.reserve(expected).await;
                sink.reserve(expected);
            }
            let step = if is_gzip && held.is_empty() { data.len().min(STEP) } else { data.len() };
            sink.write(&data[..step])?;
            data = &data[step..];
        }
    }
    let bytes = sink.finish(wire)?;
    held.shrink(bytes.len());
    Ok((bytes, held))
}

/// Where the bytes of a body go.
enum Sink {
    Plain(Capped),
    Gzip(Box<Gzip>),
}

impl Sink {
    fn new(is_gzip: bool, most: usize) -> Self {
        let capped = Capped { bytes: Vec::new(), most, is_full: false };
        if is_gzip {
            Self::Gzip(Box::new(Gzip { decoder: GzDecoder::new(capped), members: 1 }))
        } else {
            Self::Plain(capped)
        }
    }

    fn capped(&self) -> &Capped {
        match self {
            Self::Plain(capped) => capped,
            Self::Gzip(gzip) => gzip.decoder.get_ref(),
        }
    }

    fn len(&self) -> usize {
        self.capped().bytes.len()
    }

    fn reserve(&mut self, expected: usize) {
        let capped = match self {
            Self::Plain(capped) => capped,
            Self::Gzip(gzip) => gzip.decoder.get_mut(),
        };
        capped.bytes.reserve_exact(expected.saturating_sub(capped.bytes.len()));
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BodyProblem> {
        let written = match self {
            Self::Plain(capped) => capped.write_all(bytes),
            Self::Gzip(gzip) => gzip.write(bytes),
        };
        written.map_err(|error| self.problem(&error))
    }

    fn finish(self, wire: usize) -> Result<Bytes, BodyProblem> {
        let bytes = match self {
            Self::Plain(capped) => capped.bytes,
            // A response without a body may still name a compression.
            Self::Gzip(_) if wire == 0 => Vec::new(),
            Self::Gzip(mut gzip) => match gzip.decoder.try_finish() {
                Ok(()) => std::mem::take(&mut gzip.decoder.get_mut().bytes),
                Err(error) => return Err(Self::Gzip(gzip).problem(&error)),
            },
        };
        Ok(shrunk(bytes))
    }

    fn problem(&self, error: &Error) -> BodyProblem {
        if self.capped().is_full {
            BodyProblem::TooLarge
        } else {
            BodyProblem::CutOff(format!("its compression is malformed or cut off: {error}"))
        }
    }
}

/// Decompresses gzip: members one after another.
struct Gzip {
    decoder: GzDecoder<Capped>,
    members: u32,
}

impl Gzip {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match self.decoder.write(bytes)? {
                0 => self.next_member()?,
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    fn next_member(&mut self) -> Result<(), Error> {
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(Error::other("it has too many members"));
        }
        self.decoder.try_finish()?;
        self.decoder = GzDecoder::new(std::mem::take(self.decoder.get_mut()));
        Ok(())
    }
}

fn shrunk(mut bytes: Vec<u8>) -> Bytes {
    bytes.shrink_to_fit();
    bytes.into()
}

/// Bytes up to a size.
#[derive(Default)]
struct Capped {
    bytes: Vec<u8>,
    most: usize,
    is_full: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if bytes.len() > self.most - self.bytes.len() {
            self.is_full = true;
            return Err(Error::other("the body is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
