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
//! The macros of the [`log`] crate, `println!` and `eprintln!` all write to `pcluster logs`. A line of `print!` needs its line
//! feed, because nothing is flushed when a task ends. The node drops lines of a stage that logs too fast. A task that panics
//! fails with the message of the panic. A task has clocks with a resolution of a millisecond, random numbers, sleep, and the
//! environment variables that its stage grants. It has no files, no sockets, no processes and no threads. It reaches the world by
//! [calls](crate#calls) alone.
//!
//! # Items
//!
//! An item is any value that serde can read and write. [`Value`] holds any item, for tasks that accept all types.
//!
//! Items travel as CBOR but are often fed as JSON. So an integer is a valid `f64`, and types with a human-readable form, such as
//! IP addresses, use that form. An item that is not of the task's type goes to the dead letters at once, because another attempt
//! could not read it either.
//!
//! # State
//!
//! A state is a value that takes long to make and serves every item, such as a model or a table. `init` names the function that
//! makes it from the stage's `config`. The task borrows the state as its last parameter:
//!
//! ```
//! use pcluster_sdk::{Error, task};
//! use serde::Deserialize;
//! use std::collections::HashMap;
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     /// Lines such as `apple: fruit`.
//!     labels: String,
//! }
//!
//! struct Model {
//!     labels: HashMap<String, String>,
//!     unknown: u64,
//! }
//!
//! /// Made once, as the constructor of a class would.
//! fn load(config: Config) -> Result<Model, Error> {
//!     let line = |line: &str| line.split_once(": ").map(|(word, label)| (word.to_owned(), label.to_owned()));
//!     let labels = config.labels.lines().map(line).collect::<Option<_>>();
//!     let labels = labels.ok_or_else(|| Error::fatal("a label has no colon"))?;
//!     Ok(Model { labels, unknown: 0 })
//! }
//!
//! /// Called for each item.
//! #[task(init = load)]
//! fn classify(word: String, model: &mut Model) -> Option<String> {
//!     let label = model.labels.get(&word).cloned();
//!     model.unknown += u64::from(label.is_none());
//!     label
//! }
//!
//! // In a `#[test]`, with no cluster:
//! let mut model = load(Config { labels: "apple: fruit\npea: seed".to_owned() }).unwrap();
//! assert_eq!(classify("pea".to_owned(), &mut model).as_deref(), Some("seed"));
//! assert_eq!(classify("car".to_owned(), &mut model), None);
//! assert_eq!(model.unknown, 1);
//! assert!(load(Config { labels: "apple".to_owned() }).is_err_and(|error| error.is_fatal()));
//! ```
//!
//! If the function fails, the item fails too, with `cannot be initialized: ` and the error's message. The function does not know
//! the item, its id or the attempt, because it may run before there is an item. A task that reads the `config` through its state,
//! and so has no [`Context`], does not read the `config` again for each item.
//!
//! # Calls
//!
//! A task may call what its stage is granted: [`http`], [`kv`], [`objects`], [`publish`], [`secrets`]. `calls(…)` of the attribute
//! lists what it calls, so that a deploy can tell a grant that is missing:
//!
//! ```
//! use pcluster_sdk::{Error, kv, task};
//!
//! /// Drops words that have come before.
//! #[task(calls(kv))]
//! fn first(word: String) -> Result<Option<String>, Error> {
//!     let seen = kv::bucket("seen");
//!     let is_new = seen.get(&word)?.is_none();
//!     seen.put(&word, "yes")?;
//!     Ok(is_new.then_some(word))
//! }
//!
//! // In a `#[test]`, with no cluster:
//! let world = pcluster_sdk::testing::World::new().kv("seen", &[("a", "yes")]);
//! assert_eq!(world.run(|| first("a".to_owned())).unwrap(), None);
//! assert_eq!(world.run(|| first("b".to_owned())).unwrap().as_deref(), Some("b"));
//! ```
//!
//! The guest waits meanwhile, and takes no thread of the node. A call that fails is a [`CallError`], which the task may handle. With
//! `?` the item fails: for good if the error [is not transient](CallError::is_transient), and otherwise until the next attempt.
//!
//! An `init` function may read `kv` and `objects`, and call nothing else. What it reads is as of the time when the node made the
//! state.
//!
//! # Instances
//!
//! The stage's `isolation` in the manifest decides how long a state and every `static` last:
//!
//! * `"item"`, the default: every item starts in a fresh instance, and forgets all changes when the task returns.
//!   The node makes the state once and starts every instance from a copy. Random numbers and times in the state are the
//!   same in all copies.
//! * `"frame"` and `"worker"`: an instance handles many items, one after the other. The state and `static`s keep all
//!   changes until the node drops the instance, as it does after a failure, or after as many items as `reuse` says.
//!
//! The node chooses the instance for an item, and may drop an instance at any time. So a state is the place for models and
//! caches, and never for data that must not be lost.

// Compiles the examples of the page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod page {}

// `#[task]` writes `::pcluster_sdk`. With this, the crate's own tests can use the attribute.
#[cfg(test)]
extern crate self as pcluster_sdk;

mod call;
mod cbor;
mod context;
mod error;
mod host;
pub mod http;
pub mod kv;
pub mod objects;
pub mod publish;
mod report;
#[doc(hidden)]
pub mod rt;
mod schema;
pub mod secrets;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod topic;

pub use call::CallError;
pub use ciborium::Value;
pub use context::Context;
pub use error::Error;
pub use log;
pub use pcluster_abi::call::FailureKind;
#[cfg(feature = "schema")]
pub use schemars;
pub use serde;
pub use topic::WithTopic;

/// The name of a secret, as the value of a header that the node fills in.
///
/// The task never sees the value. The node sends it to the origin that the manifest grants it for, and nowhere else.
///
/// ```
/// use pcluster_sdk::{Secret, http};
///
/// let plain = http::get("https://api.example.com/").header("X-Api-Key", Secret("api_key"));
/// let bearer = http::get("https://api.example.com/").header("Authorization", Secret("api_token").bearer());
/// let basic = http::get("https://api.example.com/").header("Authorization", Secret("password").basic("ada"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a str);

/// Makes a function a task that a chain can use.
///
/// The first parameter is the item, of any type that implements [`serde::de::DeserializeOwned`]. An optional second parameter is
/// a reference to the [`Context`]. With `init`, the last parameter is a reference to the task's state. The return type decides
/// the outputs of the item:
///
/// | attribute | returns | the item |
/// |---|---|---|
/// | `#[task]` | `Out` | becomes another |
/// | `#[task]` | `Option<Out>` | becomes another, or is dropped for `None` |
/// | `#[task]` | nothing | ends here |
/// | `#[task(generator)]` | `impl Iterator<Item = Out>`, or anything that can be iterated over | becomes any number |
///
/// Each return type may also be inside a `Result` whose error converts into [`Error`]. These are [`Error`] itself and all types
/// that implement [`std::error::Error`]. The items of a generator may be such `Result`s too. If a task fails, none of its outputs
/// count.
///
/// `Result` and `Option` are recognized by name. A type alias of one of them is a plain value: its `None`, for example, is
/// written as null and does not drop the item.
///
/// `#[task(init = load)]` gives the task a [state](crate#state), which is made once per instance and not per item. The path, such
/// as `load` or `Model::load`, names a function that takes the stage's `config` by value, as any type that implements
/// [`serde::de::DeserializeOwned`]. The function returns the state, or a `Result` of it whose error converts into [`Error`]. The
/// task takes `&State`, or `&mut State` if it changes it, as its last parameter. A missing `config` counts as an empty `config`,
/// as in a [`Context`].
///
/// `#[task(calls(http, kv))]` lists what the task [calls](crate#calls): `http`, `kv`, `objects`, `publish` and `secrets`. Any other
/// call is denied. What its `init` function calls is listed here too.
///
/// With the feature `schema`, a plugin tells JSON Schemas of the types that implement `schemars::JsonSchema`, so that a deploy can tell
/// stages that do not fit. `#[task(schema = false)]` tells none of this task.
///
/// The task has the name of the function, or the one in `#[task(name = "other")]`. A name may have the characters `A-Z`, `a-z`,
/// `0-9`, `_` and `-`. `pcluster inspect` shows the doc comment.
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
/// A task with a state and a context:
///
/// ```
/// use pcluster_sdk::{Context, task};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Config {
///     banned: Vec<String>,
/// }
///
/// struct Filter {
///     banned: Vec<String>,
/// }
///
/// impl Filter {
///     fn load(config: Config) -> Self {
///         Self { banned: config.banned.iter().map(|word| word.to_lowercase()).collect() }
///     }
/// }
///
/// #[task(init = Filter::load)]
/// fn keep_polite(text: String, cx: &Context, filter: &Filter) -> Option<String> {
///     let banned = text.split(' ').any(|word| filter.banned.contains(&word.to_lowercase()));
///     if banned {
///         pcluster_sdk::log::info!("{} is not polite", cx.id());
///     }
///     (!banned).then_some(text)
/// }
///
/// let filter = Filter::load(Config { banned: vec!["Darn".to_owned()] });
/// assert_eq!(keep_polite("darn it".to_owned(), &Context::default(), &filter), None);
/// ```
///
/// A task must take its item by value:
///
/// ```compile_fail
/// #[pcluster_sdk::task]
/// fn shout(text: &str) -> String {
///     text.to_uppercase()
/// }
/// ```
///
/// A task must borrow its state, because the next item needs it too:
///
/// ```compile_fail
/// fn load(prefix: String) -> String {
///     prefix
/// }
///
/// #[pcluster_sdk::task(init = load)]
/// fn label(text: String, prefix: String) -> String {
///     prefix + &text
/// }
/// ```
///
/// What a task calls must be something that a node offers:
///
/// ```compile_fail
/// #[pcluster_sdk::task(calls(htttp))]
/// fn fetch(url: String) -> String {
///     url
/// }
/// ```
///
/// The function must return the state that the task takes:
///
/// ```compile_fail,E0277
/// fn load(prefix: String) -> usize {
///     prefix.len()
/// }
///
/// #[pcluster_sdk::task(init = load)]
/// fn label(text: String, prefix: &String) -> String {
///     format!("{prefix}{text}")
/// }
/// ```
pub use pcluster_macros::task;
