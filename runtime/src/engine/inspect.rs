//! Reads a plugin without running or compiling it: is it one, which tasks has it, does it ask for what the host has not.

use std::collections::BTreeMap;
use std::fmt::Display;

use pcluster_abi as abi;
use serde::{Deserialize, Serialize};
use wasmparser::{ExternalKind, FuncType, Parser, Payload, TypeRef, Validator, WasmFeatures};
use wasmtime::{ExternType, Linker};

use super::{TABLE_ELEMENTS, host, wasi};

/// What a plugin says of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDescription {
    /// The ABI it was built for.
    #[serde(default)]
    pub abi: u32,
    /// Its name.
    pub name: String,
    /// `map`, `filter`, `generator`, `sink`; empty if the plugin does not say.
    #[serde(default)]
    pub kind: String,
    /// Its documentation.
    #[serde(default)]
    pub doc: String,
    /// The type of its input, as its author wrote it.
    #[serde(default)]
    pub input: String,
    /// The type of its output, as its author wrote it.
    #[serde(default)]
    pub output: String,
}

/// What a plugin holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Its tasks by name.
    pub tasks: Vec<TaskDescription>,
    /// What it asks of the host, as `module::name`.
    pub imports: Vec<String>,
}

impl Inspection {
    /// The task with this name.
    ///
    /// # Errors
    ///
    /// If the plugin has none, naming those it has.
    pub fn task(&self, name: &str) -> Result<&TaskDescription, InspectError> {
        self.tasks.iter().find(|task| task.name == name).ok_or_else(|| {
            let names: Vec<String> = self.tasks.iter().map(|task| format!("`{}`", task.name)).collect();
            InspectError::NoSuchTask { task: name.to_owned(), has: names.join(", ") }
        })
    }
}

/// Why a file is not a plugin that can be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Not WebAssembly at all.
    #[error("not a WebAssembly module; build the plugin with `cargo build --release --target wasm32-wasip1`")]
    NotWasm,
    /// A component.
    #[error("a WebAssembly component, not a module; build the plugin for the target wasm32-wasip1, not wasm32-wasip2")]
    Component,
    /// Not valid.
    #[error("not a valid WebAssembly module: {0}")]
    Invalid(String),
    /// Built for another ABI.
    #[error(
        "built for plugin ABI {found}, but this pcluster runs ABI {}; build it with a matching version of pcluster-sdk",
        abi::VERSION
    )]
    OtherAbi {
        /// The ABI it was built for.
        found: String,
    },
    /// An export that every plugin has is missing or wrong.
    #[error("not a pcluster plugin: {0}")]
    Export(String),
    /// It holds no task.
    #[error("the plugin has no task; mark a function with `#[task]` and build with crate-type cdylib")]
    NoTask,
    /// It does not hold the task that was asked for.
    #[error("the plugin has no task `{task}`; it has {has}")]
    NoSuchTask {
        /// The task.
        task: String,
        /// Those it has.
        has: String,
    },
    /// It asks for something that the host does not offer.
    #[error("the plugin imports `{0}`, which pcluster does not offer")]
    Import(String),
}

/// What the engine of a node can run; see [`super::Engine`].
fn features() -> WasmFeatures {
    WasmFeatures::WASM2 | WasmFeatures::TAIL_CALL | WasmFeatures::EXTENDED_CONST | WasmFeatures::RELAXED_SIMD
}

#[derive(Default)]
struct Contents<'a> {
    types: Vec<Option<FuncType>>,
    imports: Vec<(&'a str, &'a str, TypeRef)>,
    functions: Vec<u32>,
    exports: Vec<(&'a str, ExternalKind, u32)>,
    descriptions: Vec<&'a str>,
    /// The least number of entries of each table.
    tables: Vec<u64>,
}

/// Reads a plugin.
///
/// # Errors
///
/// If it cannot be run by this version of pcluster.
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
    Ok(Inspection { tasks, imports })
}

fn read(bytes: &[u8]) -> Result<Contents<'_>, wasmparser::BinaryReaderError> {
    let mut contents = Contents::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::TypeSection(types) => {
                for group in types {
                    for each in group?.into_types() {
                        let function = match each.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        };
                        contents.types.push(function);
                    }
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    contents.tables.push(table?.ty.initial);
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    contents.imports.push((import.module, import.name, import.ty));
                }
            }
            Payload::FunctionSection(functions) => {
                contents.functions = functions.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    contents.exports.push((export.name, export.kind, export.index));
                }
            }
            Payload::CustomSection(section) if section.name() == abi::SECTION => {
                contents.descriptions.extend(std::str::from_utf8(section.data()).ok());
            }
            _ => {}
        }
    }
    Ok(contents)
}

/// A function type as text, the same for a guest's import and a host's function.
fn signature(parameters: impl Iterator<Item = impl Display>, results: impl Iterator<Item = impl Display>) -> String {
    let list = |types: Vec<String>| types.join(", ");
    let parameters = list(parameters.map(|each| each.to_string()).collect());
    format!("({parameters}) -> ({})", list(results.map(|each| each.to_string()).collect()))
}

impl Contents<'_> {
    fn signature(&self, type_index: u32) -> Option<String> {
        let function = self.types.get(type_index as usize)?.as_ref()?;
        Some(signature(function.params().iter(), function.results().iter()))
    }

    /// The signature of an exported function.
    fn export(&self, name: &str) -> Option<String> {
        let (.., index) = self.exports.iter().find(|(each, kind, _)| *each == name && *kind == ExternalKind::Func)?;
        let imported: Vec<u32> = self
            .imports
            .iter()
            .filter_map(|(.., import)| match import {
                TypeRef::Func(type_index) => Some(*type_index),
                _ => None,
            })
            .collect();
        let index = *index as usize;
        let type_index = imported.iter().chain(&self.functions).nth(index)?;
        self.signature(*type_index)
    }
}

fn check_imports(contents: &Contents<'_>) -> Result<Vec<String>, InspectError> {
    let offered = offered().map_err(|error| InspectError::Invalid(error.to_string()))?;
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
        match (offered.get(&full), wanted) {
            (Some(offered), Some(wanted)) if *offered == wanted => imports.push(full),
            (Some(offered), Some(wanted)) => {
                return Err(InspectError::Import(format!("{full}` as `{wanted}` instead of `{offered}")));
            }
            _ => return Err(InspectError::Import(full)),
        }
    }
    Ok(imports)
}

/// All that the host offers, with its signatures, as `module::name`.
fn offered() -> wasmtime::Result<BTreeMap<String, String>> {
    let engine = wasmtime::Engine::default();
    let mut linker: Linker<host::Host> = Linker::new(&engine);
    host::link(&mut linker)?;
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
    let described: Vec<TaskDescription> = contents
        .descriptions
        .iter()
        .flat_map(|section| section.lines())
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    if let Some(other) = described.iter().find(|task| task.abi != 0 && task.abi != abi::VERSION) {
        return Err(InspectError::OtherAbi { found: other.abi.to_string() });
    }
    let names: Vec<&str> =
        contents.exports.iter().filter_map(|(name, ..)| name.strip_prefix(abi::TASK_PREFIX)).collect();
    if names.is_empty() {
        return Err(InspectError::NoTask);
    }
    let exported_memory =
        contents.exports.iter().any(|(name, kind, _)| *name == abi::MEMORY && *kind == ExternalKind::Memory);
    if !exported_memory {
        return Err(InspectError::Export(format!("it exports no memory named `{}`", abi::MEMORY)));
    }
    check_export(contents, abi::ALLOC, "(i32) -> (i32)")?;
    let mut tasks = Vec::with_capacity(names.len());
    for name in names {
        check_export(contents, &format!("{}{name}", abi::TASK_PREFIX), "(i32, i32) -> (i32)")?;
        let said = described.iter().find(|task| task.name == name).cloned();
        tasks.push(said.unwrap_or_else(|| TaskDescription {
            abi: abi::VERSION,
            name: name.to_owned(),
            kind: String::new(),
            doc: String::new(),
            input: String::new(),
            output: String::new(),
        }));
    }
    tasks.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(tasks)
}

fn check_export(contents: &Contents<'_>, name: &str, wanted: &str) -> Result<(), InspectError> {
    match contents.export(name) {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(InspectError::Export(format!("its export `{name}` is `{found}`, not `{wanted}`"))),
        None => Err(InspectError::Export(format!("it exports no function `{name}`"))),
    }
}
