//! The harness of the end-to-end tests, the benchmarks and the storm.
//!
//! A [`Cluster`] has a NATS server, a folder for files, and the `pcluster` processes of one test. When a value is dropped, it
//! stops its processes, also if the test fails. Then it prints their output. [`storm`] kills nodes and servers at random.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on must say where")]
#![expect(
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "a test often wants what a call waits for, and not what it returns"
)]

mod api;
mod client;
mod cluster;
mod javascript;
mod manifest;
mod objects;
mod process;
mod proxy;
mod python;
mod raw;
mod server;
pub mod storm;
mod world;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use api::{Api, Asked, Reply};
pub use client::{Message, NatsClient};
pub use cluster::{Cluster, pcluster};
pub use javascript::{build_javascript, install_javascript, javascript, javascript_package, javascript_program};
pub use manifest::{probe_chain, recovering, with_table};
pub use objects::Objects;
pub use process::{Process, Run, assert_refused};
pub use proxy::Proxy;
pub use python::{build_python, installed_packages, python, python_package, python_packages};
pub use raw::{Between, RawClient};
pub use server::{Nats, Server, Servers, program};
pub use world::{SECRET, World};

/// Long enough for anything that is not stuck, on a slow machine with other tests beside it.
pub const DEADLINE: Duration = Duration::from_mins(5);

/// Returns the folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Returns the path of an example plugin. It is built once for all tests.
pub fn plugin(name: &str) -> String {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let packages = ["--package=waiting", "--package=text", "--package=probe", "--package=enrich"];
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--target=wasm32-wasip1", "--target-dir=target"])
            .args(packages)
            .current_dir(repository())
            .env_remove("CARGO_TARGET_DIR")
            .status();
        assert!(status.unwrap().success(), "the example plugins could not be built");
    });
    repository().join(format!("target/wasm32-wasip1/release/{name}.wasm")).display().to_string()
}

/// Returns items back to back, as a message holds several.
pub fn sequence<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut payload = Vec::new();
    for item in items {
        ciborium::into_writer(&item, &mut payload).unwrap();
    }
    payload
}

/// Returns one line per item. `feed` reads such lines from its standard input.
pub fn lines(items: impl IntoIterator<Item: Display>) -> String {
    items.into_iter().fold(String::new(), |text, item| text + &format!("{item}\n"))
}

/// Returns results that are numbers, sorted.
#[track_caller]
pub fn numbers(results: &[serde_json::Value]) -> Vec<u64> {
    let mut numbers: Vec<u64> = results.iter().map(|result| result.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// Returns the JSON documents in a text with one per line.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until something holds; `what` names it should it never.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
