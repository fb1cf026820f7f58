//! The parts of a module that identify a plugin.

use std::collections::HashMap;
use std::fmt::Display;

use pcluster_abi as abi;
use wasmparser::{BinaryReaderError, CompositeInnerType, ExternalKind, FuncType, Parser, Payload, TypeRef};

/// The size of a page of linear memory in bytes. The engine supports no other page size.
const PAGE: u64 = 64 << 10;

/// The parts of a module.
#[derive(Default)]
pub(super) struct Contents<'a> {
    types: Vec<Option<FuncType>>,
    pub(super) imports: Vec<(&'a str, &'a str, TypeRef)>,
    /// The type of each function. Imported functions come first.
    functions: Vec<u32>,
    exports: HashMap<&'a str, (ExternalKind, u32)>,
    /// The lines by which the plugin describes its tasks.
    pub(super) descriptions: Vec<&'a str>,
    /// The minimum number of entries of each table.
    pub(super) tables: Vec<u64>,
    /// The minimum size of the memory in bytes.
    pub(super) memory: u64,
}

/// Reads a module that has been validated.
pub(super) fn read(bytes: &[u8]) -> Result<Contents<'_>, BinaryReaderError> {
    let mut contents = Contents::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::TypeSection(types) => {
                for group in types {
                    for each in group?.into_types() {
                        contents.types.push(match each.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    if let TypeRef::Func(type_index) = import.ty {
                        contents.functions.push(type_index);
                    }
                    contents.imports.push((import.module, import.name, import.ty));
                }
            }
            Payload::FunctionSection(functions) => {
                for function in functions {
                    contents.functions.push(function?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    contents.tables.push(table?.ty.initial);
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    contents.memory += memory?.initial.saturating_mul(PAGE);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    contents.exports.insert(export.name, (export.kind, export.index));
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

impl<'a> Contents<'a> {
    /// Returns the signature of a function type.
    pub(super) fn signature(&self, type_index: u32) -> Option<String> {
        let function = self.types.get(type_index as usize)?.as_ref()?;
        Some(signature(function.params().iter(), function.results().iter()))
    }

    /// Returns `true` if the module exports anything with this name.
    pub(super) fn has_export(&self, name: &str) -> bool {
        self.exports.contains_key(name)
    }

    /// Returns `true` if the module exports a memory with this name.
    pub(super) fn exports_memory(&self, name: &str) -> bool {
        matches!(self.exports.get(name), Some((ExternalKind::Memory, _)))
    }

    /// Returns the signature of an exported function.
    pub(super) fn export(&self, name: &str) -> Option<String> {
        let (kind, index) = self.exports.get(name)?;
        let type_index = (*kind == ExternalKind::Func).then(|| self.functions.get(*index as usize))??;
        self.signature(*type_index)
    }

    /// Returns the names of the exported tasks, sorted.
    pub(super) fn task_names(&self) -> Vec<&'a str> {
        let task = |name: &&'a str| abi::TASK_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        let mut names: Vec<&str> = self.exports.keys().filter_map(task).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the export that has the name of a task behind one of these prefixes. The first prefix counts.
    pub(super) fn first_of(&self, prefixes: [&str; 2], task: &str) -> Option<String> {
        prefixes.iter().map(|prefix| format!("{prefix}{task}")).find(|name| self.has_export(name))
    }

    /// Returns `true` if the name of any export begins with one of these prefixes.
    pub(super) fn has_any(&self, prefixes: [&str; 2]) -> bool {
        self.exports.keys().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }
}

/// Returns a function type as text. Guests' imports and host functions have the same form.
pub(super) fn signature(
    parameters: impl Iterator<Item = impl Display>,
    results: impl Iterator<Item = impl Display>,
) -> String {
    let list = |types: Vec<String>| types.join(", ");
    let parameters = list(parameters.map(|each| each.to_string()).collect());
    format!("({parameters}) -> ({})", list(results.map(|each| each.to_string()).collect()))
}
