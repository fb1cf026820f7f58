//! What the instances of a plugin start from.
//!
//! Usually that is one module. A plugin that makes a state and has much code, as that of an interpreter, is two: its code, which is
//! compiled once for all plugins that have the same, and an image of memory and globals, which takes no time to compile. An instance
//! of such a plugin is an instance of the image, and one of the code that imports it.

use std::collections::HashMap;
use std::sync::Arc;

use pcluster_abi as abi;
use wasmtime::{Extern, ExternType, InstancePre, Memory, Module, ModuleExport, Mutability, Store, Val};

use super::host::Host;
use super::parts::write::{function, global};
use super::parts::{Parts, Value};
use super::renew::Originals;
use crate::name::Digest;

/// What the instances of a plugin start from.
pub(super) enum Template {
    /// One module.
    Whole(InstancePre<Host>),
    /// An image and code.
    Split(Split),
}

/// An image, and the code that imports it.
pub(super) struct Split {
    image: InstancePre<Host>,
    /// The exports of the image, in the order in which the code imports them.
    imports: Box<[ModuleExport]>,
    memory: ModuleExport,
    /// The globals that may change.
    changing: Box<[ModuleExport]>,
    code: Code,
    /// What its instances start with.
    pub(super) originals: Originals,
}

/// Compiled code, with what its plugin calls the functions in it.
#[derive(Clone)]
pub(super) struct Code {
    /// The digest of the module.
    pub(super) digest: Digest,
    pub(super) module: Arc<Module>,
    /// The indices of the functions that the plugin exports.
    pub(super) names: Arc<HashMap<String, u32>>,
    /// The start function. The code does not run it by itself, as an image may come from an instance that has.
    pub(super) start: Option<u32>,
}

/// An instance that has been made from a template.
#[derive(Clone, Copy)]
pub(super) struct Made {
    /// Has the functions.
    pub(super) code: wasmtime::Instance,
    /// Has the memory and the globals that may change.
    pub(super) image: wasmtime::Instance,
}

impl Parts {
    /// Returns the compiled code of the plugin, whose module has this digest.
    pub(super) fn code_of(&self, digest: Digest, module: Arc<Module>) -> Code {
        let names = self.functions().map(|(name, index)| (name.to_owned(), index)).collect();
        Code { digest, module, names: Arc::new(names), start: self.start() }
    }
}

impl Split {
    /// Returns a template of this image, whose exports have these names in the order of the code's imports.
    pub(super) fn new(
        image: InstancePre<Host>,
        names: impl Iterator<Item = String>,
        code: Code,
    ) -> wasmtime::Result<Self> {
        let export = |name: &str| image.module().get_export_index(name).ok_or_else(|| missing(name));
        let imports = names.map(|name| export(&name)).collect::<wasmtime::Result<_>>()?;
        let changing = image.module().exports().filter(|export| may_change(&export.ty()));
        let changing = changing.map(|global| export(global.name())).collect::<wasmtime::Result<_>>()?;
        Ok(Self { imports, memory: export(abi::MEMORY)?, changing, image, code, originals: Originals::default() })
    }

    /// Returns the code.
    pub(super) fn code(&self) -> &Code {
        &self.code
    }

    /// Returns an instance of the image alone, and its memory. `None` if the machine does not allow it.
    pub(super) async fn untouched(&self, store: &mut Store<Host>) -> Option<(wasmtime::Instance, Memory)> {
        let image = self.image.instantiate_async(&mut *store).await.ok()?;
        let memory = image.get_module_export(&mut *store, &self.memory)?.into_memory()?;
        Some((image, memory))
    }

    /// Returns the globals of the image that may change.
    pub(super) fn changing(&self) -> &[ModuleExport] {
        &self.changing
    }

    async fn instantiate(&self, store: &mut Store<Host>) -> wasmtime::Result<Made> {
        let image = self.image.instantiate_async(&mut *store).await?;
        let mut imports = Vec::with_capacity(self.imports.len());
        for export in &self.imports {
            imports.push(image.get_module_export(&mut *store, export).ok_or_else(|| missing("an import"))?);
        }
        let code = wasmtime::Instance::new_async(&mut *store, &self.code.module, &imports).await?;
        Ok(Made { code, image })
    }
}

impl Template {
    /// Returns the memory of an instance.
    pub(super) fn memory(&self) -> Option<ModuleExport> {
        match self {
            Self::Whole(whole) => whole.module().get_export_index(abi::MEMORY),
            Self::Split(split) => Some(split.memory),
        }
    }

    /// Returns the function that the plugin exports under this name.
    pub(super) fn export(&self, name: &str) -> Option<ModuleExport> {
        match self {
            Self::Whole(whole) => whole.module().get_export_index(name),
            Self::Split(Split { code, .. }) => code.module.get_export_index(&function(*code.names.get(name)?)),
        }
    }

    /// Returns the start function. `None` if there is none, or if instances run it by themselves.
    pub(super) fn start(&self) -> Option<ModuleExport> {
        match self {
            Self::Whole(_) => None,
            Self::Split(Split { code, .. }) => code.module.get_export_index(&function(code.start?)),
        }
    }

    /// Returns the image and the code. `None` if both are one module.
    pub(super) fn split(&self) -> Option<&Split> {
        match self {
            Self::Whole(_) => None,
            Self::Split(split) => Some(split),
        }
    }

    /// Makes an instance.
    pub(super) async fn instantiate(&self, store: &mut Store<Host>) -> wasmtime::Result<Made> {
        match self {
            Self::Whole(whole) => {
                let code = whole.instantiate_async(store).await?;
                Ok(Made { code, image: code })
            }
            Self::Split(split) => split.instantiate(store).await,
        }
    }
}

impl Made {
    /// Returns the memory, which the template names so.
    pub(super) fn memory(&self, store: &mut Store<Host>, memory: &ModuleExport) -> Option<Memory> {
        self.image.get_module_export(store, memory).and_then(Extern::into_memory)
    }

    /// Returns the number of a global that may change. `None` if the plugin is not fit for snapshots.
    pub(super) fn global(&self, store: &mut Store<Host>, index: usize) -> Option<Value> {
        let found = self.image.get_global(&mut *store, &global(index))?;
        Some(match found.get(store) {
            Val::I32(value) => Value::I32(value),
            Val::I64(value) => Value::I64(value),
            Val::F32(bits) => Value::F32(bits),
            Val::F64(bits) => Value::F64(bits),
            Val::V128(value) => Value::V128(value.as_u128()),
            _ => return None,
        })
    }
}

/// Returns `true` for a global that may change.
fn may_change(kind: &ExternType) -> bool {
    kind.global().is_some_and(|global| global.mutability() == Mutability::Var)
}

fn missing(name: &str) -> wasmtime::Error {
    wasmtime::Error::msg(format!("an image without `{name}`"))
}
