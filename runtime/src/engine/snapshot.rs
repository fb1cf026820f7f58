//! State that is made once: the task's initializer runs in the sandbox before the first item, and the memory that it leaves
//! becomes the image that every instance starts from. So a fresh instance for each item costs no more than one without state.
//!
//! The image is a module of its own, the plugin with other data and globals. What an instance has besides those, which are
//! tables and dropped segments, cannot be told after the fact, so a plugin that could change them is refused
//! ([`wasmtime_wizer`] looks through its code); on the host's side nothing remains but the start of its clock. Whatever goes
//! wrong here, the guest makes the state itself, in each instance, and what is wrong with it shows at the items.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi as abi;
use wasmtime_wizer::Wizer;

use super::call::{Call, ItemSource};
use super::failure::{Failure, FailureKind};
use super::instance::{Exports, Instance};
use super::output::Outputs;
use super::task::Task;
use super::{EngineError, Plugin};
use crate::name::Digest;

/// The most memory of an image, in bytes. It is copied a few times on its way to be one.
const IMAGE_MAX: u64 = 256 << 20;
/// The most pieces of an image between which there is nothing but zeros. Each takes some 100 bytes while it is made.
const PIECES_MAX: usize = 1 << 20;

/// Why a task's state is not made before the first item.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No image can be made of this plugin.
    #[error("no image can be made of the plugin: {0}")]
    Unfit(String),
    /// The image, or what makes it, cannot be loaded.
    #[error(transparent)]
    Load(#[from] EngineError),
    /// The initializer failed.
    #[error("the initializer failed: {0}")]
    Failed(String),
}

/// What an initializer says while it runs.
pub type Log = Box<dyn Fn(abi::Level, String) + Send + Sync>;

/// The initializer's execution. It has no item.
struct Initialising(Log);

impl ItemSource for Initialising {
    fn id(&self, _: usize) -> String {
        String::new()
    }

    fn attempt(&self) -> u64 {
        0
    }

    fn log(&self, _: usize, level: abi::Level, line: String) {
        (self.0)(level, line);
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Err(Failure::fatal(FailureKind::Output, "an output was given without an item"))))
    }
}

impl Plugin {
    /// The same task, with the state that its initializer makes in every instance from the start; `None` if it has none. `name`
    /// is the task's name, `place` tells stages apart. Takes as long as the initializer, at most the task's timeout, and a compilation.
    ///
    /// # Errors
    ///
    /// If that cannot be done; then the task as it is works too.
    pub async fn with_state(
        &self,
        name: &str,
        place: &str,
        task: &Task,
        log: Log,
    ) -> Result<Option<Task>, SnapshotError> {
        if task.exports.init.is_none() {
            return Ok(None);
        }
        let (plugin, name) = (self.clone(), name.to_owned());
        let mut making = task.clone().with_after(0);
        let instrumented = self.blocking(Self::instrumented).await?;
        making.exports = Exports::find(instrumented.module(), &name)?;
        making.pre = instrumented;
        let call = Call { source: Arc::new(Initialising(log)), position: 0 };
        let failed = |failure: Failure| SnapshotError::Failed(failure.reason);
        let slot = Instance::place(&making).await.map_err(failed)?;
        let mut instance = Instance::new(&making, slot, plugin.engine.budget.reserve(0));
        instance.initialize(&making, call).await.map_err(failed)?;
        let memory = instance.memory().len() as u64;
        if memory > IMAGE_MAX {
            let [memory, most] = [memory, IMAGE_MAX].map(|bytes| bytesize::ByteSize(bytes).display().iec().to_string());
            return Err(SnapshotError::Unfit(format!("its state takes {memory} of memory; an image may have {most}")));
        }
        if pieces(instance.memory()) > PIECES_MAX {
            return Err(SnapshotError::Unfit(format!("its state is in more than {PIECES_MAX} pieces")));
        }
        let image: Bytes = plugin.snapshot(&mut instance).await?.into();
        let clock = instance.clock();
        drop(instance);
        // Of what a stage's state was in earlier revisions, nothing is kept.
        let key = [plugin.digest.as_hex(), &name, place].join(":");
        let key = Digest::of(key.as_bytes());
        let pre = self.blocking(move |plugin| Ok(plugin.engine.compile(&key, &Digest::of(&image), &image)?)).await?;
        let mut task = task.clone();
        task.exports = Exports::find(pre.module(), &name)?.started();
        (task.pre, task.clock) = (pre, clock);
        Ok(Some(task))
    }

    /// Does what takes long and cannot wait in between.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let plugin = self.clone();
        let worked = tokio::task::spawn_blocking(move || work(&plugin)).await;
        worked.map_err(|error| SnapshotError::Unfit(error.to_string()))?
    }

    /// The plugin, but so that all its state can be read.
    fn instrumented(&self) -> Result<Arc<wasmtime::InstancePre<super::host::Host>>, SnapshotError> {
        let (_, bytes) = wizer().instrument(&self.bytes).map_err(unfit)?;
        let digest = Digest::of(&bytes);
        Ok(self.engine.compile(&digest, &digest, &bytes)?)
    }

    /// The plugin with the state of this instance.
    async fn snapshot(&self, instance: &mut Instance) -> Result<Vec<u8>, SnapshotError> {
        let wizer = wizer();
        let (module, _) = wizer.instrument(&self.bytes).map_err(unfit)?;
        wizer.snapshot(&module, instance).await.map_err(unfit)
    }
}

/// How many runs of bytes there are that are not zero.
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

    /// A plugin whose initializer counts at 0 how often it was called, in memory and in a global, and does more; its task gives
    /// the sum of both.
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

    /// What the task gives for three items, and what the initializer has logged.
    async fn given(plugin: &Plugin, limits: Limits) -> Result<(Vec<u8>, Vec<String>), SnapshotError> {
        let task = plugin.task("t", limits, StaticContext::default(), Reuse::default()).expect("a task");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&lines);
        let log = Box::new(move |_, line| said.lock().expect("nobody panicked").push(line));
        let task = plugin.with_state("t", "", &task, log).await?.expect("a task with state");
        let mut given = Vec::new();
        for _ in 0..3 {
            let outputs =
                task.run(Bytes::from_static(b"\x05"), Call::idle(), &task.instances()).await.expect("outputs");
            given.extend_from_slice(&outputs.into_payload());
        }
        let lines = lines.lock().expect("nobody panicked").clone();
        Ok((given, lines))
    }

    #[tokio::test]
    async fn every_instance_starts_from_what_the_initializer_has_left() {
        let (given, lines) = given(&plugin("", ""), LIMITS).await.expect("an image");
        assert_eq!(given, [2, 2, 2], "the state is there, and no item finds what another has made of it");
        assert_eq!(lines, ["made"], "the initializer runs once");
    }

    #[tokio::test]
    async fn what_comes_before_the_initializer_is_done_once() {
        let before = "(func $before (global.set $made (i32.add (global.get $made) (i32.const 5))))";
        let start = plugin(&format!("{before} (start $before)"), "");
        assert_eq!(given(&start, LIMITS).await.expect("an image").0, [7, 7, 7]);
        let initialize = plugin(&format!(r#"{before} (export "_initialize" (func $before))"#), "");
        assert_eq!(given(&initialize, LIMITS).await.expect("an image").0, [7, 7, 7]);
    }

    #[tokio::test]
    async fn memory_that_the_initializer_has_grown_is_there() {
        let grow = "(drop (memory.grow (i32.const 3))) (i32.store8 (i32.const 300000) (i32.const 1))";
        assert_eq!(given(&plugin("", grow), LIMITS).await.expect("an image").0, [2, 2, 2]);
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
        let says = "its state takes 256.1 MiB of memory; an image may have 256.0 MiB";
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
    async fn a_task_without_state_has_no_image() {
        let plain = load(
            engine(),
            r#"(module (memory (export "memory") 1)
            (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
            (func (export "pcluster_task:t") (param i32 i32) (result i32) (i32.const 0)))"#,
        )
        .expect("a plugin");
        let task = plain.task("t", LIMITS, StaticContext::default(), Reuse::default()).expect("a task");
        assert!(plain.with_state("t", "", &task, Box::new(|_, _| {})).await.expect("no error").is_none());
    }

    #[tokio::test]
    async fn the_clock_goes_on_from_where_the_initializer_saw_it() {
        // The task gives 24 if its clock is before the time that the initializer has read.
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
        assert_eq!(given(&plugin, LIMITS).await.expect("an image").0, [0, 0, 0]);
    }
}
