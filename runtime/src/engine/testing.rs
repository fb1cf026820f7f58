//! What the engine's tests stand on: one engine for all, and plugins in the text form of WebAssembly.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;

use super::limits::Limits;
use super::task::{Call, Failure, Surroundings, Task};
use super::{Engine, EngineSettings};
use crate::name::Digest;

/// What a guest may use in these tests.
pub(super) const LIMITS: Limits =
    Limits { timeout: Duration::from_secs(30), memory: 1 << 20, output_item_bytes: 64 << 10 };

/// One CBOR item, as good as any.
pub(super) const ITEM: &[u8] = b"\x05";

/// The engine of all tests. Its slots are used over and over, by guests of every kind.
pub(super) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(&EngineSettings { instances: 16, cache: None }).expect("an engine"))
}

/// The task `t` of a plugin.
pub(super) fn task(wat: &str, limits: Limits) -> Task {
    let bytes = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}"));
    let plugin = engine().load(&Digest::of(&bytes), &bytes).unwrap_or_else(|error| panic!("{error}\n{wat}"));
    plugin.task("t", limits, Surroundings::default()).expect("a task `t`")
}

/// Runs a task on [`ITEM`].
pub(super) async fn run(task: &Task) -> Result<Vec<Bytes>, Failure> {
    let outputs = task.run(ITEM, Call::idle()).await?;
    Ok(outputs.items().map(Bytes::copy_from_slice).collect())
}
