//! The context that all executions of a stage share.

use bytes::{BufMut, Bytes, BytesMut};
use ciborium::Value;
use pcluster_abi as abi;

use crate::frame::format::to_cbor;
use crate::name::Topic;

/// The context that all executions of a stage share.
#[derive(Debug, Clone, Default)]
pub struct StaticContext {
    /// The context's constant entries, back to back as in a CBOR map.
    constant: Bytes,
    /// The number of entries.
    entries: u8,
    /// Environment variables, each as `NAME=value`.
    pub environment: Vec<String>,
}

impl StaticContext {
    /// Creates a context with at most twenty constant entries. [`pcluster_abi::context`] lists their keys.
    pub fn new(constant: Vec<(&'static str, Value)>, environment: Vec<String>) -> Self {
        let (mut bytes, mut entries) = (BytesMut::new(), 0);
        for (key, value) in constant {
            bytes.put(to_cbor(&key));
            bytes.put(to_cbor(&value));
            entries += 1;
        }
        Self { constant: bytes.freeze(), entries, environment }
    }

    /// Returns the context of one execution.
    pub(super) fn context(&self, topic: Option<&Topic>, id: &str, attempt: u64) -> Bytes {
        /// The first byte of a small CBOR map, without the number of entries.
        const MAP: u8 = 0xa0;
        let mut context = BytesMut::with_capacity(self.constant.len() + id.len() + 32);
        context.put_u8(MAP + self.entries + 2 + u8::from(topic.is_some()));
        context.put_slice(&self.constant);
        if let Some(topic) = topic {
            context.put(to_cbor(&abi::context::TOPIC));
            context.put(to_cbor(&topic.as_str()));
        }
        for part in [to_cbor(&abi::context::ID), to_cbor(&id), to_cbor(&abi::context::ATTEMPT), to_cbor(&attempt)] {
            context.put(part);
        }
        context.freeze()
    }
}
