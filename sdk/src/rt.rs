//! The functions that the code of `#[task]` calls. Not for authors, and not covered by semantic versioning.
//!
//! Code that does not depend on the types of a task stays out of the generic functions, because each task has its own copy of
//! those.
#![expect(unsafe_code, reason = "the node hands over items as a pointer and a length")]

#[cfg(feature = "schema")]
pub mod schema;
mod state;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use pcluster_abi::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::state::{IntoState, State, initialize, make, with_state};
use crate::{Context, Error, cbor, context, host, report, topic};

/// Allocates an item of `length` bytes. [`one`] frees it.
pub fn allocate(length: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(length)).cast()
}

/// The export through which the host allocates an item.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
extern "C" fn pcluster_alloc(length: usize) -> *mut u8 {
    start();
    allocate(length)
}

/// Prepares the instance once. Each export that the host may call first calls this first.
///
/// If nothing references the constructors (mostly those of C libraries), the linker wraps every export in calls of the
/// constructors and destructors. The reference here prevents that. So the host needs no call of its own for `_initialize`.
fn start() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if !STARTED.swap(true, Ordering::Relaxed) {
        #[cfg(target_arch = "wasm32")]
        {
            unsafe extern "C" {
                fn __wasm_call_ctors();
            }
            // SAFETY: the linker makes this function. It is called once, before any code of the task.
            unsafe { __wasm_call_ctors() };
        }
        report::install();
    }
}

/// Handles the item in a buffer that the host has filled. Returns the status.
///
/// # Safety
///
/// `pointer` must come from [`allocate`] with the same `length`, and all bytes must be written. The caller must not use it again.
pub unsafe fn one(pointer: *mut u8, length: usize, handle: impl FnOnce(&[u8]) -> i32) -> i32 {
    // SAFETY: `allocate` made the pointer from a box of this length, and the caller gives it up.
    let item = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(pointer, length)) };
    handle(&item)
}

/// Handles one item after the other until the host has no more.
pub fn each(handle: impl Fn(&[u8]) -> i32) -> i32 {
    start();
    let (mut buffer, mut status) = (Vec::new(), Status::Done as i32);
    while let Some(length) = host::next(status, &mut buffer) {
        status = handle(&buffer[..length]);
    }
    Status::Done as i32
}

/// Runs a task on an item. Returns the status.
pub fn run<Item, Body>(item: &[u8], expected: &str, body: Body) -> i32
where
    Item: DeserializeOwned,
    Body: FnOnce(Item) -> Result<(), Error>,
{
    let item = cbor::decode(item).map_err(|error| misfit(expected, &error));
    conclude(item.and_then(body)) as i32
}

/// Runs a task with its context on an item. Returns the status.
pub fn run_with_context<Item, Config, Body>(item: &[u8], expected: &str, body: Body) -> i32
where
    Item: DeserializeOwned,
    Config: DeserializeOwned + 'static,
    Body: FnOnce(Item, &Context<Config>) -> Result<(), Error>,
{
    run(item, expected, |item| context::lend(|context| body(item, context)))
}

#[cold]
fn misfit(expected: &str, error: &str) -> Error {
    Error::fatal(format_args!("the item is not of type `{expected}`: {error}"))
}

/// Reports the result of a task to the node.
fn conclude(result: Result<(), Error>) -> Status {
    match result {
        Ok(()) => Status::Done,
        Err(error) => {
            error.tell();
            if error.is_fatal() { Status::Fatal } else { Status::Failed }
        }
    }
}

/// Calls the host with a request as it is. Returns the response, or the failure, in CBOR.
///
/// # Errors
///
/// If the call fails.
pub fn call(name: &str, request: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    host::call(name, request)
}

/// Returns the item in these bytes.
///
/// # Errors
///
/// If the bytes are no item of this type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    cbor::decode(bytes)
}

/// Returns the bytes of an item.
///
/// # Errors
///
/// If the item cannot be written.
pub fn encode(item: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    cbor::encode(item, &mut bytes)?;
    Ok(bytes)
}

/// Writes an output and emits it.
fn emit(output: &impl Serialize) -> Result<(), Error> {
    thread_local! {
        /// The buffer for outputs, kept for the next one.
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        cbor::encode(output, buffer).map_err(|error| unwritable(&error))?;
        topic::emit(buffer);
        Ok(())
    })
}

#[cold]
fn unwritable(error: &str) -> Error {
    Error::fatal(format_args!("the output cannot be written: {error}"))
}

/// Emits the output of a map task.
///
/// # Errors
///
/// If the output cannot be written.
pub fn give(output: impl Serialize) -> Result<(), Error> {
    emit(&output)
}

/// Emits the output of a filter, if there is one.
///
/// # Errors
///
/// If the output cannot be written.
pub fn give_some(output: Option<impl Serialize>) -> Result<(), Error> {
    output.map_or(Ok(()), give)
}

/// Emits each output of a generator as soon as it exists.
///
/// # Errors
///
/// If an output cannot be written. Earlier outputs do not count then.
pub fn give_all(outputs: impl IntoIterator<Item: Serialize>) -> Result<(), Error> {
    outputs.into_iter().try_for_each(|output| emit(&output))
}

/// Emits each output of a generator whose outputs can be errors.
///
/// # Errors
///
/// The first error of the generator, or if an output cannot be written. Earlier outputs do not count then.
pub fn give_results<T, E>(outputs: impl IntoIterator<Item = Result<T, E>>) -> Result<(), Error>
where
    T: Serialize,
    Error: From<E>,
{
    outputs.into_iter().try_for_each(|output| emit(&output?))
}

/// Emits nothing, for a sink.
///
/// # Errors
///
/// Never. The type is that of the other functions.
pub const fn give_none((): ()) -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Value, WithTopic};

    /// Runs `body` on `item` as a node would. Returns the status, the outputs and the error.
    fn run_on<Item: DeserializeOwned>(
        item: &impl Serialize,
        body: impl FnOnce(Item) -> Result<(), Error>,
    ) -> (Option<Status>, Vec<Value>, Option<String>) {
        let mut bytes = Vec::new();
        cbor::encode(item, &mut bytes).expect("an encodable item");
        let pointer = allocate(bytes.len());
        // SAFETY: the buffer has as many bytes as are copied into it, and `one` gets it as from the host.
        let status = unsafe {
            pointer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            one(pointer, bytes.len(), |item| run(item, "Thing", body))
        };
        let recorded = host::recorded();
        let outputs = recorded.items.iter().map(|item| cbor::decode(item).expect("an item")).collect();
        (Status::from_i32(status), outputs, recorded.failure)
    }

    #[test]
    fn an_item_becomes_another() {
        let outcome = run_on(&21, |item: u32| give(item * 2));
        assert_eq!(outcome, (Some(Status::Done), vec![42.into()], None));
    }

    #[test]
    fn none_drops_the_item() {
        let outcome = run_on(&21, |_: u32| give_some(None::<u32>));
        assert_eq!(outcome, (Some(Status::Done), vec![], None));
        let outcome = run_on(&21, |item: u32| give_some(Some(item)));
        assert_eq!(outcome.1, [21.into()]);
    }

    #[test]
    fn a_generator_gives_each_output_before_it_makes_the_next() {
        let outcome = run_on(&2, |item: usize| {
            give_all((0..item).inspect(|&made| {
                let given = host::recorded().items;
                assert_eq!(given.len(), usize::from(made > 0));
            }))
        });
        assert_eq!(outcome, (Some(Status::Done), vec![1.into()], None));
    }

    #[test]
    fn an_output_may_have_another_topic() {
        let outputs = [WithTopic::new("a", 1), WithTopic::none(2)];
        assert_eq!(run(&[0x00], "u8", |_: u8| give_all(outputs)), Status::Done as i32);
        assert_eq!(run(&[0x00], "u8", |_: u8| give(3)), Status::Done as i32);
        let recorded = host::recorded();
        assert_eq!(recorded.items, [vec![1], vec![2], vec![3]]);
        assert_eq!(recorded.topics, [(0, "a".to_owned()), (1, String::new())]);
    }

    #[test]
    fn an_error_among_the_outputs_ends_the_task() {
        let outputs = [Ok(1), Err(Error::new("no more")), Ok(3)];
        let outcome = run_on(&0, |_: u32| give_results(outputs));
        assert_eq!(outcome, (Some(Status::Failed), vec![1.into()], Some("no more".to_owned())));
    }

    #[test]
    fn an_error_says_whether_to_try_again() {
        let outcome = run_on(&0, |_: u32| Err(Error::fatal("never")));
        assert_eq!(outcome, (Some(Status::Fatal), vec![], Some("never".to_owned())));
    }

    #[test]
    fn an_item_of_another_type_is_fatal() {
        let (status, _, message) = run_on(&"text", |item: u32| give(item));
        assert_eq!(status, Some(Status::Fatal));
        let message = message.expect("a message");
        assert!(message.starts_with("the item is not of type `Thing`: "), "{message}");
    }

    #[test]
    fn items_are_handled_one_after_the_other_until_there_is_none() {
        host::set_waiting(vec![vec![0x61, b'a'], vec![0x18, 0x2a], vec![0x05]]);
        each(|item| run(item, "u8", |number: u8| give(number + 1)));
        let recorded = host::recorded();
        assert_eq!(recorded.items, [vec![0x06], vec![0x18, 0x2b]]);
        assert_eq!(recorded.statuses, [0, 0, 0, Status::Fatal as i32]);
    }

    #[test]
    fn the_context_is_read_before_the_task_runs() {
        let status = run_with_context(&[0x05], "u8", |_: u8, _: &Context| give_none(()));
        assert_eq!(status, Status::Fatal as i32, "there is no context here");
    }
}
