//! The `#[task]` attribute. `pcluster_sdk` exports and documents it; these are its internals.
//!
//! `task` reads the attribute and the function, and writes the result. It uses
//!
//! * `arguments`: the arguments of the attribute,
//! * `signature`: the parameters of the function,
//! * `outcome`: the return type of the function,
//! * `description`: the line about the task in the plugin's custom section,
//! * `errors`: all mistakes, so that an author sees them at once.
//!
//! All modules work on `proc_macro2` streams. So unit tests can run them without a compiler.

mod arguments;
mod description;
mod errors;
mod outcome;
mod signature;
mod task;

/// Makes a function a task that a chain can use.
///
/// See `pcluster_sdk::task` for the forms of a function.
#[proc_macro_attribute]
pub fn task(arguments: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    task::expand(arguments.into(), &item.into()).into()
}
