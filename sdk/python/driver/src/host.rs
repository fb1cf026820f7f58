//! The functions of pcluster that the driver imports, and those of them that it hands on to Python.

use alloc::vec::Vec;

use crate::cbor::{Reader, Writer};
use crate::python::{
    FAST_CALL, Method, Object, Ptr, PyCFunction_NewEx, PyList_Append, PyList_New, PyLong_AsLongLongAndOverflow, Raised,
    bytes_of, done,
};
use crate::{keep, runtime};

#[link(wasm_import_module = "pcluster_v1")]
unsafe extern "C" {
    fn emit(pointer: *const u8, length: usize);
    fn emit_to(topic: *const u8, topic_length: usize, pointer: *const u8, length: usize);
    fn fail(pointer: *const u8, length: usize);
    fn log(level: i32, pointer: *const u8, length: usize);
    fn retry_after(millis: i64);
    fn next(status: i32) -> i32;
    fn item_read(pointer: *mut u8);
    fn context_len() -> usize;
    fn context_read(pointer: *mut u8);
    /// A plugin whose tasks list no calls is built without this import and the next.
    fn call(name: *const u8, name_length: usize, pointer: *const u8, length: usize) -> i32;
    fn call_read(pointer: *mut u8);
}

/// A map without pairs, in CBOR.
const EMPTY_MAP: u8 = 0xa0;

/// Gives an output. `topic` replaces the item's; an empty one stands for none.
pub fn give(output: &[u8], topic: Option<&[u8]>) {
    match topic {
        None => unsafe { emit(output.as_ptr(), output.len()) },
        Some(topic) => unsafe { emit_to(topic.as_ptr(), topic.len(), output.as_ptr(), output.len()) },
    }
}

/// Ends an item with its status, and copies the next into a buffer. Returns `false` if there is none.
pub fn take_next(status: i32, item: &mut Vec<u8>) -> bool {
    let length = unsafe { next(status) };
    let Ok(length) = usize::try_from(length) else { return false };
    item.clear();
    item.reserve(length);
    unsafe {
        item_read(item.as_mut_ptr());
        item.set_len(length);
    }
    true
}

/// Sets the reason of a failure.
pub fn say_why(reason: &[u8]) {
    unsafe { fail(reason.as_ptr(), reason.len()) }
}

/// Returns bytes that the node copies to a pointer.
fn copied(length: usize, copy: unsafe extern "C" fn(*mut u8)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    unsafe {
        copy(bytes.as_mut_ptr());
        bytes.set_len(length);
    }
    bytes
}

/// Sets the functions as attributes of a module.
pub fn offer(module: &Object) -> Result<(), Raised> {
    let offered = [
        (c"log", &LOG),
        (c"fail", &FAIL),
        (c"retry_after", &RETRY_AFTER),
        (c"context", &CONTEXT),
        (c"call", &CALL),
        (c"fill_holes", &FILL_HOLES),
    ];
    for (name, method) in offered {
        let none = core::ptr::null_mut();
        let function = Object::own(unsafe { PyCFunction_NewEx(method, none, none) })?;
        module.set_attribute(name, &function)?;
    }
    Ok(())
}

const fn method(
    name: &'static core::ffi::CStr,
    function: unsafe extern "C" fn(Ptr, *const Ptr, isize) -> Ptr,
) -> Method {
    Method { name: name.as_ptr().cast(), function, flags: FAST_CALL, doc: core::ptr::null() }
}

static LOG: Method = method(c"log", python_log);
static FAIL: Method = method(c"fail", python_fail);
static RETRY_AFTER: Method = method(c"retry_after", python_retry_after);
static CONTEXT: Method = method(c"context", python_context);
static CALL: Method = method(c"call", python_call);
static FILL_HOLES: Method = method(c"fill_holes", python_fill_holes);

/// `log(level, text as bytes)`.
unsafe extern "C" fn python_log(_: Ptr, arguments: *const Ptr, _: isize) -> Ptr {
    answer(|| unsafe {
        let level = PyLong_AsLongLongAndOverflow(*arguments, &mut 0);
        let text = bytes_of(*arguments.add(1))?;
        log(level as i32, text.as_ptr(), text.len());
        Ok(())
    })
}

/// `fail(reason as bytes)`.
unsafe extern "C" fn python_fail(_: Ptr, arguments: *const Ptr, _: isize) -> Ptr {
    answer(|| unsafe {
        say_why(bytes_of(*arguments)?);
        Ok(())
    })
}

/// `retry_after(milliseconds)`.
unsafe extern "C" fn python_retry_after(_: Ptr, arguments: *const Ptr, _: isize) -> Ptr {
    answer(|| unsafe {
        retry_after(PyLong_AsLongLongAndOverflow(*arguments, &mut 0));
        Ok(())
    })
}

/// `context()`: the context as a dict.
unsafe extern "C" fn python_context(_: Ptr, _: *const Ptr, _: isize) -> Ptr {
    returned(|| read(&copied(unsafe { context_len() }, context_read)))
}

/// `call(name as bytes, request)`: a list of whether the node has answered, and of the answer or failure.
unsafe extern "C" fn python_call(_: Ptr, arguments: *const Ptr, _: isize) -> Ptr {
    returned(|| {
        let known = &runtime::current().ok_or(Raised)?.known;
        let mut request = Vec::new();
        Writer::new(known, &mut request).item(unsafe { *arguments.add(1) })?;
        let name = unsafe { bytes_of(*arguments) }?;
        let length = unsafe { call(name.as_ptr(), name.len(), request.as_ptr(), request.len()) };
        drop(request);
        let (is_answered, length) = if length < 0 { (&known.no, !length) } else { (&known.yes, length) };
        let answer = copied(length as usize, call_read);
        // Some calls have nothing to answer.
        let answer = if answer.is_empty() { read(&[EMPTY_MAP])? } else { read(&answer)? };
        let pair = Object::own(unsafe { PyList_New(0) })?;
        for part in [is_answered, &answer] {
            done(unsafe { PyList_Append(pair.as_ptr(), part.as_ptr()) })?;
        }
        Ok(pair)
    })
}

/// `fill_holes()`: what is allocated from here on lies together.
unsafe extern "C" fn python_fill_holes(_: Ptr, _: *const Ptr, _: isize) -> Ptr {
    answer(|| {
        keep::fill_holes();
        Ok(())
    })
}

/// Reads one value.
fn read(bytes: &[u8]) -> Result<Object, Raised> {
    let runtime = runtime::current().ok_or(Raised)?;
    Reader::new(bytes, &runtime.known, &mut runtime.keys.borrow_mut()).item()
}

/// Returns an object to Python, or null for the exception that is set.
fn returned(function: impl FnOnce() -> Result<Object, Raised>) -> Ptr {
    function().map_or(core::ptr::null_mut(), Object::into_ptr)
}

/// Returns zero to Python, or null for the exception that is set.
fn answer(function: impl FnOnce() -> Result<(), Raised>) -> Ptr {
    returned(|| function().and_then(|()| Object::integer(0)))
}
