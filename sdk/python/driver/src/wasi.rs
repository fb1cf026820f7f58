//! The functions of WASI 0.2 that the interpreter's C library calls, by those of preview 1 that a node has.
//!
//! `flatten` finds them by their names, which are those of the interfaces without the version. What is missing here is a trap.

mod clock;
mod environment;
mod files;
mod streams;

pub use environment::variables;

/// Writes a value into the memory that the caller has set aside for a result.
///
/// # Safety
///
/// The result must have room for the value at the offset.
unsafe fn put<T>(result: *mut u8, offset: usize, value: T) {
    unsafe { result.add(offset).cast::<T>().write_unaligned(value) };
}

/// The handles of streams and pollables. A snapshot may hold some.
mod handle {
    pub const STDIN: i32 = 1;
    pub const STDOUT: i32 = 2;
    pub const STDERR: i32 = 3;
    /// A pollable that is always ready.
    pub const READY: i32 = 4;
    /// The network that nothing can be reached by.
    pub const NETWORK: i32 = 5;
    /// The pollable of the first timer. Those of the others follow.
    pub const TIMER: i32 = 16;
}
