//! HTTP requests of tasks.

pub(crate) mod target;
