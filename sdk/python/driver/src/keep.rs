//! Makes the memory fit to start from: what is there when the snapshot is made stays as it is for as long as it can.
//!
//! A node copies each page that an item writes to, and resets it afterwards. Both measures keep the pages few.

use crate::python::{Ptr, PyList_GetItem, PyList_Size, free, malloc};

/// The count from which CPython takes an object for one that is never freed, and no longer counts it.
const IMMORTAL: u32 = 5 << 28;
/// The least such count.
const IMMORTAL_MIN: u32 = 1 << 30;

/// Makes all objects of a list immortal, so that their use does not write to their pages.
pub fn immortal(objects: Ptr) {
    unsafe {
        for index in 0..PyList_Size(objects) {
            let count = PyList_GetItem(objects, index).cast::<u32>();
            if *count < IMMORTAL_MIN {
                *count = IMMORTAL;
            }
        }
    }
}

/// Takes all free pieces of the heap but for one at its end, so that all that an item allocates lies together.
pub fn fill_holes() {
    /// What the piece at the end has at least.
    const ROOM: usize = 512 << 10;
    /// From large to small, so that a large hole is not taken in small pieces, each with a header of its own.
    const SIZES: [usize; 10] = [64 << 10, 8 << 10, 1 << 10, 512, 256, 128, 64, 32, 16, 8];
    let end = core::arch::wasm32::memory_size(0) << 16;
    let top = loop {
        let piece = take(ROOM);
        // Null if no memory is left. Then there is no end to leave free, and no hole as large as this.
        if piece.is_null() || piece as usize + ROOM > end {
            break piece;
        }
    };
    if top.is_null() {
        return;
    }
    for size in SIZES {
        while take_below(size, top) {}
    }
    unsafe { free(top) };
}

/// Takes a hole below `top`. Returns `false` if none is left.
fn take_below(size: usize, top: *mut u8) -> bool {
    let piece = unsafe { malloc(size) };
    if piece.is_null() {
        return false;
    }
    if piece > top {
        unsafe { free(piece) };
        return false;
    }
    clear(piece, size);
    true
}

fn take(size: usize) -> *mut u8 {
    let piece = unsafe { malloc(size) };
    if !piece.is_null() {
        clear(piece, size);
    }
    piece
}

/// Zeros take no place in the snapshot.
fn clear(piece: *mut u8, size: usize) {
    unsafe { piece.write_bytes(0, size) };
}
