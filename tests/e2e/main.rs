//! End-to-end tests: the real `pcluster` against a real nats-server, one server per test. See tests/README.md.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on shall say where")]

mod support;

mod apart;
mod bad_input;
mod bad_manifest;
mod bad_plugin;
mod bad_server;
mod chains;
