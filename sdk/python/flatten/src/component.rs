//! Reads how a component wires its core modules together.

use std::collections::HashMap;

use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentTypeRef, ExternalKind, Instance, Parser, Payload,
};

use crate::Step;
use crate::module;

/// A component, taken apart.
#[derive(Default)]
pub struct Component<'a> {
    /// The core modules.
    pub modules: Vec<&'a [u8]>,
    /// The core instances, in the order in which they are made.
    pub instances: Vec<Made>,
    functions: Vec<Definition>,
    tables: Vec<Definition>,
    memories: Vec<Definition>,
    globals: Vec<Definition>,
    /// What the component imports, as `interface/function`, and other functions without a name.
    imported: Vec<String>,
    component_instances: Vec<String>,
}

/// How a core instance is made.
pub enum Made {
    /// Of a module, with an instance for each import module.
    Module { index: u32, arguments: HashMap<String, u32> },
    /// Of definitions of other instances.
    Bag(HashMap<String, (ExternalKind, u32)>),
}

/// A core definition.
enum Definition {
    /// An export of a core instance.
    Export(u32, String),
    /// A function that the component imports.
    Import(u32),
    /// A function that drops a resource.
    Drop,
    /// Another function of the component model.
    Other(String),
}

/// Where the memory and the table of the interpreter end.
pub struct Layout {
    pub pages: u64,
    pub entries: u64,
}

/// The provider of a definition: a module's name in the merge, and the name of its export.
pub type Provider = (String, String);

/// The name of the driver in the merge. It provides what the component imports.
pub const DRIVER: &str = "driver";

impl<'a> Component<'a> {
    /// Reads a component.
    pub fn parse(bytes: &'a [u8]) -> Step<Self> {
        let mut component = Self::default();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { unchecked_range, .. } => {
                    if depth == 0 {
                        component.modules.push(bytes.get(unchecked_range).ok_or("the component is cut")?);
                    }
                    depth += 1;
                }
                Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                payload if depth == 0 => component.add(payload)?,
                _ => {}
            }
        }
        Ok(component)
    }

    fn add(&mut self, payload: Payload<'a>) -> Step {
        match payload {
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.instances.push(made(instance?));
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    match function? {
                        CanonicalFunction::Lower { func_index, .. } => {
                            self.functions.push(Definition::Import(func_index));
                        }
                        CanonicalFunction::Lift { .. } => self.imported.push(String::new()),
                        CanonicalFunction::ResourceDrop { .. } => self.functions.push(Definition::Drop),
                        other => self.functions.push(Definition::Other(format!("{other:?}"))),
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(alias?);
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    let name = import.name.name.to_owned();
                    match import.ty {
                        ComponentTypeRef::Instance(_) => self.component_instances.push(name),
                        ComponentTypeRef::Func(_) => self.imported.push(name),
                        _ => {}
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                self.component_instances.extend(section.into_iter().map(|_| String::new()));
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    match export.kind {
                        ComponentExternalKind::Instance => self.component_instances.push(String::new()),
                        ComponentExternalKind::Func => self.imported.push(String::new()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'_>) {
        match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                let definition = Definition::Export(instance_index, name.to_owned());
                match kind {
                    ExternalKind::Func | ExternalKind::FuncExact => self.functions.push(definition),
                    ExternalKind::Table => self.tables.push(definition),
                    ExternalKind::Memory => self.memories.push(definition),
                    ExternalKind::Global => self.globals.push(definition),
                    ExternalKind::Tag => {}
                }
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Func, instance_index, name } => {
                let instance = self.component_instances.get(instance_index as usize).map_or("", String::as_str);
                self.imported.push(format!("{instance}/{name}"));
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Instance, name, .. } => {
                self.component_instances.push(name.to_owned());
            }
            _ => {}
        }
    }

    /// Returns where the memory and the function table of the component end.
    pub fn layout(&self) -> Step<Layout> {
        for module in &self.modules {
            if let (Some(pages), Some(entries)) = (module::pages(module)?, module::entries(module)?) {
                return Ok(Layout { pages, entries });
            }
        }
        Err("no module of the component has both memory and a table".into())
    }

    /// Returns who provides an export of a core instance.
    pub fn provider(&self, instance: u32, name: &str) -> Step<Provider> {
        let missing = || format!("no instance {instance} with `{name}`");
        let bag = match self.instances.get(instance as usize).ok_or_else(missing)? {
            Made::Module { .. } => return Ok((instance_name(instance as usize), name.to_owned())),
            Made::Bag(bag) => bag,
        };
        let (kind, index) = bag.get(name).ok_or_else(missing)?;
        let definitions = match kind {
            ExternalKind::Func | ExternalKind::FuncExact => &self.functions,
            ExternalKind::Table => &self.tables,
            ExternalKind::Memory => &self.memories,
            ExternalKind::Global => &self.globals,
            ExternalKind::Tag => return Err(format!("`{name}` is a tag").into()),
        };
        let here = |name: String| Ok((DRIVER.to_owned(), name));
        match definitions.get(*index as usize).ok_or_else(missing)? {
            Definition::Export(instance, name) => self.provider(*instance, name),
            Definition::Import(function) => {
                here(without_version(self.imported.get(*function as usize).ok_or_else(missing)?))
            }
            Definition::Drop => here("resource-drop".to_owned()),
            Definition::Other(what) => here(what.clone()),
        }
    }
}

fn made(instance: Instance<'_>) -> Made {
    match instance {
        Instance::Instantiate { module_index, args } => Made::Module {
            index: module_index,
            arguments: args.iter().map(|argument| (argument.name.to_owned(), argument.index)).collect(),
        },
        Instance::FromExports(exports) => {
            Made::Bag(exports.iter().map(|export| (export.name.to_owned(), (export.kind, export.index))).collect())
        }
    }
}

/// Returns the name of a core instance in the merge.
pub fn instance_name(index: usize) -> String {
    format!("i{index}")
}

/// Returns `wasi:io/poll/poll` for `wasi:io/poll@0.2.0/poll`.
fn without_version(name: &str) -> String {
    match name.split_once('@') {
        Some((interface, rest)) => format!("{interface}{}", rest.find('/').map_or("", |at| &rest[at..])),
        None => name.to_owned(),
    }
}
