//! WebAssembly: the only module that names `wasmtime`.
//!
//! An [`Engine`] loads a [`Plugin`], which gives a [`task::Task`], which runs items. Each item runs in an `instance`: a fresh
//! one, or an [`idle`] one that has handled items before. `stage` makes the task of a stage that is deployed.
//!
//! [`inspect`] reads a plugin without running it, [`schemas`] asks it for what it tells only as it runs, [`compiler`] compiles it in
//! a process of its own, [`cache`] keeps the code on disk, and `loaded` in memory. `kept` makes plugins and states of what the cache has, which `later` writes. `snapshot` makes the
//! state of a task before its first item: `parts` takes the plugin apart for it, `template` makes instances of what comes of that,
//! and `renew` puts them back to their start. [`budget`] counts the memory of all items, [`limits`] bounds one execution, and
//! [`streaming`] keeps waiting instances from taking all slots. A guest calls the functions of pcluster in [`host`] and those of an
//! operating system in [`wasi`]; [`output`] holds the outputs of its items, and `backtrace` names the functions in which it failed.

mod backtrace;
pub mod cache;
mod clock;
pub mod compiler;
pub mod host;
#[cfg(test)]
mod hostile;
pub mod idle;
pub mod inspect;
mod instance;
mod kept;
mod later;
pub mod limits;
mod loaded;
mod parts;
mod renew;
pub mod schemas;
pub mod snapshot;
mod stage;
pub mod static_context;
pub mod streaming;
pub mod task;
mod template;
#[cfg(test)]
mod testing;
pub mod wasi;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, Linker, Module, PoolingAllocationConfig};

use crate::machine;
use crate::name::Digest;
use crate::run::budget::Budget;
use cache::Cache;
use compiler::Compiler;
use host::Host;
use idle::Slots;
use inspect::{InspectError, Inspection};
use later::Later;
use loaded::Loaded;
use parts::{Outline, Parts};
use snapshot::Snapshots;
use template::{Code, Split, Template};

/// The interval at which a running guest yields to others.
const TICK: Duration = Duration::from_millis(5);
/// The bytes of memory that a slot keeps between instances. A new instance need not ask the operating system for them. With them
/// a fresh instance costs 5.5 µs, without them 20 to 50 µs (measured with wasmtime 48 on a 35 KB plugin).
const KEEP_RESIDENT: usize = 2 << 20;
/// The fraction of a node's memory for slots without an instance: one part in this many.
const KEEP_PART: u64 = 8;
/// The most slots that keep memory without an instance.
const KEEP_SLOTS: u32 = 100;
/// The address space of a 32-bit guest, in bytes. If all of it is reserved, memory accesses need no bounds checks.
const ADDRESS_SPACE: usize = 4 << 30;
/// The bytes by which a guest's memory grows in place. Used where address space is scarce.
const GROWTH: u64 = 1 << 20;
/// The bytes of guard pages behind a guest's memory. Used where address space is scarce.
const GUARD: u64 = 64 << 10;
/// The most entries of a guest's function table. Compilers make one table of a few hundred entries per module.
const TABLE_ELEMENTS: usize = 20_000;
/// The bytes of code from which on a plugin with a state has its image apart from its code. All that hold an interpreter or a runtime
/// of a language have more: JavaScript 0.9 MiB, Go 3.4, Python 4.8. Less code is compiled soon and seldom shared, and an instance of one
/// module starts faster.
const SPLIT_FROM: usize = 768 << 10;
/// The stack of a guest and its host functions, in bytes.
const STACK: usize = 1 << 20;
/// The part of the stack for the guest itself, in bytes. A larger one keeps what a guest has used of it, for each slot. It would not
/// help an interpreter that does not bound the recursion of its own code: one needed more than 16 MiB for the text of a deep list.
const GUEST_STACK: usize = 512 << 10;

/// The settings of an engine.
#[derive(Debug, Clone, Default)]
pub struct EngineSettings {
    /// The most instances that exist at once, over all chains.
    pub instances: u32,
    /// Memory for items, in bytes. `None` sets no bound.
    pub memory: Option<u64>,
    /// The folder of compiled code. `None` keeps no code.
    pub cache: Option<PathBuf>,
    /// Compiles plugins in another process. `None` compiles in this process, where a plugin can use up the time and memory of the
    /// node.
    pub compiler: Option<Arc<Compiler>>,
}

/// Why a plugin cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine cannot start on this machine.
    #[error("cannot start the WebAssembly engine: {0}")]
    Start(String),
    /// The file is not a plugin.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The plugin cannot be compiled or linked.
    #[error("cannot load the plugin: {0}")]
    Load(String),
}

/// The WebAssembly engine of a node. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    linker: Arc<Linker<Host>>,
    slots: Arc<Slots>,
    budget: Arc<Budget>,
    cache: Option<Arc<Cache>>,
    /// Writes to the cache what nobody waits for.
    later: Arc<Later>,
    compiler: Option<Arc<Compiler>>,
    templates: Arc<Loaded<Template>>,
    /// Code without its image.
    codes: Arc<Loaded<Module>>,
    space: Space,
    /// A plugin with a state and at least this many bytes of code has its image apart from its code.
    split_from: usize,
}

/// A plugin that is ready to run.
#[derive(Clone)]
pub struct Plugin {
    engine: Engine,
    template: Arc<Template>,
    digest: Digest,
    snapshots: Snapshots,
    /// The tasks and imports of the plugin.
    pub inspection: Arc<Inspection>,
}

impl Engine {
    /// Starts an engine.
    ///
    /// # Errors
    ///
    /// If the machine does not allow it, for example because it has too little address space.
    pub fn new(settings: &EngineSettings) -> Result<Self, EngineError> {
        let start = |error: wasmtime::Error| EngineError::Start(format!("{error:#}"));
        let (inner, space) = start_in(settings).map_err(start)?;
        let mut linker = Linker::new(&inner);
        host::imports::link(&mut linker).map_err(start)?;
        wasi::link(&mut linker).map_err(start)?;
        let cache = settings.cache.clone().and_then(|folder| match Cache::open(folder.clone(), &inner) {
            Ok(cache) => Some(Arc::new(cache)),
            Err(error) => {
                let folder = folder.display();
                tracing::warn!(%error, "cannot use the cache folder `{folder}`: plugins are compiled at each start");
                None
            }
        });
        start_ticker(&inner);
        let budget = Budget::new(settings.memory.unwrap_or(u64::MAX));
        Ok(Self {
            linker: Arc::new(linker),
            slots: Slots::new(settings.instances, Arc::clone(&budget)),
            budget,
            cache,
            later: Arc::default(),
            compiler: settings.compiler.clone(),
            templates: Arc::default(),
            codes: Arc::default(),
            space,
            split_from: SPLIT_FROM,
            inner,
        })
    }

    /// Returns the memory budget for items.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Loads a plugin. Compiling takes a while and blocks the thread, unless the code is in the cache.
    ///
    /// # Errors
    ///
    /// If the bytes are not a plugin, or the plugin imports functions that the host does not offer.
    pub fn load(&self, digest: &Digest, bytes: impl Into<Bytes>) -> Result<Plugin, EngineError> {
        let bytes = bytes.into();
        let inspection = Arc::new(inspect::inspect(&bytes)?);
        let (template, snapshots) = if inspection.makes_state {
            self.with_snapshots(digest, &bytes)?
        } else {
            (self.whole(digest, digest, &bytes)?, Snapshots::Stateless)
        };
        Ok(Plugin { engine: self.clone(), template, digest: digest.clone(), snapshots, inspection })
    }

    /// Loads a plugin that makes a state, in a way that it can be read.
    fn with_snapshots(&self, digest: &Digest, bytes: &Bytes) -> Result<(Arc<Template>, Snapshots), EngineError> {
        let parts = match Parts::read(bytes) {
            Ok(parts) => parts,
            Err(reason) => return Ok((self.whole(digest, digest, bytes)?, Snapshots::Unfit(reason.into()))),
        };
        let memory =
            (parts.code_bytes() >= self.split_from && parts.starts_with_numbers()).then(|| parts.first_memory());
        let Some(memory) = memory.flatten() else {
            let readable = parts.readable();
            let content = Digest::of(&readable);
            return Ok((self.whole(&content, &content, &readable)?, Snapshots::Whole(Arc::new(parts))));
        };
        let template = self.templates.get_or_make(digest, || {
            let code = self.code(&parts)?;
            let image = self.image(&parts.outline.image(&parts.first_state(&memory)))?;
            self.keep(digest, &parts, &code, &image);
            self.split(&parts.outline, &image, code)
        })?;
        Ok((template, Snapshots::Split(Arc::new(parts.outline))))
    }

    /// Returns a module as a template: from memory, from the cache, or compiled now. The cache keeps it under `key`; `content` is
    /// the digest of the module.
    fn whole(&self, key: &Digest, content: &Digest, bytes: &[u8]) -> Result<Arc<Template>, EngineError> {
        self.templates.get_or_make(content, || {
            let module = self.compile(key, content, bytes)?;
            Ok(Template::Whole(self.linker.instantiate_pre(&module).map_err(not_loaded)?))
        })
    }

    /// Returns the code of a plugin, which plugins with other images may use too.
    fn code(&self, parts: &Parts) -> Result<Code, EngineError> {
        let bytes = parts.code();
        let digest = Digest::of(&bytes);
        let module = self.codes.get_or_make(&digest, || self.compile(&digest, &digest, &bytes))?;
        Ok(parts.code_of(digest, module))
    }

    /// Returns an image. It has no code that could take long to compile, so this process does.
    fn image(&self, bytes: &[u8]) -> Result<Module, EngineError> {
        Module::from_binary(&self.inner, bytes).map_err(not_loaded)
    }

    /// Returns a template of an image and code.
    fn split(&self, outline: &Outline, image: &Module, code: Code) -> Result<Template, EngineError> {
        let image = self.linker.instantiate_pre(image).map_err(not_loaded)?;
        Ok(Template::Split(Split::new(image, outline.image_exports(), code).map_err(not_loaded)?))
    }

    fn compile(&self, key: &Digest, content: &Digest, bytes: &[u8]) -> Result<Module, EngineError> {
        let compile = || match &self.compiler {
            Some(compiler) => {
                let functions = self.cache.as_ref().filter(|_| compiler.keeps_functions).map(|cache| cache.functions());
                let code = compiler.compile(content, bytes, self.space, functions.as_deref())?;
                cache::from_code(&self.inner, &code).map_err(not_loaded)
            }
            None => Module::from_binary(&self.inner, bytes).map_err(not_loaded),
        };
        match &self.cache {
            Some(cache) => cache.get_or_compile(&self.inner, key, content, compile),
            None => compile(),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn not_loaded(error: wasmtime::Error) -> EngineError {
    EngineError::Load(format!("{error:#}"))
}

/// How much address space instances reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    /// Each slot reserves as much as a guest can ever use.
    Full,
    /// Each instance takes what it needs at the moment.
    Scarce,
}

/// Starts an engine. Where address space is limited, it reserves less.
fn start_in(settings: &EngineSettings) -> wasmtime::Result<(wasmtime::Engine, Space)> {
    let EngineSettings { instances, memory, .. } = *settings;
    let error = match wasmtime::Engine::new(&config(instances, memory, Space::Full)) {
        Ok(engine) => return Ok((engine, Space::Full)),
        Err(error) => error,
    };
    let engine = wasmtime::Engine::new(&config(instances, memory, Space::Scarce))?;
    let wanted = bytesize::ByteSize(ADDRESS_SPACE as u64 * u64::from(instances)).display().iec();
    tracing::warn!(
        "items run slower: {instances} instances want {wanted} of address space, which this process may not have \
         ({error:#}); lift `ulimit -v` or lower `--instances`"
    );
    Ok((engine, Space::Scarce))
}

/// Returns the settings of the engine. Code that was compiled for one kind of space does not run in the other.
fn config(instances: u32, memory: Option<u64>, space: Space) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .async_stack_size(STACK)
        .max_wasm_stack(GUEST_STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(backtrace::TAKEN_MAX))
        .wasm_multi_memory(false)
        .wasm_memory64(false);
    match space {
        Space::Full => config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances, memory)))
            .memory_reservation(ADDRESS_SPACE as u64),
        Space::Scarce => config
            .allocation_strategy(InstanceAllocationStrategy::OnDemand)
            .memory_reservation(0)
            .memory_reservation_for_growth(GROWTH)
            .memory_guard_size(GUARD),
    };
    config
}

/// Returns the pool for this many instances. `memory` is the memory for items, in bytes.
fn pool(instances: u32, memory: Option<u64>) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // An instance of a plugin may be two of the engine's: an image, and the code that imports it.
    pool.total_core_instances(instances.saturating_mul(2))
        .total_memories(instances)
        .total_tables(instances)
        .total_stacks(instances)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(ADDRESS_SPACE)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT)
        .max_unused_warm_slots(keeping(memory))
        .pagemap_scan(scan(machine::swaps()));
    pool
}

/// Returns whether the kernel is asked which pages of an instance must be reset.
///
/// wasmtime 48 looks for pages that are in memory, and does not reset one that was swapped out: the next guest would read it. So where
/// memory may be swapped out, all of it is reset, which takes longer.
fn scan(swaps: bool) -> Enabled {
    if swaps { Enabled::No } else { Enabled::Auto }
}

/// Returns how many slots may keep memory without an instance. The budget does not count that memory.
fn keeping(memory: Option<u64>) -> u32 {
    let slots = memory.map(|memory| memory / KEEP_PART / KEEP_RESIDENT as u64);
    slots.and_then(|slots| u32::try_from(slots).ok()).map_or(KEEP_SLOTS, |slots| slots.min(KEEP_SLOTS))
}

/// Starts the thread that counts the epochs at which guests yield. It holds the engine weakly and ends with it.
fn start_ticker(engine: &wasmtime::Engine) {
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("epochs".to_owned()).spawn(tick) {
        tracing::error!(%error, "cannot start the clock of the engine: a spinning guest will not give way");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_with_the_same_plugin_share_its_code() {
        let engine = testing::engine_with(1);
        let load = |result: u8| {
            let wat = format!(
                r#"(module (memory (export "memory") 1)
                (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
                (func (export "pcluster_task:t") (param i32 i32) (result i32) (i32.const {result})))"#
            );
            testing::load(&engine, &wat).expect("a plugin")
        };
        let (one, same, other) = (load(0), load(0), load(1));
        assert!(Arc::ptr_eq(&one.template, &same.template));
        assert!(!Arc::ptr_eq(&one.template, &other.template));
    }

    #[test]
    fn slots_keep_little_of_a_small_budget() {
        for (memory, slots) in [(None, 100), (Some(u64::MAX), 100), (Some(1 << 30), 64), (Some(1 << 20), 0)] {
            assert_eq!(keeping(memory), slots, "{memory:?}");
        }
    }
}
