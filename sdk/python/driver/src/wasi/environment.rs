//! Environment variables, arguments and the end of the process.

use super::put;
use crate::python::malloc;

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> i32;
    fn environ_get(pointers: *mut *const u8, text: *mut u8) -> i32;
    fn proc_exit(code: i32) -> !;
}

/// Returns the variables of the stage, each as `NAME=value`. They are never freed.
pub fn variables() -> impl ExactSizeIterator<Item = &'static [u8]> {
    let (mut count, mut size) = (0, 0);
    let pointers = unsafe {
        environ_sizes_get(&mut count, &mut size);
        let pointers = malloc((4 * count).max(1)).cast::<*const u8>();
        environ_get(pointers, malloc(size.max(1)));
        core::slice::from_raw_parts(pointers.cast_const(), count)
    };
    pointers.iter().map(|start| unsafe { core::ffi::CStr::from_ptr(start.cast()) }.to_bytes())
}

#[unsafe(export_name = "wasi:cli/environment/get-environment")]
unsafe extern "C" fn environment(result: *mut u8) {
    let variables = variables();
    let count = variables.len();
    unsafe {
        // Pairs of texts, each an address and a length. The caller frees them.
        let pairs = malloc((16 * count).max(1)).cast::<[[usize; 2]; 2]>();
        for (index, variable) in variables.enumerate() {
            let split = variable.iter().position(|byte| *byte == b'=').unwrap_or(variable.len());
            let (name, value) = variable.split_at(split);
            pairs.add(index).write([copy(name), copy(value.get(1..).unwrap_or_default())]);
        }
        put(result, 0, pairs);
        put(result, 4, count);
    }
}

unsafe fn copy(text: &[u8]) -> [usize; 2] {
    unsafe {
        let place = malloc(text.len().max(1));
        place.copy_from_nonoverlapping(text.as_ptr(), text.len());
        [place as usize, text.len()]
    }
}

#[unsafe(export_name = "wasi:cli/environment/get-arguments")]
unsafe extern "C" fn arguments(result: *mut u8) {
    unsafe {
        put(result, 0, core::ptr::dangling::<u32>());
        put(result, 4, 0_usize);
    }
}

#[unsafe(export_name = "wasi:cli/exit/exit")]
unsafe extern "C" fn exit(is_error: i32) {
    unsafe { proc_exit(is_error) }
}
