//! What all executions share, whether a task or a program runs: the interface to their caller, their outputs, their failures and
//! the memory that they count.

pub mod budget;
pub mod call;
pub mod failure;
pub mod item;
pub mod output;
