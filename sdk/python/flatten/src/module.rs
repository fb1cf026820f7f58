//! Reads and changes sections of core modules.

use std::collections::HashMap;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ConstExpr, ExportKind, ExportSection, GlobalSection, Module, RawSection};
use wasmparser::{ExternalKind, FuncType, Operator, Parser, Payload, TypeRef};

use crate::Step;

/// The prefix of the exports of the ABI, and of those of the driver.
const PREFIX: &str = "pcluster_";
/// The export of the driver's pointer and length of the author's files.
const FILES: &str = "pcluster_files";
/// The custom section of an engine.
const SECTION: &str = "pcluster-engine";

/// Returns names and kinds of the exports.
pub fn exports(module: &[u8]) -> Step<Vec<(String, ExternalKind)>> {
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(section) = payload? {
            for export in section {
                let export = export?;
                exports.push((export.name.to_owned(), export.kind));
            }
        }
    }
    Ok(exports)
}

/// Returns modules, names and types of the imports.
pub fn imports(module: &[u8]) -> Step<Vec<(String, String, TypeRef)>> {
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                let import = import?;
                imports.push((import.module.to_owned(), import.name.to_owned(), import.ty));
            }
        }
    }
    Ok(imports)
}

/// Returns the types of functions.
pub fn types(module: &[u8]) -> Step<Vec<FuncType>> {
    let mut types = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::TypeSection(section) = payload? {
            for ty in section.into_iter_err_on_gc_types() {
                types.push(ty?);
            }
        }
    }
    Ok(types)
}

/// Returns the pages of the module's own memory. `None` if it has none.
pub fn pages(module: &[u8]) -> Step<Option<u64>> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::MemorySection(section) = payload? {
            return Ok(section.into_iter().next().transpose()?.map(|memory| memory.initial));
        }
    }
    Ok(None)
}

/// Returns the entries of the module's own table. `None` if it has none.
pub fn entries(module: &[u8]) -> Step<Option<u64>> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::TableSection(section) = payload? {
            return Ok(section.into_iter().next().transpose()?.map(|table| table.ty.initial));
        }
    }
    Ok(None)
}

/// Returns the module with other sections: `change` writes one in place of those for which it returns `true`.
fn with_sections(module: &[u8], mut change: impl FnMut(Payload<'_>, &mut Module) -> Step<bool>) -> Step<Module> {
    let mut out = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        let section = payload.as_section();
        if !change(payload, &mut out)?
            && let Some((id, range)) = section
        {
            out.section(&RawSection { id, data: module.get(range).ok_or("the module is cut")? });
        }
    }
    Ok(out)
}

/// Keeps only the exports of the ABI and of the driver, so that what the others kept can go. Computes globals that cannot
/// change, so that wasm-opt can put their values into the code: a table and a memory with constant offsets are filled lazily.
pub fn keep(module: &[u8]) -> Step<Vec<u8>> {
    let out = with_sections(module, |payload, out| match payload {
        Payload::ExportSection(section) => {
            let mut kept = ExportSection::new();
            for export in section {
                let export = export?;
                if export.name.starts_with(PREFIX) || export.name == "memory" {
                    kept.export(export.name, kind(export.kind)?, export.index);
                }
            }
            out.section(&kept);
            Ok(true)
        }
        Payload::GlobalSection(section) => {
            out.section(&computed(section)?);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    Ok(out.finish())
}

fn kind(kind: ExternalKind) -> Step<ExportKind> {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => Ok(ExportKind::Func),
        ExternalKind::Memory => Ok(ExportKind::Memory),
        ExternalKind::Global => Ok(ExportKind::Global),
        other => Err(format!("an export is a {other:?}").into()),
    }
}

fn computed(section: wasmparser::GlobalSectionReader<'_>) -> Step<GlobalSection> {
    let mut globals = GlobalSection::new();
    let mut known: Vec<Option<i32>> = Vec::new();
    for global in section {
        let global = global?;
        let value = compute(&global.init_expr, &known)?;
        let init = match value {
            Some(value) => ConstExpr::i32_const(value),
            None => RoundtripReencoder.const_expr(global.init_expr)?,
        };
        globals.global(RoundtripReencoder.global_type(global.ty)?, &init);
        known.push(value.filter(|_| !global.ty.mutable));
    }
    Ok(globals)
}

/// Returns the value of an initializer. `None` if it is not an `i32` that is known.
fn compute(init: &wasmparser::ConstExpr<'_>, known: &[Option<i32>]) -> Step<Option<i32>> {
    let mut stack = Vec::new();
    for operator in init.get_operators_reader() {
        match operator? {
            Operator::I32Const { value } => stack.push(Some(value)),
            Operator::GlobalGet { global_index } => stack.push(known.get(global_index as usize).copied().flatten()),
            Operator::I32Add => {
                let (right, left) = (stack.pop().flatten(), stack.pop().flatten());
                stack.push(left.zip(right).map(|(left, right)| left.wrapping_add(right)));
            }
            Operator::End => {}
            _ => stack.push(None),
        }
    }
    Ok(stack.pop().flatten())
}

/// Replaces the export of the driver's place for the author's files by a custom section that says where it is.
pub fn seal(module: &[u8]) -> Step<Vec<u8>> {
    let mut places = HashMap::new();
    let (mut tasks, mut place) = (0, None);
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::GlobalSection(section) => {
                for (global, index) in section.into_iter().zip(0_u32..) {
                    places.insert(index, compute(&global?.init_expr, &[])?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    tasks += u32::from(export.name.starts_with("pcluster_run_"));
                    if export.name == FILES {
                        place = places.get(&export.index).copied().flatten();
                    }
                }
            }
            _ => {}
        }
    }
    let place = place.ok_or("the module has no place for an author's files")?;
    let mut out = with_sections(module, |payload, out| {
        let Payload::ExportSection(section) = payload else { return Ok(false) };
        let mut kept = ExportSection::new();
        for export in section {
            let export = export?;
            if export.name != FILES {
                kept.export(export.name, kind(export.kind)?, export.index);
            }
        }
        out.section(&kept);
        Ok(true)
    })?;
    let data = format!(r#"{{"version":1,"files":{place},"tasks":{tasks}}}"#);
    out.section(&wasm_encoder::CustomSection { name: SECTION.into(), data: data.as_bytes().into() });
    Ok(out.finish())
}
