//! HTTP requests of tasks.
//!
//! A request goes to a target that the stage was granted, over a connection to an address that was checked, and so does each redirect.
//! What comes back is bounded before it is read.

mod body;
pub(crate) mod client;
mod dial;
mod header;
mod limit;
pub(crate) mod node;
mod pool;
mod redirect;
pub(crate) mod request;
pub(crate) mod resolve;
pub(crate) mod response;
pub(crate) mod target;
mod tls;

#[cfg(test)]
mod attacks;
