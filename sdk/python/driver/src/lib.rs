//! The driver: what a node calls of a plugin in Python. It becomes one module with the interpreter.
//!
//! It exports the ABI, reads and writes items by CPython's C API, and stands in for the functions of an operating system that
//! the interpreter imports.
#![no_std]

extern crate alloc;

mod cbor;
mod host;
mod keep;
mod python;
mod runtime;
mod stack;
mod wasi;

use core::alloc::{GlobalAlloc, Layout};

/// The interpreter's heap.
struct Heap;

// SAFETY: the functions of the C library keep the rules. All alignments here are at most 8, which `malloc` keeps.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { python::malloc(layout.size()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        unsafe { python::free(pointer) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, _: Layout, size: usize) -> *mut u8 {
        unsafe { python::realloc(pointer, size) }
    }
}

#[global_allocator]
static HEAP: Heap = Heap;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// Returns room for an item. The task frees it.
#[unsafe(no_mangle)]
extern "C" fn pcluster_alloc(length: usize) -> *mut u8 {
    unsafe { python::malloc(length.max(1)) }
}

/// Entries of numbered tasks. `pcluster.build` exports as many as there are tasks, under their names.
macro_rules! entries {
    ($($number:literal)*) => {$(
        const _: () = {
            #[unsafe(export_name = concat!("pcluster_run_", $number))]
            extern "C" fn run(item: *mut u8, length: usize) -> i32 {
                runtime::run($number, item, length)
            }
            #[unsafe(export_name = concat!("pcluster_each_", $number))]
            extern "C" fn each() -> i32 {
                runtime::run_each($number)
            }
            #[unsafe(export_name = concat!("pcluster_load_", $number))]
            extern "C" fn load() -> i32 {
                runtime::initialize($number)
            }
        };
    )*};
}

entries!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
