//! What a task may reach outside of its sandbox, by grant: HTTP, key-value buckets, object stores, subjects and secrets.
//!
//! This module knows neither NATS nor WebAssembly: a node hands it the stores, and hands its calls to the engine.

pub(crate) mod address;
pub(crate) mod door;
pub(crate) mod failure;
pub(crate) mod grant;
pub(crate) mod http;
pub(crate) mod key;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod pin;
pub(crate) mod replay;
pub(crate) mod secrets;
pub(crate) mod stores;
