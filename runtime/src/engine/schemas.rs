//! The schemas of tasks whose language makes them as it runs: each is told by an export of its plugin.
//!
//! Such an export runs in an engine of its own, in which it reaches nothing: no clock, no chance, no call. Its fuel, its memory and
//! the length of what it says are bounded, so that it ends the same on every machine. [`kept`] writes what was told into the
//! plugin's section. So nobody runs it again, least of all a node.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use pcluster_abi as abi;
use serde_json::{Map, Value};
use wasm_encoder::{CustomSection, Module as Written, RawSection};
use wasmparser::{Parser, Payload};
use wasmtime::{Caller, Config, Extern, Instance, Linker, Module, Store, StoreLimits, StoreLimitsBuilder};

use super::inspect::{self, InspectError, Inspection, TaskSchemas};
use super::{GUEST_STACK, TABLE_ELEMENTS};

/// The fuel of all exports of a plugin. An instruction takes one; a schema of many types takes a few millions.
const FUEL: u64 = 1_000_000_000;
/// The most memory, in bytes.
const MEMORY_MAX: usize = 256 << 20;
/// The most bytes that an export tells.
const TEXT_MAX: usize = 1 << 20;
/// The most bytes of the reason of a failure.
const REASON_MAX: usize = 4 << 10;

/// Reads a plugin, and asks it for the schemas that its section lacks.
///
/// # Errors
///
/// If it is no plugin, or it does not tell what it has an export for.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    let mut inspection = inspect::inspect(bytes)?;
    let due: Vec<(usize, String)> =
        inspection.tasks.iter().enumerate().filter_map(|(at, task)| Some((at, task.teller.clone()?))).collect();
    if due.is_empty() {
        return Ok(inspection);
    }
    let (mut store, instance) = start(bytes).map_err(|error| unable(&inspection.tasks[due[0].0].name, &error))?;
    for (at, export) in due {
        let task = &mut inspection.tasks[at];
        let told = ask(&mut store, &instance, &export);
        task.schema = told.map_err(|error| {
            let said = store.data_mut().failed.take();
            said.map_or_else(|| unable(&task.name, &error), |said| unable(&task.name, &wasmtime::Error::msg(said)))
        })?;
    }
    Ok(inspection)
}

/// Returns a plugin with all schemas in its section, and its contents.
///
/// # Errors
///
/// As for [`inspect`].
pub fn kept(bytes: Vec<u8>) -> Result<(Vec<u8>, Inspection), InspectError> {
    let told = inspect(&bytes)?;
    if told.tasks.iter().all(|task| task.teller.is_none() || task.schema.is_empty()) {
        return Ok((bytes, told));
    }
    let written = write(&bytes, &told).map_err(|error| InspectError::Invalid(error.to_string()))?;
    let inspection = inspect::inspect(&written)?;
    Ok((written, inspection))
}

fn unable(task: &str, error: &wasmtime::Error) -> InspectError {
    let reason = match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::OutOfFuel) => "it takes too long".to_owned(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    InspectError::Schemas { task: task.to_owned(), reason }
}

/// What an instance may use, and what it has said.
struct Guest {
    limits: StoreLimits,
    failed: Option<String>,
}

/// Starts an instance of a plugin that reaches nothing.
fn start(bytes: &[u8]) -> wasmtime::Result<(Store<Guest>, Instance)> {
    let mut config = Config::new();
    config.consume_fuel(true).max_wasm_stack(GUEST_STACK).memory_reservation(0).wasm_memory64(false);
    let engine = wasmtime::Engine::new(&config)?;
    let module = Module::from_binary(&engine, bytes)?;
    let mut linker: Linker<Guest> = Linker::new(&engine);
    link(&mut linker)?;
    linker.define_unknown_imports_as_traps(&module)?;
    let limits = StoreLimitsBuilder::new().memory_size(MEMORY_MAX).table_elements(TABLE_ELEMENTS).build();
    let mut store = Store::new(&engine, Guest { limits, failed: None });
    store.limiter(|guest| &mut guest.limits);
    store.set_fuel(FUEL)?;
    let instance = linker.instantiate(&mut store, &module)?;
    if let Some(initialize) = instance.get_func(&mut store, abi::INITIALIZE) {
        initialize.typed::<(), ()>(&store)?.call(&mut store, ())?;
    }
    Ok((store, instance))
}

/// Defines what languages need to start: no environment, no chance. The reason of a failure is kept.
fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    const WASI: &str = "wasi_snapshot_preview1";
    linker.func_wrap(abi::MODULE, abi::FAIL, |mut caller: Caller<'_, Guest>, pointer: i32, length: i32| {
        let length = length.cast_unsigned().min(u32::try_from(REASON_MAX).unwrap_or(u32::MAX));
        let text = filled(&mut caller, pointer, length).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        caller.data_mut().failed = text;
    })?;
    linker.func_wrap(abi::MODULE, abi::LOG, |_: i32, _: i32, _: i32| {})?;
    linker.func_wrap(WASI, "random_get", |mut caller: Caller<'_, Guest>, pointer: i32, length: i32| -> i32 {
        filled(&mut caller, pointer, length.cast_unsigned()).map(|bytes| bytes.fill(0)).map_or(1, |()| 0)
    })?;
    linker.func_wrap(WASI, "environ_get", |_: i32, _: i32| -> i32 { 0 })?;
    linker.func_wrap(WASI, "environ_sizes_get", |mut caller: Caller<'_, Guest>, count: i32, size: i32| -> i32 {
        let none = |at: i32| filled(&mut caller, at, 4).map(|bytes| bytes.fill(0));
        i32::from([count, size].into_iter().map_while(none).count() < 2)
    })?;
    Ok(())
}

/// Returns these bytes of the guest's memory.
fn filled<'a>(caller: &'a mut Caller<'_, Guest>, pointer: i32, length: u32) -> Option<&'a mut [u8]> {
    let memory = caller.get_export(abi::MEMORY).and_then(Extern::into_memory)?;
    let start = pointer.cast_unsigned() as usize;
    memory.data_mut(caller).get_mut(start..start.checked_add(length as usize)?)
}

/// Calls an export, and reads what it tells.
fn ask(store: &mut Store<Guest>, instance: &Instance, export: &str) -> wasmtime::Result<TaskSchemas> {
    let told = instance.get_typed_func::<(), i64>(&mut *store, export)?.call(&mut *store, ())?.cast_unsigned();
    if told == 0 {
        return Ok(TaskSchemas::default());
    }
    let (start, length) = (usize::try_from(told & u64::from(u32::MAX))?, usize::try_from(told >> 32)?);
    if length > TEXT_MAX {
        wasmtime::bail!("it is longer than {}", bytesize::ByteSize(TEXT_MAX as u64).display().iec());
    }
    let memory = instance.get_memory(&mut *store, abi::MEMORY);
    let text = memory.and_then(|memory| memory.data(&*store).get(start..start.checked_add(length)?));
    let Some(text) = text else { wasmtime::bail!("it lies outside of the plugin's memory") };
    Ok(serde_json::from_slice(text)?)
}

/// Returns the plugin with another section about its tasks.
fn write(bytes: &[u8], told: &Inspection) -> Result<Vec<u8>, wasmparser::BinaryReaderError> {
    let mut module = Written::new();
    let mut lines = String::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        match &payload {
            Payload::CustomSection(section) if section.name() == abi::SECTION => {
                lines += std::str::from_utf8(section.data()).unwrap_or_default();
                continue;
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            module.section(&RawSection { id, data: &bytes[range] });
        }
    }
    let lines = described(&lines, told);
    module.section(&CustomSection { name: abi::SECTION.into(), data: Cow::Borrowed(lines.as_bytes()) });
    Ok(module.finish())
}

/// Returns the lines of the section, with the schemas that were told. A task without a line gets one.
fn described(lines: &str, told: &Inspection) -> String {
    let mut written = String::new();
    let mut due: Vec<_> = told.tasks.iter().filter(|task| task.teller.is_some() && !task.schema.is_empty()).collect();
    let read = lines.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
    for mut line in read {
        if let Some(at) = due.iter().position(|task| line.get("name").is_some_and(|name| *name == *task.name)) {
            line.insert("schema".to_owned(), due.swap_remove(at).schema.to_value());
        }
        written += &format!("{}\n", Value::Object(line));
    }
    for task in due {
        let line = serde_json::json!({ "abi": abi::VERSION, "name": task.name, "schema": task.schema.to_value() });
        written += &format!("{line}\n");
    }
    written
}
