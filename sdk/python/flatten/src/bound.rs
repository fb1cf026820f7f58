//! Makes recursion in C end as a `RecursionError`, and not in a trap.
//!
//! CPython bounds its recursion by a pointer into the stack that its C code has in linear memory. Most of a function's frame is
//! elsewhere: on the stack of the engine that runs it, whose end is a trap. So each function that looks at the bound takes room in
//! linear memory that stands for its frame, and for those of the functions between it and the next that looks.

use std::collections::{BTreeMap, HashMap};

use wasm_encoder::{CodeSection, Function, FunctionSection, Module, RawSection};
use wasmparser::{FuncType, FunctionBody, Operator, Parser, Payload, TypeRef};

use crate::Step;
use crate::module::types;

/// The offset of the bound in CPython's state of a thread, `_PyThreadStateImpl.c_stack_soft_limit`. The driver sets it there.
const BOUND: u64 = 712;
/// The room of a function that reads the bound, in bytes, and that of each of its locals. With less, some recursion uses up a node's stack
/// for guests before it reaches the bound that the driver sets.
const ROOM: u32 = 384;
const LOCAL_ROOM: u32 = 4;
/// The room of a function of the parser, which calls the next one.
const PARSER_ROOM: u32 = 160;
/// The alignment of the stack.
const ALIGNMENT: u32 = 16;
/// A function with at most this many instructions may look at the bound for its caller: `Py_EnterRecursiveCall` does, and what the
/// parser calls.
const SMALL: usize = 150;
/// It does if it has so many callers. If they are as many as the second, they are those of the parser.
const FEW: usize = 20;
const MANY: usize = 100;
/// Fewer functions that look at the bound are a sign that it was not found.
const FEWEST: usize = 40;

/// A function of the module, without imported ones.
struct Code<'a> {
    body: FunctionBody<'a>,
    ty: u32,
    operators: Vec<Operator<'a>>,
    locals: u32,
}

impl Code<'_> {
    /// Returns `true` if the function reads the bound.
    fn looks(&self) -> bool {
        self.operators.windows(3).any(|operators| match operators {
            [Operator::I32Const { value }, Operator::I32Add, Operator::I32Load { memarg }] => {
                u64::from(value.cast_unsigned()) + memarg.offset == BOUND
            }
            _ => false,
        })
    }

    /// Returns `true` if the function has few instructions and calls nothing by the table.
    fn is_small(&self) -> bool {
        let is_indirect = |operator: &Operator<'_>| matches!(operator, Operator::CallIndirect { .. });
        self.operators.len() <= SMALL && !self.operators.iter().any(is_indirect)
    }

    fn room(&self) -> u32 {
        ROOM + LOCAL_ROOM * self.locals
    }
}

/// Returns the functions that call this one.
fn callers(code: &[Code<'_>], imported: u32, index: usize) -> Vec<usize> {
    let calls = |operator: &Operator<'_>| match operator {
        Operator::Call { function_index } => function_index.checked_sub(imported) == u32::try_from(index).ok(),
        _ => false,
    };
    (0..code.len()).filter(|caller| code[*caller].operators.iter().any(calls)).collect()
}

/// Returns the module in which all functions that look at CPython's bound take room for their frames.
pub fn bound(module: &[u8]) -> Step<Vec<u8>> {
    let types = types(module)?;
    let (imported, code) = read(module)?;
    let mut taking = BTreeMap::new();
    for (index, function) in code.iter().enumerate().filter(|(_, function)| function.looks()) {
        let callers = if function.is_small() { callers(&code, imported, index) } else { Vec::new() };
        match callers.len() {
            ..FEW => _ = taking.insert(index, function.room()),
            FEW..MANY => taking.extend(callers.into_iter().map(|caller| (caller, code[caller].room()))),
            MANY.. => {
                // Those that look by themselves too need the more.
                callers.into_iter().for_each(|caller| _ = taking.entry(caller).or_insert(PARSER_ROOM));
            }
        }
    }
    if taking.len() < FEWEST {
        return Err(format!("only {} functions compare the stack with CPython's bound", taking.len()).into());
    }
    let pointer =
        pointer(taking.keys().map(|index| &code[*index])).ok_or("no function has a stack in linear memory")?;
    write(module, &types, imported, &code, &taking, pointer)
}

/// Returns the number of imported functions, and the others.
fn read(module: &[u8]) -> Step<(u32, Vec<Code<'_>>)> {
    let (mut imported, mut types, mut code) = (0, Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::FunctionSection(section) => types = section.into_iter().collect::<Result<_, _>>()?,
            Payload::CodeSectionEntry(body) => {
                let ty = *types.get(code.len()).ok_or("a function of no type")?;
                let operators = body.get_operators_reader()?.into_iter().collect::<Result<_, _>>()?;
                let mut locals = 0;
                for group in body.get_locals_reader()? {
                    locals += group?.0;
                }
                code.push(Code { body, ty, operators, locals });
            }
            _ => {}
        }
    }
    Ok((imported, code))
}

/// Returns the global of the stack's pointer: the one that these functions get most often.
fn pointer<'a>(code: impl Iterator<Item = &'a Code<'a>>) -> Option<u32> {
    let mut times: HashMap<u32, usize> = HashMap::new();
    for operator in code.flat_map(|code| &code.operators) {
        if let Operator::GlobalGet { global_index } = operator {
            *times.entry(*global_index).or_default() += 1;
        }
    }
    times.into_iter().max_by_key(|(_, times)| *times).map(|(global, _)| global)
}

/// Puts other functions into the places of those in `taking`, which move to the end.
fn write(
    module: &[u8],
    types: &[FuncType],
    imported: u32,
    code: &[Code<'_>],
    taking: &BTreeMap<usize, u32>,
    pointer: u32,
) -> Step<Vec<u8>> {
    let mut bodies = CodeSection::new();
    let mut moved = (imported..).skip(code.len());
    let mut outer = HashMap::new();
    for (index, room) in taking {
        let function = &code[*index];
        let ty = types.get(function.ty as usize).ok_or("a function of no type")?;
        let inner = moved.next().ok_or("too many functions")?;
        outer.insert(*index, with_room(ty, *room, inner, pointer)?);
    }
    for (index, function) in code.iter().enumerate() {
        match outer.get(&index) {
            Some(outer) => bodies.function(outer),
            None => bodies.raw(function.body.as_bytes()),
        };
    }
    let mut functions = FunctionSection::new();
    for function in code.iter().chain(taking.keys().map(|index| &code[*index])) {
        functions.function(function.ty);
    }
    for index in taking.keys() {
        bodies.raw(code[*index].body.as_bytes());
    }
    let mut out = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::FunctionSection(_) => {
                out.section(&functions);
            }
            Payload::CodeSectionStart { .. } => {
                out.section(&bodies);
            }
            // It would name other functions.
            Payload::CustomSection(section) if section.name() == "name" => {}
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    out.section(&RawSection { id, data: module.get(range).ok_or("the module is cut")? });
                }
            }
        }
    }
    Ok(out.finish())
}

/// Returns a function that takes room, calls another with its own parameters, and gives the room back.
fn with_room(ty: &FuncType, room: u32, inner: u32, pointer: u32) -> Step<Function> {
    let parameters = u32::try_from(ty.params().len())?;
    let room = room.next_multiple_of(ALIGNMENT).cast_signed();
    let mut function = Function::new([]);
    let mut code = function.instructions();
    code.global_get(pointer).i32_const(room).i32_sub().global_set(pointer);
    for parameter in 0..parameters {
        code.local_get(parameter);
    }
    code.call(inner).global_get(pointer).i32_const(room).i32_add().global_set(pointer).end();
    Ok(function)
}
