//! Writes the modules of a component so that they import each other by name, which is what wasm-merge wants.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::path::Path;

use wasm_encoder::reencode::{self, Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, ImportSection, Module, TypeSection,
};
use wasmparser::{ExternalKind, FuncType, ImportSectionReader, MemoryType, Parser, TableType, TypeRef, ValType};

use crate::Step;
use crate::component::{Component, DRIVER, Made, Provider, instance_name};
use crate::module::{exports, imports, types};

/// The name of the module of functions that trap.
const TRAPS: &str = "traps";
/// The import modules of the driver that are the interpreter's: its functions, and its memory and table.
const INTERPRETER: [&str; 2] = ["library", "env"];

/// Writes all modules into a folder. Returns the arguments of wasm-merge: files and names.
pub fn apart(component: &[u8], driver: &[u8], out: &Path) -> Step<String> {
    let component = Component::parse(component)?;
    let room = Room::of(driver)?;
    let offered: HashSet<String> = exports(driver)?.into_iter().map(|(name, _)| name).collect();
    let (mut list, mut homes, mut traps) = (String::new(), HashMap::new(), BTreeMap::new());
    for (index, instance) in component.instances.iter().enumerate() {
        let Made::Module { index: module, arguments } = instance else { continue };
        let bytes = component.modules.get(*module as usize).ok_or("an instance of no module")?;
        for (name, kind) in exports(bytes)? {
            if matches!(kind, ExternalKind::Func | ExternalKind::Memory | ExternalKind::Table) {
                homes.entry(name).or_insert_with(|| instance_name(index));
            }
        }
        let mut providers = HashMap::new();
        let types = types(bytes)?;
        for (module, name, ty) in imports(bytes)? {
            let argument = arguments.get(&module).ok_or_else(|| format!("no instance for `{module}`"))?;
            let mut provider = component.provider(*argument, &name)?;
            if provider.0 == DRIVER && !offered.contains(&provider.1) {
                provider.0 = TRAPS.to_owned();
                if let TypeRef::Func(ty) = ty {
                    let ty = types.get(ty as usize).ok_or("an import of no type")?;
                    traps.insert(provider.1.clone(), ty.clone());
                }
            }
            providers.insert((module, name), provider);
        }
        let file = format!("{index}.wasm");
        std::fs::write(out.join(&file), room.rewrite(bytes, &providers)?)?;
        list += &format!("{file} {} ", instance_name(index));
    }
    let mut providers = HashMap::new();
    for (module, name, _) in imports(driver)? {
        let is_interpreter = INTERPRETER.contains(&module.as_str());
        let home = if is_interpreter { homes.get(&name) } else { Some(&module) };
        let home = home.ok_or_else(|| format!("the interpreter has no `{name}`"))?.clone();
        providers.insert((module, name.clone()), (home, name));
    }
    std::fs::write(out.join("driver.wasm"), room.rewrite(driver, &providers)?)?;
    std::fs::write(out.join("traps.wasm"), trapping(&traps)?)?;
    Ok(format!("{list}traps.wasm {TRAPS} driver.wasm {DRIVER}"))
}

/// How far memory and table reach, with the driver's part.
struct Room {
    pages: u64,
    entries: u64,
}

impl Room {
    /// Reads it from what the driver imports.
    fn of(driver: &[u8]) -> Step<Self> {
        let mut room = Self { pages: 0, entries: 0 };
        for (_, _, ty) in imports(driver)? {
            match ty {
                TypeRef::Memory(memory) => room.pages = memory.initial,
                TypeRef::Table(table) => room.entries = table.initial,
                _ => {}
            }
        }
        if room.pages == 0 || room.entries == 0 {
            return Err("the driver imports no memory or no table".into());
        }
        Ok(room)
    }

    fn rewrite(&self, bytes: &[u8], providers: &HashMap<(String, String), Provider>) -> Step<Vec<u8>> {
        let mut module = Module::new();
        Rewriter { room: self, providers }.parse_core_module(&mut module, Parser::new(0), bytes)?;
        Ok(module.finish())
    }
}

/// Gives imports other names, and memories and tables their room.
struct Rewriter<'a> {
    room: &'a Room,
    providers: &'a HashMap<(String, String), Provider>,
}

impl Reencode for Rewriter<'_> {
    type Error = Infallible;

    fn parse_import_section(
        &mut self,
        out: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        for import in section.into_imports() {
            let import = import?;
            let ty = self.entity_type(import.ty)?;
            match self.providers.get(&(import.module.to_owned(), import.name.to_owned())) {
                Some((module, name)) => out.import(module, name, ty),
                None => out.import(import.module, import.name, ty),
            };
        }
        Ok(())
    }

    fn memory_type(&mut self, memory: MemoryType) -> Result<wasm_encoder::MemoryType, reencode::Error<Self::Error>> {
        let memory = MemoryType { initial: memory.initial.max(self.room.pages), ..memory };
        // Not by `self`, which would come back here.
        Ok(wasm_encoder::MemoryType {
            minimum: memory.initial,
            maximum: memory.maximum.map(|maximum| maximum.max(memory.initial)),
            memory64: memory.memory64,
            shared: memory.shared,
            page_size_log2: memory.page_size_log2,
        })
    }

    fn table_type(&mut self, table: TableType) -> Result<wasm_encoder::TableType, reencode::Error<Self::Error>> {
        let minimum = table.initial.max(self.room.entries);
        Ok(wasm_encoder::TableType {
            element_type: self.ref_type(table.element_type)?,
            minimum,
            maximum: table.maximum.map(|maximum| maximum.max(minimum)),
            table64: table.table64,
            shared: table.shared,
        })
    }
}

/// Returns a module of functions that trap.
fn trapping(functions: &BTreeMap<String, FuncType>) -> Step<Vec<u8>> {
    let (mut types, mut declared) = (TypeSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    for ((name, ty), index) in functions.iter().zip(0..) {
        types.ty().function(values(ty.params())?, values(ty.results())?);
        declared.function(index);
        exports.export(name, ExportKind::Func, index);
        let mut body = Function::new([]);
        body.instructions().unreachable().end();
        code.function(&body);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&exports).section(&code);
    Ok(module.finish())
}

fn values(types: &[ValType]) -> Step<Vec<wasm_encoder::ValType>> {
    types.iter().map(|ty| RoundtripReencoder.val_type(*ty).map_err(Into::into)).collect()
}
