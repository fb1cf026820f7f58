//! Tasks that test a node. The tests of this project run them.
//!
//! `ask` has tasks that call the host, `behavior` tasks that pass items on or misbehave, `orders` tasks that obey their items,
//! `state` tasks with a state, `storm` the chain of the storm, `surroundings` tasks that use their environment, `topics`
//! tasks that read and change topics, `tour` one that makes each call of the SDK, and `words` the chain of the benchmarks.

mod ask;
mod behavior;
mod orders;
mod state;
mod storm;
mod surroundings;
mod topics;
mod tour;
mod words;
