//! Reads a plugin without running or compiling it: checks that it is one, lists its tasks, and checks its imports.

mod contents;

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use bytesize::ByteSize;
use pcluster_abi as abi;
use serde::{Deserialize, Serialize};
use wasmparser::{Parser, TypeRef, Validator, WasmFeatures};
use wasmtime::{ExternType, Linker};

use super::{TABLE_ELEMENTS, host, wasi};
use contents::{Contents, read, signature};

/// The description of a task by its plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDescription {
    /// The ABI that the plugin was built for.
    #[serde(default)]
    pub abi: u32,
    /// The name of the task.
    pub name: String,
    /// `map`, `filter`, `generator` or `sink`. Empty if the plugin has no description.
    #[serde(default)]
    pub kind: String,
    /// The documentation of the task.
    #[serde(default)]
    pub doc: String,
    /// The type of the input, as its author wrote it.
    #[serde(default)]
    pub input: String,
    /// The type of the output, as its author wrote it.
    #[serde(default)]
    pub output: String,
    /// The type of the state, as its author wrote it. Empty if the task has no state.
    #[serde(default)]
    pub state: String,
    /// The groups of calls that the task makes, as in `http`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// The JSON Schemas of what the task takes and gives.
    #[serde(default, skip_serializing_if = "TaskSchemas::is_empty")]
    pub schema: TaskSchemas,
    /// The export that tells the schemas. `None` if the section does, or nobody.
    #[serde(skip)]
    pub(super) teller: Option<String>,
}

/// The JSON Schemas of what a task takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSchemas {
    /// The schema of the items that the task takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// The schema of each item that the task gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
}

impl TaskSchemas {
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    /// Returns the object that a section has.
    pub(super) fn to_value(&self) -> serde_json::Value {
        let both = [("input", &self.input), ("output", &self.output)].into_iter();
        both.filter_map(|(key, schema)| Some((key.to_owned(), schema.clone()?))).collect()
    }
}

/// The contents of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The tasks by name.
    pub tasks: Vec<TaskDescription>,
    /// The functions that the plugin imports, as `module::name`.
    pub imports: Vec<String>,
    /// The linear memory of a new instance, in bytes.
    pub memory: u64,
    /// `true` if a task makes a state before its first item.
    #[serde(skip)]
    pub(super) makes_state: bool,
}

impl Inspection {
    /// Returns the task with this name.
    pub fn task(&self, name: &str) -> Result<&TaskDescription, InspectError> {
        self.tasks.iter().find(|task| task.name == name).ok_or_else(|| {
            let names: Vec<String> = self.tasks.iter().map(|task| format!("`{}`", task.name)).collect();
            InspectError::NoSuchTask { task: name.to_owned(), has: names.join(", ") }
        })
    }

    /// Checks that a stage with these granted groups of calls has what a task of the plugin calls.
    pub fn check_calls(&self, name: &str, granted: &[&str]) -> Result<(), InspectError> {
        let missing = self.task(name)?.calls.iter().find(|call| !granted.contains(&call.as_str()));
        match missing {
            None => Ok(()),
            Some(call) => Err(InspectError::NotGranted { call: call.clone(), line: example(call) }),
        }
    }

    /// Checks that an instance can start with this many bytes of memory.
    pub fn check_memory(&self, allowed: u64) -> Result<(), InspectError> {
        if self.memory <= allowed {
            return Ok(());
        }
        Err(InspectError::Memory { needed: self.memory, allowed })
    }
}

/// Why a file is not a plugin that this program can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The file is not WebAssembly.
    #[error("not a WebAssembly module; build the plugin with `cargo build --release --target wasm32-wasip1`")]
    NotWasm,
    /// The file is a component.
    #[error("a WebAssembly component, not a module; build the plugin for the target wasm32-wasip1, not wasm32-wasip2")]
    Component,
    /// The module is not valid.
    #[error("not a valid WebAssembly module: {0}")]
    Invalid(String),
    /// The plugin was built for another ABI.
    #[error(
        "built for plugin ABI {found}, but this pcluster runs ABI {}; build it with a matching version of pcluster-sdk",
        abi::VERSION
    )]
    OtherAbi {
        /// The ABI that the plugin was built for.
        found: String,
    },
    /// An export that every plugin must have is missing or wrong.
    #[error("not a pcluster plugin: {0}")]
    Export(String),
    /// The plugin has no task.
    #[error("the plugin has no task; mark a function with `#[task]` and build with crate-type cdylib")]
    NoTask,
    /// The plugin does not have this task.
    #[error("the plugin has no task `{task}`; it has {has}")]
    NoSuchTask {
        /// The name of the missing task.
        task: String,
        /// The tasks that the plugin has.
        has: String,
    },
    /// The plugin calls the host, and does not say for which task.
    #[error(
        "the plugin calls the host, but lists no calls for any of its tasks; write what a task calls, as in `#[task(calls(http))]`"
    )]
    Calls,
    /// A task lists a call that does not exist.
    #[error("the task `{task}` calls `{call}`, which pcluster does not offer; it offers {}", abi::call::GROUPS.join(", "))]
    NoSuchCall {
        /// The task.
        task: String,
        /// The call.
        call: String,
    },
    /// The manifest does not grant what the task calls.
    #[error("its task calls `{call}`, and the manifest grants none; add to its `[stage.allow]`: {line}")]
    NotGranted {
        /// The group of calls.
        call: String,
        /// The line to add.
        line: &'static str,
    },
    /// A task does not tell its schemas, although it has an export for them.
    #[error(
        "the plugin cannot tell the schemas of its task `{task}`: {reason}; write `schema = false` into its `#[task]` to go without"
    )]
    Schemas {
        /// The task.
        task: String,
        /// Why not.
        reason: String,
    },
    /// The plugin imports a function that the host does not offer.
    #[error("the plugin imports `{0}`, which pcluster does not offer")]
    Import(String),
    /// The memory limit of the stage is too small.
    #[error(
        "the plugin starts with {} of memory, but its stage allows {}; write `memory = \"{}KiB\"` or more",
        ByteSize(*.needed).display().iec(), ByteSize(*.allowed).display().iec(), .needed.div_ceil(1 << 10)
    )]
    Memory {
        /// The bytes that an instance starts with.
        needed: u64,
        /// The bytes that the stage allows.
        allowed: u64,
    },
}

/// Returns a line of a manifest that grants calls of a group.
fn example(call: &str) -> &'static str {
    match call {
        "http" => r#"http = ["https://api.example.com"]"#,
        "kv" => r#"kv = { BUCKET = "read" }"#,
        "objects" => r#"objects = { STORE = "read" }"#,
        "publish" => r#"publish = ["SUBJECT"]"#,
        _ => r#"secrets = { NAME = "https://api.example.com" }"#,
    }
}

/// Returns the WebAssembly features that the engine runs; see [`super::Engine`]. Without a garbage collector, guests hold no
/// references to objects of the host.
fn features() -> WasmFeatures {
    let more = WasmFeatures::TAIL_CALL | WasmFeatures::EXTENDED_CONST | WasmFeatures::RELAXED_SIMD;
    (WasmFeatures::WASM2 | more).difference(WasmFeatures::GC_TYPES)
}

/// Reads a plugin.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    if Parser::is_component(bytes) {
        return Err(InspectError::Component);
    }
    if !Parser::is_core_wasm(bytes) {
        return Err(InspectError::NotWasm);
    }
    Validator::new_with_features(features())
        .validate_all(bytes)
        .map_err(|error| InspectError::Invalid(error.to_string()))?;
    let contents = read(bytes).map_err(|error| InspectError::Invalid(error.to_string()))?;
    if contents.tables.len() > 1 || contents.tables.iter().any(|entries| *entries > TABLE_ELEMENTS as u64) {
        return Err(InspectError::Invalid(format!("a plugin may have one table, of at most {TABLE_ELEMENTS} entries")));
    }
    let imports = check_imports(&contents)?;
    let tasks = tasks(&contents)?;
    check_calls(&tasks, &imports)?;
    let makes_state = contents.has_any(abi::INIT_PREFIXES);
    Ok(Inspection { tasks, imports, memory: contents.memory, makes_state })
}

fn check_calls(tasks: &[TaskDescription], imports: &[String]) -> Result<(), InspectError> {
    if imports.iter().any(|import| *import == format!("{}::{}", abi::MODULE, abi::CALL))
        && tasks.iter().all(|task| task.calls.is_empty())
    {
        return Err(InspectError::Calls);
    }
    for task in tasks {
        if let Some(call) = task.calls.iter().find(|call| !abi::call::GROUPS.contains(&call.as_str())) {
            return Err(InspectError::NoSuchCall { task: task.name.clone(), call: call.clone() });
        }
    }
    Ok(())
}

fn check_imports(contents: &Contents<'_>) -> Result<Vec<String>, InspectError> {
    let mut imports = Vec::with_capacity(contents.imports.len());
    for (module, name, import) in &contents.imports {
        let full = format!("{module}::{name}");
        if let Some(found) = module.strip_prefix(abi::MODULE_PREFIX)
            && *module != abi::MODULE
        {
            return Err(InspectError::OtherAbi { found: found.to_owned() });
        }
        let wanted = match import {
            TypeRef::Func(type_index) => contents.signature(*type_index),
            _ => None,
        };
        match (OFFERED.get(&full), wanted) {
            (Some(offered), Some(wanted)) if *offered == wanted => imports.push(full),
            (Some(offered), Some(wanted)) => {
                return Err(InspectError::Import(format!("{full}` as `{wanted}` instead of `{offered}")));
            }
            _ => return Err(InspectError::Import(full)),
        }
    }
    Ok(imports)
}

/// The functions that the host offers, with their signatures, by `module::name`.
pub(super) static OFFERED: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| match offered() {
    Ok(offered) => offered,
    // Every engine makes the same calls, and they have no input that could make them fail.
    Err(error) => unreachable!("the host's functions cannot be linked: {error:#}"),
});

fn offered() -> wasmtime::Result<BTreeMap<String, String>> {
    let engine = wasmtime::Engine::default();
    let mut linker: Linker<host::Host> = Linker::new(&engine);
    host::imports::link(&mut linker)?;
    wasi::link(&mut linker)?;
    let mut store = wasmtime::Store::new(&engine, host::Host::idle());
    let all: Vec<_> = linker.iter(&mut store).map(|(module, name, item)| (format!("{module}::{name}"), item)).collect();
    Ok(all
        .into_iter()
        .filter_map(|(full, item)| match item.ty(&store) {
            ExternType::Func(function) => Some((full, signature(function.params(), function.results()))),
            _ => None,
        })
        .collect())
}

fn tasks(contents: &Contents<'_>) -> Result<Vec<TaskDescription>, InspectError> {
    let lines = contents.descriptions.iter().flat_map(|section| section.lines());
    let mut described: HashMap<String, TaskDescription> = HashMap::new();
    for task in lines.filter_map(|line| serde_json::from_str::<TaskDescription>(line).ok()) {
        if task.abi != 0 && task.abi != abi::VERSION {
            return Err(InspectError::OtherAbi { found: task.abi.to_string() });
        }
        described.entry(task.name.clone()).or_insert(task);
    }
    let names = contents.task_names();
    if names.is_empty() {
        return Err(InspectError::NoTask);
    }
    if !contents.exports_memory(abi::MEMORY) {
        return Err(InspectError::Export(format!("it exports no memory named `{}`", abi::MEMORY)));
    }
    check_export(contents, abi::ALLOC, "(i32) -> (i32)")?;
    if contents.has_export(abi::INITIALIZE) {
        check_export(contents, abi::INITIALIZE, "() -> ()")?;
    }
    let mut tasks = Vec::with_capacity(names.len());
    for name in names {
        let task = contents.first_of(abi::TASK_PREFIXES, name);
        check_export(contents, task.as_deref().unwrap_or(name), "(i32, i32) -> (i32)")?;
        for prefixes in [abi::INIT_PREFIXES, abi::EACH_PREFIXES] {
            if let Some(optional) = contents.first_of(prefixes, name) {
                check_export(contents, &optional, "() -> (i32)")?;
            }
        }
        let mut task = described.remove(name).unwrap_or_else(|| TaskDescription {
            abi: abi::VERSION,
            name: name.to_owned(),
            ..TaskDescription::default()
        });
        if task.schema.is_empty() {
            task.teller = contents.first_of(abi::SCHEMA_PREFIXES, name);
        }
        if let Some(teller) = &task.teller {
            check_export(contents, teller, "() -> (i64)")?;
        }
        tasks.push(task);
    }
    Ok(tasks)
}

fn check_export(contents: &Contents<'_>, name: &str, wanted: &str) -> Result<(), InspectError> {
    match contents.export(name) {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(InspectError::Export(format!("its export `{name}` is `{found}`, not `{wanted}`"))),
        None => Err(InspectError::Export(format!("it exports no function `{name}`"))),
    }
}
