//! What a node and the shepherd of a program say to each other.
//!
//! Each message is CBOR behind its length: four bytes, little-endian. The node writes [`Order`]s, and a [`Launch`] behind
//! [`Order::Launch`]; the shepherd writes [`Event`]s. The end of either's stream is the end of the program.

use std::ffi::OsString;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest message in bytes. The system takes a few MiB of arguments and environment.
const MAX: u32 = 64 << 20;

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The absolute path of its file.
    pub(crate) file: OsString,
    /// Its arguments. The first is the name that it is called by.
    pub(crate) arguments: Vec<OsString>,
    /// All of its environment, apart from the variables that name inherited descriptors.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The variables that tell it the numbers of the descriptors that it inherits, in their order.
    pub(crate) inherited: Vec<OsString>,
    /// Its working folder.
    pub(crate) folder: OsString,
    /// A cgroup to make for it. `None` if the node may not make cgroups.
    pub(crate) cgroup: Option<OsString>,
    /// The cores that it may run on. Empty for all.
    pub(crate) cores: Vec<usize>,
    /// The bounds of all its processes together.
    pub(crate) bounds: Bounds,
}

/// Bounds of all processes of a program together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// The most memory in bytes.
    pub(crate) memory: Option<u64>,
    /// The memory past which the node is told once that they have grown, in bytes.
    pub(crate) grown: Option<u64>,
    /// The most processes and threads.
    pub(crate) processes: Option<u64>,
    /// The most bytes in the working folder.
    pub(crate) folder: Option<u64>,
}

/// What the node wants of a shepherd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start the program of the launch that follows, with the descriptors that come beside this.
    Launch,
    /// Ask all processes to end.
    Terminate,
    /// End all processes.
    Kill,
}

/// What has become of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// It runs.
    Started,
    /// It cannot be started.
    Refused {
        /// The system's error.
        errno: i32,
    },
    /// Its processes have more memory together than is told, in bytes.
    Grown(u64),
    /// Its first process has ended, and so have all others.
    Ended(Ended),
}

/// How a program has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// The end of its first process.
    pub(crate) status: Status,
    /// The bound that it was ended for.
    pub(crate) exceeded: Option<Exceeded>,
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// It has returned this status.
    Exit(i32),
    /// This signal has ended it.
    Signal(i32),
}

/// A bound that a program has exceeded, and what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exceeded {
    /// Bytes of memory.
    Memory(u64),
    /// Processes and threads.
    Processes(u64),
    /// Bytes in the working folder.
    Folder(u64),
}

/// Returns the bytes of a message, with its length in front.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    ciborium::into_writer(message, &mut bytes).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MAX);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::ArgumentListTooLong))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Returns the message in these bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    ciborium::from_reader(bytes).map_err(io::Error::other)
}

/// Returns the length of a message by its first four bytes.
pub(crate) fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head);
    let length = Some(length).filter(|length| *length <= MAX).and_then(|length| usize::try_from(length).ok());
    length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Writes a message.
pub(crate) fn write<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Reads a message. Fails at the end of the stream.
pub(crate) fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    read_behind(head, from)
}

/// Reads a message, of which the first four bytes were read already.
pub(crate) fn read_behind<T: DeserializeOwned>(head: [u8; 4], mut from: impl Read) -> io::Result<T> {
    let mut body = vec![0; length(head)?];
    from.read_exact(&mut body)?;
    decode(&body)
}
