//! Write pcluster tasks as plain Rust functions.
//!
//! A task takes one item and gives none, one, or many. Put [`#[task]`](macro@task) on a function of a library whose
//! `Cargo.toml` has `crate-type = ["cdylib", "rlib"]`, build it with `cargo build --release --target wasm32-wasip1`, and name
//! the `.wasm` file in a chain's manifest.
//!
//! ```
//! use pcluster_sdk::{Context, Error, task};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Order {
//!     customer: String,
//!     euros: f64,
//! }
//!
//! /// What the stage's `config` says.
//! #[derive(Deserialize)]
//! struct Config {
//!     discount: f64,
//! }
//!
//! /// One order in, one order out.
//! #[task]
//! fn reduce(mut order: Order, cx: &Context<Config>) -> Result<Order, Error> {
//!     if order.euros < 0.0 {
//!         return Err(Error::fatal("an order cannot cost less than nothing"));
//!     }
//!     order.euros *= 1.0 - cx.config().discount;
//!     Ok(order)
//! }
//!
//! /// One order in, and the same or nothing out.
//! #[task]
//! fn keep_large(order: Order) -> Option<Order> {
//!     (order.euros > 100.0).then_some(order)
//! }
//!
//! /// One number in, any number of numbers out, each passed on as soon as it is made.
//! #[task(generator)]
//! fn count_to(last: u64) -> impl Iterator<Item = u64> {
//!     1..=last
//! }
//! ```
//!
//! A task stays a plain function, so its tests are plain tests, run with `cargo test` and no cluster:
//!
//! ```
//! # use pcluster_sdk::{Context, Error, task};
//! #[derive(serde::Deserialize)]
//! struct Config { discount: f64 }
//!
//! #[task]
//! fn reduce(euros: f64, cx: &Context<Config>) -> f64 {
//!     euros * (1.0 - cx.config().discount)
//! }
//!
//! let context = Context::for_test(Config { discount: 0.25 });
//! assert_eq!(reduce(100.0, &context), 75.0);
//! ```
//!
//! The macros of the [`log`] crate, `println!` and `eprintln!` all arrive in `pcluster logs`; what `print!` begins needs its
//! line feed, as nothing is flushed when a task ends. What a stage says too fast is dropped. A task that panics fails with the
//! panic's message. Of the machine it finds clocks that show whole milliseconds, randomness, sleep, and the environment
//! variables that its stage grants; there are no files, no network, no programs and no threads.
//!
//! # Items
//!
//! An item is anything that serde can read and write. [`Value`] holds any item, for tasks that do not care.
//!
//! Items travel as CBOR but are often fed as JSON, and serde's types are read and written accordingly: a number without
//! a point is a good `f64`, and types with a form for people, such as IP addresses, use that form. An item that is not of
//! the task's type goes to the dead letters at once, as another attempt could not read it either.
//!
//! # Instances
//!
//! By default a fresh instance of the plugin handles each item, so nothing stays in a `static` from one item to the next.

// `#[task]` writes `::pcluster_sdk`; with this the crate's own tests can use it.
#[cfg(test)]
extern crate self as pcluster_sdk;

mod cbor;
mod context;
mod error;
mod host;
mod report;
#[doc(hidden)]
pub mod rt;

pub use ciborium::Value;
pub use context::Context;
pub use error::Error;
pub use log;
pub use serde;

/// Makes a function a task that a chain can use.
///
/// The first parameter is the item, of any type that implements [`serde::de::DeserializeOwned`]. A second one, if wanted,
/// is a reference to the [`Context`]. The return type says what becomes of the item:
///
/// | attribute | returns | the item |
/// |---|---|---|
/// | `#[task]` | `Out` | becomes another |
/// | `#[task]` | `Option<Out>` | becomes another, or is dropped for `None` |
/// | `#[task]` | nothing | ends here |
/// | `#[task(generator)]` | `impl Iterator<Item = Out>`, or anything that can be iterated over | becomes any number |
///
/// Each of these also works inside a `Result` whose error converts into [`Error`], which covers [`Error`] itself and all
/// types that implement [`std::error::Error`]. The items of a generator may be such `Result`s too. Whatever fails, the
/// outputs given before do not count.
///
/// `Result` and `Option` are recognised by name. Behind a type alias they are values like any other: `None`, for example,
/// is then written as null and not dropped.
///
/// The function's name names the task, unless `#[task(name = "other")]` does; both may have the characters `A-Z`, `a-z`,
/// `0-9`, `_` and `-`. The doc comment is shown by `pcluster inspect`.
///
/// # Examples
///
/// ```
/// use pcluster_sdk::{Context, Error, task};
///
/// #[task]
/// fn parse(text: String) -> Result<i64, std::num::ParseIntError> {
///     text.trim().parse()
/// }
///
/// #[task(generator, name = "count-down")]
/// fn count_down(from: u64, cx: &Context) -> Result<impl Iterator<Item = u64>, Error> {
///     if from > 1_000_000 {
///         return Err(Error::fatal(format!("{} is too far to count", cx.id())));
///     }
///     Ok((0..=from).rev())
/// }
///
/// assert_eq!(parse(" 42".to_owned()), Ok(42));
/// assert_eq!(count_down(2, &Context::default()).unwrap().collect::<Vec<_>>(), [2, 1, 0]);
/// ```
///
/// An item must be owned, as it comes from outside:
///
/// ```compile_fail
/// #[pcluster_sdk::task]
/// fn shout(text: &str) -> String {
///     text.to_uppercase()
/// }
/// ```
pub use pcluster_macros::task;
