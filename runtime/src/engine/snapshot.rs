//! State that is made once: the initializer runs in the sandbox before the first item. Its memory becomes the snapshot from which
//! every instance starts. So a fresh instance for each item costs no more with state than without.
//!
//! The snapshot is a module of its own: the plugin with other data and globals. An instance also has tables and dropped segments,
//! which cannot be read back, so a plugin that could change them is refused ([`wasmtime_wizer`] checks its code). On the host's
//! side only the start of the clock remains. If a snapshot cannot be made, each instance makes the state itself, and the errors
//! of the initializer appear as failures of items.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi as abi;
use wasmtime_wizer::Wizer;

use super::instance::{Exports, Instance};
use super::task::Task;
use super::{EngineError, Plugin};
use crate::name::Digest;
use crate::run::call::{Call, Calls, ItemSource};
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::Outputs;

/// The most memory of a snapshot, in bytes. It is copied a few times while the snapshot is made.
const BYTES_MAX: u64 = 256 << 20;
/// The most pieces of a snapshot with only zeros between them. Each takes about 100 bytes while the snapshot is made.
const PIECES_MAX: usize = 1 << 20;

/// Why a task's state was not made before its first item.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The plugin is not fit for a snapshot.
    #[error("no snapshot can be made of the plugin: {0}")]
    Unfit(String),
    /// The snapshot or the instrumented plugin cannot be loaded.
    #[error(transparent)]
    Load(#[from] EngineError),
    /// The initializer failed.
    #[error("the initializer failed: {0}")]
    Failed(String),
}

/// Takes the log lines of an initializer.
pub type Log = Box<dyn Fn(abi::Level, String) + Send + Sync>;

/// What an initializer has around it.
pub struct Surroundings {
    /// Takes its log lines.
    pub log: Log,
    /// What it may call. `None` if nothing.
    pub calls: Option<Arc<dyn Calls>>,
}

impl Surroundings {
    /// Returns surroundings without a log and without calls.
    pub fn silent() -> Self {
        Self { log: Box::new(|_, _| {}), calls: None }
    }
}

/// The source of the initializer's execution. It has no item.
struct Initializing(Surroundings);

impl ItemSource for Initializing {
    fn id(&self, _: usize) -> String {
        String::new()
    }

    fn attempt(&self) -> u64 {
        0
    }

    fn log(&self, _: usize, level: abi::Level, line: String) {
        (self.0.log)(level, line);
    }

    fn calls_of_start(&self) -> Option<Arc<dyn Calls>> {
        self.0.calls.clone()
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Err(Failure::fatal(FailureKind::Output, "an output was given without an item"))))
    }
}

impl Plugin {
    /// Returns the task with a snapshot of its state. Its instances start from the snapshot. `None` if the task has no state.
    /// `place` tells stages with this task apart. Takes as long as the initializer, at most the task's timeout, and a
    /// compilation.
    ///
    /// # Errors
    ///
    /// If the snapshot cannot be made. The task then works without it.
    pub async fn with_state(
        &self,
        name: &str,
        place: &str,
        task: &Task,
        around: Surroundings,
    ) -> Result<Option<Task>, SnapshotError> {
        if task.exports.init.is_none() {
            return Ok(None);
        }
        let (plugin, name) = (self.clone(), name.to_owned());
        let mut making = task.clone().with_after(0);
        let instrumented = self.blocking(Self::instrumented).await?;
        making.exports = Exports::find(instrumented.module(), &name)?;
        making.pre = instrumented;
        let call = Call { source: Arc::new(Initializing(around)), position: 0 };
        let failed = |failure: Failure| SnapshotError::Failed(failure.reason);
        let slot = Instance::slot(&making).await.map_err(failed)?;
        let mut instance = Instance::new(&making, slot, plugin.engine.budget.reserve(0));
        instance.initialize(&making, call).await.map_err(failed)?;
        let memory = instance.memory().len() as u64;
        if memory > BYTES_MAX {
            let [memory, most] = [memory, BYTES_MAX].map(|bytes| bytesize::ByteSize(bytes).display().iec().to_string());
            return Err(SnapshotError::Unfit(format!("its state takes {memory} of memory; the most is {most}")));
        }
        if pieces(instance.memory()) > PIECES_MAX {
            return Err(SnapshotError::Unfit(format!("its state is in more than {PIECES_MAX} pieces")));
        }
        let bytes: Bytes = plugin.snapshot(&mut instance).await?.into();
        let clock = instance.clock();
        drop(instance);
        // Without the digest of the state: only the newest state of a stage is cached.
        let key = [plugin.digest.as_hex(), &name, place].join(":");
        let key = Digest::of(key.as_bytes());
        let pre = self.blocking(move |plugin| Ok(plugin.engine.compile(&key, &Digest::of(&bytes), &bytes)?)).await?;
        let mut task = task.clone();
        task.exports = Exports::find(pre.module(), &name)?.started();
        (task.pre, task.clock) = (pre, clock);
        Ok(Some(task))
    }

    /// Runs work that takes long on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let plugin = self.clone();
        let worked = tokio::task::spawn_blocking(move || work(&plugin)).await;
        worked.map_err(|error| SnapshotError::Unfit(error.to_string()))?
    }

    /// Returns the plugin instrumented so that all its state can be read.
    fn instrumented(&self) -> Result<Arc<wasmtime::InstancePre<super::host::Host>>, SnapshotError> {
        let (_, bytes) = wizer().instrument(&self.bytes).map_err(unfit)?;
        let digest = Digest::of(&bytes);
        Ok(self.engine.compile(&digest, &digest, &bytes)?)
    }

    /// Returns the plugin with the state of this instance.
    async fn snapshot(&self, instance: &mut Instance) -> Result<Vec<u8>, SnapshotError> {
        let wizer = wizer();
        let (module, _) = wizer.instrument(&self.bytes).map_err(unfit)?;
        wizer.snapshot(&module, instance).await.map_err(unfit)
    }
}

/// Returns the number of runs of bytes that are not zero.
fn pieces(memory: &[u8]) -> usize {
    let starts = memory.windows(2).filter(|pair| pair[0] == 0 && pair[1] != 0).count();
    starts + usize::from(memory.first().is_some_and(|first| *first != 0))
}

fn wizer() -> Wizer {
    let mut wizer = Wizer::new();
    wizer.keep_init_func(true);
    wizer
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn unfit(error: wasmtime::Error) -> SnapshotError {
    SnapshotError::Unfit(format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::chain::isolation::Reuse;
    use crate::engine::limits::Limits;
    use crate::engine::static_context::StaticContext;
    use crate::engine::testing::{BRIEF, LIMITS, engine, load};

    /// Returns a plugin whose initializer counts its calls. It counts at address 0 of its memory and in a global, and then runs
    /// `init`. Its task returns the sum of both.
    fn plugin(more: &str, init: &str) -> Plugin {
        let wat = format!(
            r#"(module
              (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
              (import "pcluster_v1" "log" (func $log (param i32 i32 i32)))
              (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
              (memory (export "memory") 2) (data (i32.const 512) "made")
              (global $made (mut i32) (i32.const 0))
              {more}
              (func (export "pcluster_init:t") (result i32)
                (i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 0)) (i32.const 1)))
                (global.set $made (i32.add (global.get $made) (i32.const 1)))
                (call $log (i32.const 3) (i32.const 512) (i32.const 4))
                {init}
                (i32.const 0))
              (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))
              (func (export "pcluster_task:t") (param i32 i32) (result i32)
                (i32.store8 (i32.const 1) (i32.add (global.get $made) (i32.load8_u (i32.const 0))))
                (i32.store8 (i32.const 0) (i32.const 9))
                (global.set $made (i32.const 9))
                (call $emit (i32.const 1) (i32.const 1))
                (i32.const 0)))"#
        );
        load(engine(), &wat).expect("a plugin")
    }

    /// Returns the task's outputs for three items, and the initializer's log lines.
    async fn given(plugin: &Plugin, limits: Limits) -> Result<(Vec<u8>, Vec<String>), SnapshotError> {
        let task = plugin.task("t", limits, StaticContext::default(), Reuse::default()).expect("a task");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&lines);
        let log = Box::new(move |_, line| said.lock().expect("no panic").push(line));
        let task =
            plugin.with_state("t", "", &task, Surroundings { log, calls: None }).await?.expect("a task with state");
        let mut given = Vec::new();
        for _ in 0..3 {
            let outputs =
                task.run(Bytes::from_static(b"\x05"), Call::idle(), &task.instances()).await.expect("outputs");
            given.extend_from_slice(&outputs.into_payload());
        }
        let lines = lines.lock().expect("no panic").clone();
        Ok((given, lines))
    }

    #[tokio::test]
    async fn every_instance_starts_from_the_state_of_the_initializer() {
        let (given, lines) = given(&plugin("", ""), LIMITS).await.expect("a snapshot");
        assert_eq!(given, [2, 2, 2], "the state is there, and no item finds what another has made of it");
        assert_eq!(lines, ["made"], "the initializer runs once");
    }

    #[tokio::test]
    async fn the_start_before_the_initializer_runs_once() {
        let before = "(func $before (global.set $made (i32.add (global.get $made) (i32.const 5))))";
        let start = plugin(&format!("{before} (start $before)"), "");
        assert_eq!(given(&start, LIMITS).await.expect("a snapshot").0, [7, 7, 7]);
        let initialize = plugin(&format!(r#"{before} (export "_initialize" (func $before))"#), "");
        assert_eq!(given(&initialize, LIMITS).await.expect("a snapshot").0, [7, 7, 7]);
    }

    #[tokio::test]
    async fn memory_that_the_initializer_has_grown_is_there() {
        let grow = "(drop (memory.grow (i32.const 3))) (i32.store8 (i32.const 300000) (i32.const 1))";
        assert_eq!(given(&plugin("", grow), LIMITS).await.expect("a snapshot").0, [2, 2, 2]);
    }

    #[tokio::test]
    async fn an_initializer_that_fails_says_why() {
        for (init, reason) in [
            ("unreachable", "the initializer failed: wasm trap: wasm `unreachable` instruction executed"),
            ("(return (i32.const 1))", "the initializer failed: the task failed without saying why"),
            ("(loop $spin (br $spin))", "the initializer failed: the task took longer than its timeout of 50ms"),
            (
                "(call $emit (i32.const 0) (i32.const 1))",
                "the initializer failed: an output was given before the task was called",
            ),
        ] {
            let error = given(&plugin("", init), BRIEF).await.expect_err(init);
            assert_eq!(error.to_string(), reason);
        }
    }

    #[tokio::test]
    async fn a_plugin_whose_tables_may_change_is_left_as_it_is() {
        let more = "(table 2 funcref) (func (table.set (i32.const 0) (ref.null func)))";
        let error = given(&plugin(more, ""), LIMITS).await.expect_err("unfit");
        assert!(matches!(&error, SnapshotError::Unfit(reason) if reason.contains("table.set")), "{error}");
    }

    #[tokio::test]
    async fn state_that_takes_very_much_memory_is_made_by_each_instance() {
        let limits = Limits { memory: 1 << 30, ..LIMITS };
        let error = given(&plugin("", "(drop (memory.grow (i32.const 4096)))"), limits).await.expect_err("too much");
        let says = "its state takes 256.1 MiB of memory; the most is 256.0 MiB";
        assert!(error.to_string().ends_with(says), "{error}");
    }

    #[tokio::test]
    async fn state_in_very_many_pieces_is_made_by_each_instance() {
        let scatter = "(drop (memory.grow (i32.const 64)))
            (global.set $made (i32.const 0))
            (loop $more
              (i32.store8 (i32.mul (global.get $made) (i32.const 2)) (i32.const 1))
              (global.set $made (i32.add (global.get $made) (i32.const 1)))
              (br_if $more (i32.lt_u (global.get $made) (i32.const 2000000))))";
        let limits = Limits { memory: 1 << 30, ..LIMITS };
        let error = given(&plugin("", scatter), limits).await.expect_err("too many");
        assert!(error.to_string().ends_with("its state is in more than 1048576 pieces"), "{error}");
    }

    #[tokio::test]
    async fn a_task_without_state_has_no_snapshot() {
        let plain = load(
            engine(),
            r#"(module (memory (export "memory") 1)
            (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
            (func (export "pcluster_task:t") (param i32 i32) (result i32) (i32.const 0)))"#,
        )
        .expect("a plugin");
        let task = plain.task("t", LIMITS, StaticContext::default(), Reuse::default()).expect("a task");
        assert!(plain.with_state("t", "", &task, Surroundings::silent()).await.expect("no error").is_none());
    }

    #[tokio::test]
    async fn the_clock_goes_on_from_where_the_initializer_saw_it() {
        // The task returns 24 if its clock is behind the time that the initializer has read.
        let read = |at: u32| format!("(drop (call $clock (i32.const 1) (i64.const 0) (i32.const {at})))");
        let wat = format!(
            r#"(module
              (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
              (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
              (memory (export "memory") 1)
              (func (export "pcluster_init:t") (result i32) {}
                (loop $wait {} (br_if $wait (i64.eq (i64.load (i32.const 8)) (i64.load (i32.const 16)))))
                (i32.const 0))
              (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 1024))
              (func (export "pcluster_task:t") (param i32 i32) (result i32) {}
                (i32.store8 (i32.const 0) (i64.lt_u (i64.load (i32.const 24)) (i64.load (i32.const 16))))
                (call $emit (i32.const 0) (i32.const 1))
                (i32.const 0)))"#,
            read(8),
            read(16),
            read(24)
        );
        let plugin = load(engine(), &wat).expect("a plugin");
        assert_eq!(given(&plugin, LIMITS).await.expect("a snapshot").0, [0, 0, 0]);
    }
}
