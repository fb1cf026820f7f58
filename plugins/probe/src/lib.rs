//! Tasks that try out what a node does with them: this project's own tests are made of these.
//!
//! `behavior` has the tasks that pass items on or misbehave, `orders` those whose items say what becomes of them,
//! `state` those that remember, `storm` those of the chain that everything happens to, `surroundings` those that look at or talk
//! to the world around them, `words` those of the chain that the benchmarks run.

mod behavior;
mod orders;
mod state;
mod storm;
mod surroundings;
mod words;
