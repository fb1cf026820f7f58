//! The state of a task, made once per instance.

use std::cell::RefCell;
use std::thread::LocalKey;

use serde::de::DeserializeOwned;

use super::{conclude, start};
use crate::{Error, context};

/// The state of a task.
pub struct State<S> {
    made: RefCell<Option<S>>,
    make: fn() -> Result<S, Error>,
}

impl<S> State<S> {
    /// Creates a cell without a state.
    pub const fn new(make: fn() -> Result<S, Error>) -> Self {
        Self { made: RefCell::new(None), make }
    }

    /// Lends the state to `body`. The first call makes the state, and keeps it if that succeeds.
    fn lend(&self, body: impl FnOnce(&mut S) -> Result<(), Error>) -> Result<(), Error> {
        let mut made = self.made.borrow_mut();
        let state = match &mut *made {
            Some(state) => state,
            none => none.insert((self.make)().map_err(|error| error.within("cannot be initialized"))?),
        };
        body(state)
    }
}

/// The result of an `init` function: the state, or a `Result` of it.
#[diagnostic::on_unimplemented(
    message = "`init` returns `{Self}`, but the task's state is of type `{S}`",
    label = "does not return `{S}`",
    note = "the function returns `{S}`, or a `Result` of it whose error converts into `pcluster_sdk::Error`"
)]
pub trait IntoState<S> {
    /// Returns the state, or the error of the function.
    ///
    /// # Errors
    ///
    /// If the function failed.
    fn into_state(self) -> Result<S, Error>;
}

impl<S> IntoState<S> for S {
    fn into_state(self) -> Result<S, Error> {
        Ok(self)
    }
}

impl<S, E> IntoState<S> for Result<S, E>
where
    Error: From<E>,
{
    fn into_state(self) -> Result<S, Error> {
        Ok(self?)
    }
}

/// Makes a state with an `init` function from the stage's `config`.
///
/// # Errors
///
/// If the `config` does not fit the function, or the function failed.
pub fn make<S, Config, Made>(init: impl FnOnce(Config) -> Made) -> Result<S, Error>
where
    Config: DeserializeOwned,
    Made: IntoState<S>,
{
    init(context::read_config()?).into_state()
}

/// Makes a task's state before there is an item. Returns the status.
pub fn initialize<S>(state: &'static LocalKey<State<S>>) -> i32 {
    start();
    conclude(state.with(|state| state.lend(|_| Ok(())))) as i32
}

/// Lends a task's state to `body`, which handles one item.
///
/// # Errors
///
/// If the state cannot be made, or `body` fails.
pub fn with_state<S>(
    state: &'static LocalKey<State<S>>,
    body: impl FnOnce(&mut S) -> Result<(), Error>,
) -> Result<(), Error> {
    state.with(|state| state.lend(body))
}

#[cfg(test)]
mod tests {
    use std::num::ParseIntError;

    use ciborium::cbor;
    use pcluster_abi::Status;

    use super::*;
    use crate::{Value, cbor, host};

    thread_local! {
        static COUNT: State<u64> = const { State::new(|| make(parse)) };
    }

    /// Sets the `config` for this thread, in a context without an item.
    fn configure(config: &Value) {
        let context = cbor!({ "id" => "", "attempt" => 0, "config" => config }).expect("a context");
        let mut bytes = Vec::new();
        cbor::encode(&context, &mut bytes).expect("an encodable context");
        host::set_context(bytes);
    }

    /// Counts from the number in the `config`.
    #[expect(clippy::needless_pass_by_value, reason = "so the node hands it over")]
    fn parse(config: String) -> Result<u64, ParseIntError> {
        config.parse()
    }

    fn count_on() -> Result<u64, Error> {
        let mut count = 0;
        with_state(&COUNT, |state| {
            *state += 1;
            count = *state;
            Ok(())
        })?;
        Ok(count)
    }

    #[test]
    fn the_state_is_made_with_the_first_item_and_stays() {
        configure(&"5".into());
        assert_eq!(count_on().expect("a count"), 6);
        configure(&"50".into());
        assert_eq!(count_on().expect("a count"), 7);
    }

    #[test]
    fn a_state_that_is_made_before_the_first_item_is_not_made_again() {
        configure(&"5".into());
        assert_eq!(initialize(&COUNT), Status::Done as i32);
        configure(&Value::Null);
        assert_eq!(initialize(&COUNT), Status::Done as i32);
        assert_eq!(count_on().expect("a count"), 6);
        assert_eq!(host::recorded().failure, None);
    }

    #[test]
    fn what_making_the_state_fails_with_is_told() {
        configure(&"five".into());
        assert_eq!(initialize(&COUNT), Status::Failed as i32);
        assert_eq!(host::recorded().failure.as_deref(), Some("cannot be initialized: invalid digit found in string"));
        configure(&"five".into());
        let error = count_on().expect_err("an error");
        assert_eq!(error.message(), "cannot be initialized: invalid digit found in string");
        assert!(!error.is_fatal());
    }

    #[test]
    fn an_error_says_whether_to_try_again() {
        thread_local! {
            static NEVER: State<u8> = const { State::new(|| make(|(): ()| Err(Error::fatal("never")))) };
        }
        configure(&Value::Null);
        assert_eq!(initialize(&NEVER), Status::Fatal as i32);
    }

    #[test]
    fn a_config_that_does_not_fit_is_fatal() {
        configure(&5.into());
        let error = count_on().expect_err("an error");
        assert!(error.is_fatal());
        let start = "cannot be initialized: the stage's `config` does not fit the task: ";
        assert!(error.message().starts_with(start), "{error}");
    }

    #[test]
    fn a_state_may_be_a_result_itself() {
        configure(&Value::Null);
        thread_local! {
            static TRIED: State<Result<u8, ParseIntError>> = const { State::new(|| make(|(): ()| "x".parse::<u8>())) };
        }
        assert_eq!(initialize(&TRIED), Status::Done as i32);
    }

    #[test]
    fn an_item_that_fails_leaves_the_state_as_it_was() {
        configure(&"5".into());
        let failed = with_state(&COUNT, |_| Err(Error::new("this item")));
        assert_eq!(failed.expect_err("an error").message(), "this item");
        assert_eq!(count_on().expect("a count"), 6);
    }
}
