//! Attacks on HTTP calls, each against real servers of this machine: denied, or a failure that is a value. None hangs or panics.

mod addresses;
mod bodies;
mod frames;
mod pools;
mod proxies;
mod redirects;
mod secrets;
mod server;
mod stage;
mod tls;
