//! What the driver uses of CPython's C API. The interpreter exports all of these functions.
#![allow(non_snake_case, reason = "the names are CPython's")]

use core::ffi::CStr;
use core::mem::ManuallyDrop;

/// A Python object that somebody else keeps alive.
pub type Ptr = *mut u8;

/// A Python exception is set.
#[derive(Debug, Clone, Copy)]
pub struct Raised;

#[link(wasm_import_module = "library")]
unsafe extern "C" {
    pub fn malloc(size: usize) -> *mut u8;
    pub fn realloc(pointer: *mut u8, size: usize) -> *mut u8;
    pub fn free(pointer: *mut u8);
    pub fn PyGILState_Ensure() -> i32;
    pub fn PyThreadState_Get() -> *mut u8;
    pub fn PyImport_ImportModule(name: *const u8) -> Ptr;
    pub fn PyObject_GetAttrString(object: Ptr, name: *const u8) -> Ptr;
    pub fn PyObject_SetAttrString(object: Ptr, name: *const u8, value: Ptr) -> i32;
    pub fn PyObject_CallOneArg(function: Ptr, argument: Ptr) -> Ptr;
    pub fn PyObject_CallNoArgs(function: Ptr) -> Ptr;
    pub fn PyObject_Vectorcall(function: Ptr, arguments: *const Ptr, count: usize, names: Ptr) -> Ptr;
    pub fn PyCFunction_NewEx(method: *const Method, this: Ptr, module: Ptr) -> Ptr;
    pub fn PyIter_Next(iterator: Ptr) -> Ptr;
    pub fn PyErr_Occurred() -> Ptr;
    pub fn PyErr_GetRaisedException() -> Ptr;
    pub fn PyErr_SetString(kind: Ptr, text: *const u8);
    pub fn PyErr_Clear();
    pub fn Py_DecRef(object: Ptr);
    pub fn Py_IncRef(object: Ptr);
    pub fn PyMemoryView_FromMemory(pointer: *const u8, size: isize, flags: i32) -> Ptr;
    pub fn PyDict_New() -> Ptr;
    pub fn PyDict_SetItem(dict: Ptr, key: Ptr, value: Ptr) -> i32;
    pub fn PyDict_Next(dict: Ptr, position: *mut isize, key: *mut Ptr, value: *mut Ptr) -> i32;
    pub fn PyDict_Size(dict: Ptr) -> isize;
    pub fn PyList_New(length: isize) -> Ptr;
    /// Takes the value, also if it fails.
    pub fn PyList_SetItem(list: Ptr, index: isize, value: Ptr) -> i32;
    pub fn PyList_Append(list: Ptr, value: Ptr) -> i32;
    pub fn PyList_Size(list: Ptr) -> isize;
    pub fn PyList_GetItem(list: Ptr, index: isize) -> Ptr;
    pub fn PyTuple_Size(tuple: Ptr) -> isize;
    pub fn PyTuple_GetItem(tuple: Ptr, index: isize) -> Ptr;
    pub fn PyUnicode_DecodeUTF8(text: *const u8, size: isize, errors: *const u8) -> Ptr;
    pub fn PyUnicode_AsUTF8AndSize(text: Ptr, size: *mut isize) -> *const u8;
    pub fn PyBytes_FromStringAndSize(bytes: *const u8, size: isize) -> Ptr;
    pub fn PyBytes_AsStringAndSize(bytes: Ptr, start: *mut *const u8, size: *mut isize) -> i32;
    pub fn PyLong_FromLongLong(value: i64) -> Ptr;
    pub fn PyLong_FromUnsignedLongLong(value: u64) -> Ptr;
    pub fn PyLong_AsUnsignedLongLong(object: Ptr) -> u64;
    pub fn PyLong_AsLongLongAndOverflow(object: Ptr, overflow: *mut i32) -> i64;
    pub fn PyLong_FromNativeBytes(bytes: *const u8, size: usize, flags: i32) -> Ptr;
    pub fn PyLong_AsNativeBytes(object: Ptr, bytes: *mut u8, size: isize, flags: i32) -> isize;
    pub fn PyFloat_FromDouble(value: f64) -> Ptr;
    pub fn PyFloat_AsDouble(object: Ptr) -> f64;
}

/// A function that Python code calls. CPython's `PyMethodDef`.
#[repr(C)]
pub struct Method {
    pub name: *const u8,
    pub function: unsafe extern "C" fn(this: Ptr, arguments: *const Ptr, count: isize) -> Ptr,
    pub flags: i32,
    pub doc: *const u8,
}

// SAFETY: it is never changed, and there is one thread.
unsafe impl Sync for Method {}

/// The calling convention of [`Method::function`]: `METH_FASTCALL`.
pub const FAST_CALL: i32 = 0x80;

/// An object with a reference of its own.
pub struct Object(Ptr);

impl Object {
    /// Takes over a reference. A null pointer means that an exception is set.
    pub fn own(pointer: Ptr) -> Result<Self, Raised> {
        if pointer.is_null() { Err(Raised) } else { Ok(Self(pointer)) }
    }

    /// Adds a reference to an object that is not null.
    pub fn share(pointer: Ptr) -> Self {
        unsafe { Py_IncRef(pointer) };
        Self(pointer)
    }

    /// Returns the pointer, for as long as the object is kept.
    pub fn as_ptr(&self) -> Ptr {
        self.0
    }

    /// Gives the reference up.
    pub fn into_ptr(self) -> Ptr {
        ManuallyDrop::new(self).0
    }

    /// Imports a module.
    pub fn import(name: &CStr) -> Result<Self, Raised> {
        Self::own(unsafe { PyImport_ImportModule(name.as_ptr().cast()) })
    }

    /// Returns an attribute.
    pub fn attribute(&self, name: &CStr) -> Result<Self, Raised> {
        Self::own(unsafe { PyObject_GetAttrString(self.0, name.as_ptr().cast()) })
    }

    /// Sets an attribute.
    pub fn set_attribute(&self, name: &CStr, value: &Self) -> Result<(), Raised> {
        done(unsafe { PyObject_SetAttrString(self.0, name.as_ptr().cast(), value.0) })
    }

    /// Calls the object.
    pub fn call(&self, arguments: &[Ptr]) -> Result<Self, Raised> {
        Self::own(unsafe { PyObject_Vectorcall(self.0, arguments.as_ptr(), arguments.len(), core::ptr::null_mut()) })
    }

    /// Creates an integer.
    pub fn integer(value: i64) -> Result<Self, Raised> {
        Self::own(unsafe { PyLong_FromLongLong(value) })
    }

    /// Creates a byte string.
    pub fn bytes(bytes: &[u8]) -> Result<Self, Raised> {
        Self::own(unsafe { PyBytes_FromStringAndSize(bytes.as_ptr(), bytes.len() as isize) })
    }

    /// Creates a text. Bytes that are not UTF-8 raise a `UnicodeDecodeError`.
    pub fn text(bytes: &[u8]) -> Result<Self, Raised> {
        Self::own(unsafe { PyUnicode_DecodeUTF8(bytes.as_ptr(), bytes.len() as isize, core::ptr::null()) })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        unsafe { Py_DecRef(self.0) }
    }
}

/// Makes a result of a status of the C API.
pub fn done(status: i32) -> Result<(), Raised> {
    if status < 0 { Err(Raised) } else { Ok(()) }
}

/// Returns the type of an object.
#[inline]
pub fn kind(object: Ptr) -> Ptr {
    // An object of a 32-bit CPython begins with its count and its type.
    unsafe { object.add(4).cast::<Ptr>().read() }
}

/// Returns the bytes of a `bytes`.
///
/// # Safety
///
/// The object must be a `bytes`, and be kept for as long as the slice.
pub unsafe fn bytes_of<'a>(object: Ptr) -> Result<&'a [u8], Raised> {
    let (mut start, mut size) = (core::ptr::null(), 0);
    unsafe {
        done(PyBytes_AsStringAndSize(object, &mut start, &mut size))?;
        Ok(core::slice::from_raw_parts(start, size as usize))
    }
}

/// Returns the UTF-8 of a `str`. A lone surrogate raises a `UnicodeEncodeError`.
///
/// # Safety
///
/// The object must be a `str`, and be kept for as long as the slice.
pub unsafe fn text_of<'a>(object: Ptr) -> Result<&'a [u8], Raised> {
    let mut size = 0;
    unsafe {
        let start = PyUnicode_AsUTF8AndSize(object, &mut size);
        if start.is_null() { Err(Raised) } else { Ok(core::slice::from_raw_parts(start, size as usize)) }
    }
}
