//! End-to-end tests: the real `pcluster` against a real nats-server, one server per test. See tests/README.md.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on shall say where")]
#![expect(unreachable_pub, reason = "nothing in a test program is seen from outside")]

mod support;

mod any_client;
mod any_language;
mod apart;
mod away;
mod bad_input;
mod bad_manifest;
mod bad_plugin;
mod bad_server;
mod bench;
mod broken;
mod chains;
mod chaos;
mod compile;
mod connections;
mod contained;
mod dead;
mod deaths;
mod deploys;
mod dev;
mod exits;
mod failures;
mod feed;
mod formats;
mod inline;
mod isolation;
mod large;
mod library;
mod limited;
mod logs;
mod lost;
mod memory;
mod nodes;
mod odd_headers;
mod pauses;
mod poison;
mod pressure;
mod pull;
mod readers;
mod reset;
mod retry;
mod room;
mod servers;
mod stale;
mod status;
mod supervised;
mod upgrade;
mod versions;
mod wait;
mod wire;
