//! The parts of a plugin that makes a state: its code, and what its instances change.
//!
//! An instance changes its memory and its globals. It also has a table and dropped segments, which cannot be read back, so a plugin
//! that could change them is refused here. [`write`](mod@write) makes modules of the parts: the plugin with a state in it, or its
//! code alone beside an image, which holds a state and nothing else.

mod value;
pub(super) mod write;

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use pcluster_abi as abi;
use wasm_encoder::{MemoryType, SectionId, ValType};
use wasmparser::{
    BinaryReaderError, CompositeInnerType, Data, DataKind, ExternalKind, FunctionBody, GlobalSectionReader, Operator,
    Parser, Payload, RecGroup, TypeRef,
};

pub(super) use value::Value;

/// The size of a page of linear memory in bytes.
pub(super) const PAGE: u64 = 64 << 10;
/// The most memory of a snapshot, in bytes. It is copied a few times while the snapshot is made.
pub(super) const BYTES_MAX: u64 = 256 << 20;
/// The most bytes without a value in the memory that an instance starts with, beside three for each byte with one.
const SPARSE_MAX: u64 = 16 << 20;

/// A plugin taken apart.
pub(super) struct Parts {
    bytes: Bytes,
    /// Where the content of each section is. Of the custom sections only the one with the names of functions.
    sections: HashMap<u8, Range<usize>>,
    /// What an image must know of the plugin.
    pub(super) outline: Outline,
    /// The types of the functions that it imports.
    import_types: Vec<u32>,
    exports: Vec<(String, ExternalKind, u32)>,
    start: Option<u32>,
    segments: Vec<Segment>,
    /// The number of functions of its own.
    bodies: usize,
    /// Where the content of each section is that describes its tasks.
    descriptions: Vec<Range<usize>>,
    /// `true` if the code refers to data segments.
    refers_to_data: bool,
}

/// What an image of a plugin must know: what the code takes from it.
#[derive(Clone)]
pub(super) struct Outline {
    /// The functions of the host, which the image hands on.
    imports: Vec<Import>,
    memory: MemoryType,
    globals: Vec<Global>,
}

#[derive(Clone)]
struct Import {
    module: String,
    name: String,
    parameters: Vec<ValType>,
    results: Vec<ValType>,
}

#[derive(Clone)]
struct Global {
    /// The type of its number. `None` if it holds a reference.
    kind: Option<ValType>,
    is_mutable: bool,
    /// The number that it starts with. `None` unless that is a plain constant.
    first: Option<Value>,
    /// Where the plugin has it.
    range: Range<usize>,
}

/// A data segment.
struct Segment {
    place: Place,
    /// Where the plugin has its bytes.
    range: Range<usize>,
}

/// Where a data segment goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To this address of the memory.
    At(u32),
    /// To an address that is not a plain constant.
    Computed,
    /// Nowhere until the code copies it.
    Passive,
}

/// The state of an instance.
pub(super) struct State<'a> {
    /// The size of its memory in pages of 64 KiB.
    pub(super) pages: u64,
    /// Its memory. All bytes behind are zero.
    pub(super) memory: &'a [u8],
    /// The numbers of its globals. `None` for globals that never change.
    pub(super) globals: Vec<Option<Value>>,
}

impl Outline {
    /// Returns the indices of the globals that may change.
    pub(super) fn changing(&self) -> impl Iterator<Item = usize> + '_ {
        self.globals.iter().enumerate().filter(|(_, global)| global.is_mutable).map(|(index, _)| index)
    }

    /// Returns the number of globals.
    pub(super) fn globals(&self) -> usize {
        self.globals.len()
    }

    /// Returns how many globals belong to the image: all up to the last that may change. The compiler puts the others, which
    /// are constants, into the code.
    pub(super) fn moved(&self) -> usize {
        self.changing().last().map_or(0, |last| last + 1)
    }
}

impl Parts {
    /// Takes a plugin apart, which must be valid. The error says why its state cannot be read and put back.
    pub(super) fn read(bytes: &Bytes) -> Result<Self, String> {
        let mut reading = Reading::new(bytes);
        for payload in Parser::new(0).parse_all(bytes) {
            reading.add(payload.map_err(said)?)?;
        }
        reading.parts.outline.memory =
            reading.memory.ok_or_else(|| format!("it exports no memory named `{}`", abi::MEMORY))?;
        Ok(reading.parts)
    }

    /// Returns the bytes of the plugin's code.
    pub(super) fn code_bytes(&self) -> usize {
        self.sections.get(&SectionId::Code.into()).map_or(0, Range::len)
    }

    /// Returns the memory with which an instance starts, up to its last byte with a value. `None` unless all of it is known before
    /// an instance starts, and it is dense: a few bytes far apart would take much memory that no limit of a stage bounds.
    pub(super) fn first_memory(&self) -> Option<Vec<u8>> {
        let held: u64 = self.segments.iter().map(|segment| segment.range.len() as u64).sum();
        let most = (self.outline.memory.minimum * PAGE).min(BYTES_MAX).min(SPARSE_MAX + 4 * held);
        let mut memory = Vec::new();
        for segment in &self.segments {
            let start = match segment.place {
                Place::At(start) => start as usize,
                Place::Computed => return None,
                Place::Passive => continue,
            };
            let end = start.checked_add(segment.range.len()).filter(|end| *end as u64 <= most)?;
            if memory.len() < end {
                memory.resize(end, 0);
            }
            memory[start..end].copy_from_slice(&self.bytes[segment.range.clone()]);
        }
        Some(memory)
    }

    /// Returns the state with which an instance starts, with this memory.
    pub(super) fn first_state<'a>(&self, memory: &'a [u8]) -> State<'a> {
        let globals = vec![None; self.outline.globals.len()];
        State { pages: self.outline.memory.minimum, memory, globals }
    }

    /// Returns `true` if all globals that would go to an image start with plain numbers.
    pub(super) fn starts_with_numbers(&self) -> bool {
        self.outline.globals[..self.outline.moved()].iter().all(|global| global.first.is_some())
    }

    /// Returns the functions that the plugin exports, by name.
    pub(super) fn functions(&self) -> impl Iterator<Item = (&str, u32)> {
        let functions = self.exports.iter().filter(|(_, kind, _)| *kind == ExternalKind::Func);
        functions.map(|(name, _, index)| (name.as_str(), *index))
    }

    /// Returns the start function.
    pub(super) fn start(&self) -> Option<u32> {
        self.start
    }
}

/// The types of the parameters and results of a function.
type Signature = (Vec<ValType>, Vec<ValType>);

/// Parts that are not complete.
struct Reading {
    parts: Parts,
    memory: Option<MemoryType>,
    types: Vec<Option<Signature>>,
}

impl Reading {
    fn new(bytes: &Bytes) -> Self {
        let memory = MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
        let outline = Outline { imports: Vec::new(), memory, globals: Vec::new() };
        Self {
            parts: Parts {
                bytes: bytes.clone(),
                sections: HashMap::new(),
                outline,
                import_types: Vec::new(),
                exports: Vec::new(),
                start: None,
                segments: Vec::new(),
                bodies: 0,
                descriptions: Vec::new(),
                refers_to_data: false,
            },
            memory: None,
            types: Vec::new(),
        }
    }

    fn add(&mut self, payload: Payload<'_>) -> Result<(), String> {
        if let Some((id, range)) = payload.as_section() {
            let is_needed = match &payload {
                Payload::CustomSection(section) => section.name() == "name",
                _ => true,
            };
            if is_needed {
                self.parts.sections.entry(id).or_insert(range);
            }
        }
        match payload {
            Payload::TypeSection(types) => {
                for group in types {
                    self.types.extend(signatures(group.map_err(said)?));
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    self.import(&import.map_err(said)?)?;
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    self.memory = Some(memory_type(&memory.map_err(said)?));
                }
            }
            Payload::GlobalSection(globals) => self.globals(globals)?,
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export.map_err(said)?;
                    self.parts.exports.push((export.name.to_owned(), export.kind, export.index));
                }
            }
            Payload::StartSection { func, .. } => self.parts.start = Some(func),
            Payload::CodeSectionEntry(body) => {
                self.parts.bodies += 1;
                self.parts.refers_to_data |= check(&body)?;
            }
            Payload::CustomSection(section) if section.name() == abi::SECTION => {
                let start = section.data_offset();
                self.parts.descriptions.push(start..start + section.data().len());
            }
            Payload::DataSection(segments) => {
                for segment in segments {
                    self.segment(&segment.map_err(said)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn globals(&mut self, globals: GlobalSectionReader<'_>) -> Result<(), String> {
        let end = globals.range().end;
        for each in globals.into_iter_with_offsets() {
            let (start, global) = each.map_err(said)?;
            let kind = value::kind(global.ty.content_type);
            if global.ty.mutable && kind.is_none() {
                return Err("it has a global that may change and holds a reference".to_owned());
            }
            let all = &mut self.parts.outline.globals;
            if let Some(last) = all.last_mut() {
                last.range.end = start;
            }
            let first = Value::of(&global.init_expr);
            all.push(Global { kind, is_mutable: global.ty.mutable, first, range: start..end });
        }
        Ok(())
    }

    fn segment(&mut self, segment: &Data<'_>) {
        let place = match &segment.kind {
            DataKind::Passive => Place::Passive,
            DataKind::Active { offset_expr, .. } => match Value::of(offset_expr) {
                Some(Value::I32(start)) => Place::At(start.cast_unsigned()),
                _ => Place::Computed,
            },
        };
        let range = segment.range.end - segment.data.len()..segment.range.end;
        self.parts.segments.push(Segment { place, range });
    }

    fn import(&mut self, import: &wasmparser::Import<'_>) -> Result<(), String> {
        let (module, name) = (import.module.to_owned(), import.name.to_owned());
        let refused = || format!("it imports `{module}::{name}`");
        let TypeRef::Func(index) = import.ty else { return Err(refused()) };
        let (parameters, results) = self.types.get(index as usize).cloned().flatten().ok_or_else(refused)?;
        self.parts.import_types.push(index);
        self.parts.outline.imports.push(Import { module, name, parameters, results });
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn said(error: BinaryReaderError) -> String {
    error.to_string()
}

/// Returns types of numbers as the encoder knows them. `None` if there are others.
fn numbers(types: &[wasmparser::ValType]) -> Option<Vec<ValType>> {
    types.iter().map(|each| value::kind(*each)).collect()
}

fn memory_type(memory: &wasmparser::MemoryType) -> MemoryType {
    MemoryType {
        minimum: memory.initial,
        maximum: memory.maximum,
        memory64: memory.memory64,
        shared: memory.shared,
        page_size_log2: memory.page_size_log2,
    }
}

/// Returns the signatures of some types. `None` for those with other values than numbers.
fn signatures(group: RecGroup) -> impl Iterator<Item = Option<Signature>> {
    group.into_types().map(|each| match each.composite_type.inner {
        CompositeInnerType::Func(function) => numbers(function.params()).zip(numbers(function.results())),
        _ => None,
    })
}

/// Checks that a function changes nothing that cannot be read back. Returns `true` if it refers to data segments.
fn check(body: &FunctionBody<'_>) -> Result<bool, String> {
    let mut refers_to_data = false;
    let mut operators = body.get_operators_reader().map_err(said)?;
    while !operators.eof() {
        let instruction = match operators.read().map_err(said)? {
            Operator::MemoryInit { .. } => {
                refers_to_data = true;
                continue;
            }
            Operator::TableCopy { .. } => "table.copy",
            Operator::TableInit { .. } => "table.init",
            Operator::TableSet { .. } => "table.set",
            Operator::TableGrow { .. } => "table.grow",
            Operator::TableFill { .. } => "table.fill",
            Operator::ElemDrop { .. } => "elem.drop",
            Operator::DataDrop { .. } => "data.drop",
            _ => continue,
        };
        return Err(format!("its code has `{instruction}`, whose effect cannot be read back"));
    }
    Ok(refers_to_data)
}
