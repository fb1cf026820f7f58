//! Writes modules of the parts of a plugin.

use std::collections::BTreeSet;
use std::ops::Range;

use pcluster_abi as abi;
use wasm_encoder::{
    CodeSection, ConstExpr, CustomSection, DataCountSection, DataSection, Encode, EntityType, ExportKind,
    ExportSection, GlobalSection, GlobalType, ImportSection, Instruction, MemorySection, MemoryType, Module,
    RawSection, SectionId, TypeSection,
};
use wasmparser::ExternalKind;

use super::{Global, Outline, Parts, Place, State};

/// The prefix of the export of a global. Its index follows.
const GLOBAL_PREFIX: &str = "pcluster_global:";
/// The module from which the code of a plugin imports its memory and globals.
const IMAGE: &str = "pcluster_image";

/// Returns the name by which a module exports a global.
pub(in crate::engine) fn global(index: usize) -> String {
    format!("{GLOBAL_PREFIX}{index}")
}

/// Returns the name by which an image hands on a function of the host.
fn host_function(index: usize) -> String {
    format!("pcluster_host:{index}")
}

/// Returns the name by which the code of a plugin exports a function.
pub(in crate::engine) fn function(index: u32) -> String {
    index.to_string()
}

impl Parts {
    /// Returns the plugin, with all its globals that may change exported under [`global`].
    pub(in crate::engine) fn readable(&self) -> Vec<u8> {
        use SectionId::{Code, Custom, Data, DataCount, Element, Function, Global, Import, Memory, Start, Table, Type};
        let mut module = Module::new();
        self.copy(&mut module, &[Type, Import, Function, Table, Memory, Global]);
        let mut exports = ExportSection::new();
        for (name, kind, index) in &self.exports {
            if !name.starts_with(GLOBAL_PREFIX) {
                exports.export(name, export_kind(*kind), *index);
            }
        }
        for index in self.outline.changing() {
            exports.export(&global(index), ExportKind::Global, number(index));
        }
        module.section(&exports);
        self.copy(&mut module, &[Start, Element, DataCount, Code, Data, Custom]);
        module.finish()
    }

    /// Returns the plugin with this state. Its start function has run already.
    pub(in crate::engine) fn with_state(&self, state: &State<'_>) -> Vec<u8> {
        use SectionId::{Custom, Element, Export, Function, Import, Table, Type};
        let mut module = Module::new();
        self.copy(&mut module, &[Type, Import, Function, Table]);
        self.outline.write_memory(&mut module, state);
        let mut globals = GlobalSection::new();
        for (global, value) in self.outline.globals.iter().zip(&state.globals) {
            match (global.kind, value) {
                (Some(kind), Some(value)) => globals.global(type_of(global, kind), &value.expression()),
                _ => globals.raw(&self.bytes[global.range.clone()]),
            };
        }
        module.section(&globals);
        self.copy(&mut module, &[Export, Element]);
        self.write_code(&mut module, &ranges(state.memory), state.memory);
        self.copy(&mut module, &[Custom]);
        module.finish()
    }

    /// Returns the code of the plugin. It imports its memory, the functions of the host, and the globals that belong to an image.
    ///
    /// Imports and exports are named by their indices, so that plugins with the same code have the same code module, whatever the
    /// names are.
    pub(in crate::engine) fn code(&self) -> Vec<u8> {
        use SectionId::{Custom, Element, Function, Table, Type};
        let (outline, moved) = (&self.outline, self.outline.moved());
        let mut module = Module::new();
        self.copy(&mut module, &[Type]);
        self.write_imports(&mut module);
        self.copy(&mut module, &[Function, Table]);
        let mut globals = GlobalSection::new();
        for global in &outline.globals[moved..] {
            globals.raw(&self.bytes[global.range.clone()]);
        }
        if !globals.is_empty() {
            module.section(&globals);
        }
        let mut exports = ExportSection::new();
        for index in self.functions().map(|(_, index)| index).chain(self.start).collect::<BTreeSet<u32>>() {
            exports.export(&function(index), ExportKind::Func, index);
        }
        module.section(&exports);
        self.copy(&mut module, &[Element]);
        self.write_code(&mut module, &[], &[]);
        self.copy(&mut module, &[Custom]);
        module.finish()
    }

    /// Returns the plugin without what its functions do and without its data: all that [`Parts::read`] and `inspect` need to make
    /// instances of code and images that are compiled already.
    pub(in crate::engine) fn skeleton(&self) -> Vec<u8> {
        use SectionId::{Element, Export, Function, Global, Import, Memory, Start, Table, Type};
        let mut module = Module::new();
        self.copy(&mut module, &[Type, Import, Function, Table, Memory, Global, Export, Start, Element]);
        let mut code = CodeSection::new();
        for _ in 0..self.bodies {
            let mut body = wasm_encoder::Function::new([]);
            body.instruction(&Instruction::Unreachable).instruction(&Instruction::End);
            code.function(&body);
        }
        if self.bodies > 0 {
            module.section(&code);
        }
        for range in &self.descriptions {
            module.section(&CustomSection { name: abi::SECTION.into(), data: self.bytes[range.clone()].into() });
        }
        module.finish()
    }

    fn copy(&self, module: &mut Module, ids: &[SectionId]) {
        for id in ids {
            let id = u8::from(*id);
            if let Some(range) = self.sections.get(&id) {
                module.section(&RawSection { id, data: &self.bytes[range.clone()] });
            }
        }
    }

    fn write_imports(&self, module: &mut Module) {
        let outline = &self.outline;
        let mut imports = ImportSection::new();
        for (index, type_index) in self.import_types.iter().enumerate() {
            imports.import(IMAGE, &host_function(index), EntityType::Function(*type_index));
        }
        // Images of any size fit.
        imports.import(IMAGE, abi::MEMORY, EntityType::Memory(MemoryType { minimum: 0, ..outline.memory }));
        for (index, global) in outline.globals[..outline.moved()].iter().enumerate() {
            if let Some(kind) = global.kind {
                imports.import(IMAGE, &self::global(index), EntityType::Global(type_of(global, kind)));
            }
        }
        module.section(&imports);
    }

    /// Writes the code, and data segments for these ranges of a memory. The code may refer to segments of the plugin by their
    /// indices: those that are in the memory already stay, without a content.
    fn write_code(&self, module: &mut Module, ranges: &[Range<usize>], memory: &[u8]) {
        let mut data = DataSection::new();
        let keeps = self.refers_to_data || self.segments.iter().any(|segment| segment.place == Place::Passive);
        for segment in self.segments.iter().filter(|_| keeps) {
            let range = if segment.place == Place::Passive { segment.range.clone() } else { 0..0 };
            data.passive(self.bytes[range].iter().copied());
        }
        write_ranges(&mut data, ranges, memory);
        if keeps {
            module.section(&DataCountSection { count: data.len() });
        }
        self.copy(module, &[SectionId::Code]);
        if !data.is_empty() {
            module.section(&data);
        }
    }
}

impl Outline {
    /// Returns an image: a module with this state and without code. It hands the functions of the host on, so that all that the code
    /// imports comes from the image.
    pub(in crate::engine) fn image(&self, state: &State<'_>) -> Vec<u8> {
        let mut module = Module::new();
        let (mut types, mut imports, mut exports) = (TypeSection::new(), ImportSection::new(), ExportSection::new());
        for (index, import) in self.imports.iter().enumerate() {
            types.ty().function(import.parameters.iter().copied(), import.results.iter().copied());
            imports.import(&import.module, &import.name, EntityType::Function(number(index)));
            exports.export(&host_function(index), ExportKind::Func, number(index));
        }
        exports.export(abi::MEMORY, ExportKind::Memory, 0);
        let mut globals = GlobalSection::new();
        for (index, (each, value)) in self.globals[..self.moved()].iter().zip(&state.globals).enumerate() {
            if let (Some(kind), Some(value)) = (each.kind, value.or(each.first)) {
                globals.global(type_of(each, kind), &value.expression());
                exports.export(&global(index), ExportKind::Global, number(index));
            }
        }
        module.section(&types).section(&imports);
        self.write_memory(&mut module, state);
        module.section(&globals).section(&exports);
        let mut bytes = module.finish();
        append_data(&mut bytes, &ranges(state.memory), state.memory);
        bytes
    }

    /// Returns the names of an image's exports, in the order in which the code imports them.
    pub(in crate::engine) fn image_exports(&self) -> impl Iterator<Item = String> {
        let functions = (0..self.imports.len()).map(host_function);
        functions.chain([abi::MEMORY.to_owned()]).chain((0..self.moved()).map(global))
    }

    fn write_memory(&self, module: &mut Module, state: &State<'_>) {
        module.section(MemorySection::new().memory(MemoryType { minimum: state.pages, ..self.memory }));
    }
}

fn write_ranges(data: &mut DataSection, ranges: &[Range<usize>], memory: &[u8]) {
    for range in ranges {
        let mut segment = head(range);
        segment.extend_from_slice(&memory[range.clone()]);
        data.raw(&segment);
    }
}

/// Appends a data section with these ranges of a memory to a module. The bytes, which are many, are copied once.
fn append_data(module: &mut Vec<u8>, ranges: &[Range<usize>], memory: &[u8]) {
    let heads: Vec<Vec<u8>> = ranges.iter().map(head).collect();
    let mut count = Vec::new();
    ranges.len().encode(&mut count);
    let size = count.len() + heads.iter().zip(ranges).map(|(head, range)| head.len() + range.len()).sum::<usize>();
    module.reserve_exact(size + 16);
    module.push(SectionId::Data.into());
    size.encode(module);
    module.extend_from_slice(&count);
    for (head, range) in heads.iter().zip(ranges) {
        module.extend_from_slice(head);
        module.extend_from_slice(&memory[range.clone()]);
    }
}

/// Returns what stands before the bytes of an active segment of the only memory.
fn head(range: &Range<usize>) -> Vec<u8> {
    const ACTIVE: u8 = 0;
    let start = u32::try_from(range.start).unwrap_or(u32::MAX).cast_signed();
    let mut head = vec![ACTIVE];
    ConstExpr::i32_const(start).encode(&mut head);
    range.len().encode(&mut head);
    head
}

/// Returns the ranges of a memory that a module must hold, so that the rest is zero.
///
/// The engine maps a memory of one range, and writes one of several ranges at each start. So there is one, unless it would have many
/// times the bytes of its pages that are not zero.
fn ranges(memory: &[u8]) -> Vec<Range<usize>> {
    /// The bytes of a page.
    const BYTES: usize = 4 << 10;
    const ZEROS: &[u8] = &[0; BYTES];
    /// A range of this many bytes is mapped whatever is in it.
    const SMALL: usize = 16 << 20;
    /// The most times by which one range may be larger than its pages.
    const TIMES: usize = 4;
    /// The most ranges.
    const RANGES: usize = 1_000;

    let mut pages: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (page, start) in memory.chunks(BYTES).zip((0..).step_by(BYTES)) {
        if *page == ZEROS[..page.len()] {
            continue;
        }
        bytes += page.len();
        match pages.last_mut() {
            Some(last) if last.end == start => last.end += page.len(),
            _ => pages.push(start..start + page.len()),
        }
    }
    let (Some(first), Some(last)) = (pages.first(), pages.last()) else { return pages };
    let all = first.start..last.end;
    if all.len() <= SMALL.max(bytes * TIMES) { vec![all] } else { merge(pages, RANGES) }
}

/// Returns at most this many ranges, which cover the given ones and as little more as can be.
fn merge(ranges: Vec<Range<usize>>, most: usize) -> Vec<Range<usize>> {
    let mut gaps: Vec<(usize, usize)> =
        ranges.windows(2).enumerate().map(|(index, pair)| (pair[1].start - pair[0].end, index + 1)).collect();
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    let apart: BTreeSet<usize> = gaps.into_iter().take(most.saturating_sub(1)).map(|(_, index)| index).collect();
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(most.min(ranges.len()));
    for (index, range) in ranges.into_iter().enumerate() {
        match merged.last_mut() {
            Some(last) if !apart.contains(&index) => last.end = range.end,
            _ => merged.push(range),
        }
    }
    merged
}

fn type_of(global: &Global, kind: wasm_encoder::ValType) -> GlobalType {
    GlobalType { val_type: kind, mutable: global.is_mutable, shared: false }
}

/// Returns an index as a module has it. No module has more.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn export_kind(kind: ExternalKind) -> ExportKind {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
        ExternalKind::Table => ExportKind::Table,
        ExternalKind::Memory => ExportKind::Memory,
        ExternalKind::Global => ExportKind::Global,
        ExternalKind::Tag => ExportKind::Tag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4 << 10;

    /// Returns a memory of this many bytes with a one at each of these.
    fn memory(bytes: usize, ones: &[usize]) -> Vec<u8> {
        let mut memory = vec![0; bytes];
        for at in ones {
            memory[*at] = 1;
        }
        memory
    }

    /// Returns the first byte of each range, and the one behind its last.
    fn ends(ranges: &[Range<usize>]) -> Vec<(usize, usize)> {
        ranges.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn an_image_is_one_range_unless_that_is_mostly_empty() {
        let large = 64 << 20;
        for (bytes, ones, wanted) in [
            (0, &[][..], &[][..]),
            (10 * PAGE, &[], &[]),
            (10 * PAGE, &[5 * PAGE + 1], &[(5 * PAGE, 6 * PAGE)]),
            (10 * PAGE, &[PAGE, 8 * PAGE - 1], &[(PAGE, 8 * PAGE)]),
            (3 * PAGE / 2, &[3 * PAGE / 2 - 1], &[(PAGE, 3 * PAGE / 2)]),
            (large, &[0, (16 << 20) - 1], &[(0, 16 << 20)]),
            (large, &[0, PAGE, large - 1], &[(0, 2 * PAGE), (large - PAGE, large)]),
        ] {
            assert_eq!(ends(&ranges(&memory(bytes, ones))), wanted, "{ones:?}");
        }
    }

    #[test]
    fn ranges_with_the_smallest_gaps_are_merged() {
        let all = || vec![(0, 1), (5, 6), (7, 8), (20, 21), (24, 25)];
        for (most, wanted) in [
            (9, all()),
            (4, vec![(0, 1), (5, 8), (20, 21), (24, 25)]),
            (3, vec![(0, 1), (5, 8), (20, 25)]),
            (2, vec![(0, 8), (20, 25)]),
            (1, vec![(0, 25)]),
        ] {
            let ranges = all().into_iter().map(|(start, end)| start..end).collect();
            assert_eq!(ends(&merge(ranges, most)), wanted, "{most}");
        }
    }
}
