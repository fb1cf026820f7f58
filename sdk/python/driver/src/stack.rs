//! The bound of recursion in the interpreter's C code.

use crate::python::PyThreadState_Get;

/// The offsets in CPython's state of a thread: where the C stack begins, from where on a call is a `RecursionError`, and from where
/// on it is fatal, because it comes while that error is made.
const TOP: usize = 708;
const SOFT: usize = 712;
const HARD: usize = 716;
/// What CPython leaves between the last two, by which the offsets are known to be right.
const MARGIN: usize = 8 << 10;

/// The bytes of the stack in linear memory up to a `RecursionError`. Functions that look at the bound take room there that stands for
/// their frames on a node's own stack for guests: half of what they have there at the most.
const ROOM: usize = 256 << 10;
/// The bytes for making the error.
const RESERVE: usize = 64 << 10;

/// Sets the bound, so that recursion ends before the stack of a node does. Returns `false` if CPython has it elsewhere.
pub fn bound() -> bool {
    unsafe {
        let state = PyThreadState_Get();
        let [top, soft, hard] = [TOP, SOFT, HARD].map(|offset| state.add(offset).cast::<usize>());
        if (*soft).wrapping_sub(*hard) != MARGIN || *top < *soft + ROOM + RESERVE {
            return false;
        }
        *soft = *top - ROOM;
        *hard = *soft - RESERVE;
    }
    true
}
