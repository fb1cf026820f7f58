//! The `#[task]` attribute. Authors use it through `pcluster_sdk`, where it is documented; this is how it is made.
//!
//! `task` reads the attribute and the function, and writes the result. It leans on
//!
//! * `arguments`: what stands in the parentheses of the attribute,
//! * `signature`: what the function takes,
//! * `outcome`: what the function gives,
//! * `description`: the line about the task in the plugin's custom section,
//! * `errors`: every mistake found, so that an author sees all of them at once.
//!
//! All of it works on `proc_macro2` streams, so that unit tests can run it without a compiler.

mod arguments;
mod description;
mod errors;
mod outcome;
mod signature;
mod task;

/// Makes a function a task that a chain can use.
///
/// `pcluster_sdk::task` documents the forms it takes.
#[proc_macro_attribute]
pub fn task(arguments: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    task::expand(arguments.into(), &item.into()).into()
}
