//! Tasks that call the host as their items or `config` say, and return what it answered.
//!
//! Requests go to the host as they are, so malformed and hostile ones can be tried.

use std::thread;
use std::time::Duration;

use pcluster_sdk::{Context, Error, Value, rt, task};
use serde::{Deserialize, Serialize};

/// The item of `ask`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ask {
    /// The calls, made one after the other.
    #[serde(rename = "do")]
    steps: Vec<Step>,
    /// The time to wait after the calls.
    sleep_ms: u64,
    /// How the item ends.
    then: Then,
    /// The attempts that end so. Later ones are done.
    attempts: Option<u32>,
    /// How long the next attempt waits.
    retry_after_ms: Option<u64>,
}

/// One call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    call: String,
    /// Any CBOR. `{attempt}` in a text stands for the number of the attempt.
    request: Option<Value>,
    /// The bytes of the request, in place of `request`. A text is hexadecimal.
    raw: Option<Value>,
}

/// How an item ends.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Then {
    #[default]
    Done,
    Fail,
    Fatal,
    Trap,
}

/// The answer to a call. Bytes that are a text are shown as one.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Failed(Value),
}

/// The configuration of `cached`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cached {
    #[serde(rename = "do")]
    steps: Vec<Step>,
    /// Whether a call that fails fails the state.
    #[serde(default)]
    must: bool,
}

/// An output of `cached`.
#[derive(Debug, PartialEq, Serialize)]
struct FromCache {
    item: Value,
    answers: Value,
}

/// The configuration of `call_often`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Often {
    times: u32,
    call: String,
    request: Value,
}

/// Makes the calls of the item. Returns the list of their answers.
#[task(calls(http, kv, objects, publish, secrets))]
fn ask(item: Ask, cx: &Context) -> Result<Vec<Answer>, Error> {
    let answers = item.steps.iter().map(|step| step.make(cx.attempt())).collect::<Result<_, _>>()?;
    thread::sleep(Duration::from_millis(item.sleep_ms));
    if item.attempts.is_some_and(|attempts| cx.attempt() > attempts) {
        return Ok(answers);
    }
    let error = match item.then {
        Then::Done => return Ok(answers),
        Then::Fail => Error::new("told to fail"),
        Then::Fatal => Error::fatal("told to fail for good"),
        Then::Trap => panic!("told to panic"),
    };
    Err(item.retry_after_ms.map(Duration::from_millis).into_iter().fold(error, Error::retry_after))
}

/// Makes the calls of the `config` before there is an item.
fn fill(config: Cached) -> Result<Value, Error> {
    let mut answers = Vec::new();
    for step in config.steps {
        match step.make(0)? {
            Answer::Failed(failure) if config.must => return Err(Error::new(message(&failure))),
            answer => answers.push(Value::serialized(&answer).map_err(Error::fatal)?),
        }
    }
    Ok(Value::Array(answers))
}

/// Returns the item with the answers to the calls that its initializer made.
#[task(init = fill, calls(http, kv, objects, publish, secrets))]
fn cached(item: Value, answers: &Value) -> FromCache {
    FromCache { item, answers: answers.clone() }
}

/// Makes the same call as often as the stage's `times` says. Returns the bytes of the answers together.
#[task(calls(http, kv))]
fn call_often(_item: Value, cx: &Context<Often>) -> Result<u64, Error> {
    let Often { times, call, request } = cx.config();
    let request = rt::encode(request).map_err(Error::fatal)?;
    let mut bytes = 0;
    for _ in 0..*times {
        let answer = rt::call(call, &request);
        bytes += answer.map_err(|_| Error::new(format!("`{call}` failed")))?.len() as u64;
    }
    Ok(bytes)
}

/// Calls although it does not list what.
#[task]
fn ask_unlisted(item: Ask, cx: &Context) -> Result<Vec<Answer>, Error> {
    ask(item, cx)
}

impl Step {
    fn make(&self, attempt: u32) -> Result<Answer, Error> {
        let request = match &self.raw {
            Some(Value::Bytes(bytes)) => bytes.clone(),
            Some(Value::Text(hexadecimal)) => from_hexadecimal(hexadecimal)?,
            Some(_) => return Err(Error::fatal("`raw` is neither bytes nor a text")),
            None => {
                rt::encode(&self.request.clone().map(|request| at_attempt(request, attempt))).map_err(Error::fatal)?
            }
        };
        let shown = |bytes: Vec<u8>| rt::decode(&bytes).map(legible).map_err(Error::fatal);
        Ok(match rt::call(&self.call, &request) {
            Ok(response) => Answer::Ok(shown(response)?),
            Err(failure) => Answer::Failed(shown(failure)?),
        })
    }
}

fn from_hexadecimal(text: &str) -> Result<Vec<u8>, Error> {
    let bytes = (0..text.len()).step_by(2).map(|at| {
        let pair = text.get(at..at + 2).ok_or_else(|| Error::fatal("half a byte"))?;
        u8::from_str_radix(pair, 16).map_err(Error::fatal)
    });
    bytes.collect()
}

/// Changes the values that stand in lists and maps, and this one.
fn change(value: Value, with: &impl Fn(Value) -> Value) -> Value {
    with(match value {
        Value::Array(values) => Value::Array(values.into_iter().map(|value| change(value, with)).collect()),
        Value::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| (key, change(value, with))).collect()),
        other => other,
    })
}

fn at_attempt(request: Value, attempt: u32) -> Value {
    change(request, &|value| match value {
        Value::Text(text) => Value::Text(text.replace("{attempt}", &attempt.to_string())),
        other => other,
    })
}

fn legible(answer: Value) -> Value {
    change(answer, &|value| match value {
        Value::Bytes(bytes) => String::from_utf8(bytes).map_or_else(|error| error.into_bytes().into(), Value::Text),
        other => other,
    })
}

fn message(failure: &Value) -> String {
    let entries = failure.as_map().map(Vec::as_slice).unwrap_or_default();
    let message = entries.iter().find(|(key, _)| key.as_text() == Some("message"));
    message.and_then(|(_, message)| message.as_text()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(steps: Vec<Step>) -> Ask {
        Ask { steps, ..Ask::default() }
    }

    fn step(request: Option<Value>, raw: Option<Value>) -> Step {
        Step { call: "kv.get".to_owned(), request, raw }
    }

    #[test]
    fn the_attempt_is_written_into_texts_and_bytes_are_shown_as_text() {
        let request = Value::Array(vec!["{attempt} of 3".into(), Value::Bytes(b"{attempt}".to_vec())]);
        let request = at_attempt(request, 2);
        assert_eq!(request, Value::Array(vec!["2 of 3".into(), Value::Bytes(b"{attempt}".to_vec())]));
        let shown = legible(Value::Array(vec![Value::Bytes(b"text".to_vec()), Value::Bytes(vec![0xff])]));
        assert_eq!(shown, Value::Array(vec!["text".into(), Value::Bytes(vec![0xff])]));
    }

    #[test]
    fn calls_without_a_world_fail_and_the_item_ends_as_it_says() {
        let raw = Some("a0".into());
        let answers = ask(steps(vec![step(None, raw), step(Some(Value::Null), None)]), &Context::default());
        let answers = answers.expect("answers");
        assert!(matches!(&answers[..], [Answer::Failed(_), Answer::Failed(failure)] if !message(failure).is_empty()));
        let late = Ask { then: Then::Fail, retry_after_ms: Some(5), attempts: Some(1), ..Ask::default() };
        assert_eq!(ask(late, &Context::default().with_attempt(2)).expect("answers"), []);
        let failing = Ask { then: Then::Fail, retry_after_ms: Some(5), ..Ask::default() };
        let error = ask(failing, &Context::default()).expect_err("an error");
        assert_eq!((error.is_fatal(), error.delay()), (false, Some(Duration::from_millis(5))));
        let fatal = Ask { then: Then::Fatal, ..Ask::default() };
        assert!(ask_unlisted(fatal, &Context::default()).expect_err("an error").is_fatal());
    }

    #[test]
    fn a_state_holds_the_answers_or_fails_with_the_first_failure() {
        let config = |must| Cached { steps: vec![step(Some(Value::Map(vec![])), None)], must };
        let answers = fill(config(false)).expect("a state");
        assert_eq!(answers.as_array().map(Vec::len), Some(1));
        assert_eq!(cached(5.into(), &answers), FromCache { item: 5.into(), answers });
        assert!(!fill(config(true)).expect_err("an error").message().is_empty());
    }

    #[test]
    fn a_call_that_fails_ends_what_calls_often() {
        let often = |times| Context::for_test(Often { times, call: "kv.get".to_owned(), request: Value::Null });
        assert_eq!(call_often(Value::Null, &often(0)).ok(), Some(0));
        assert_eq!(call_often(Value::Null, &often(1)).expect_err("an error").message(), "`kv.get` failed");
    }

    #[test]
    fn raw_requests_are_read_from_hexadecimal() {
        assert_eq!(from_hexadecimal("a0FF").expect("bytes"), [0xa0, 0xff]);
        for wrong in ["a", "xy", "größe"] {
            assert!(from_hexadecimal(wrong).expect_err("an error").is_fatal());
        }
    }
}
