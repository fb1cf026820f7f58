use std::sync::Mutex;

use pcluster_abi::Level;

use super::*;
use crate::engine::task::Task;
use crate::engine::testing::{BRIEF, LIMITS, items, task};
use crate::run::call::{Call, ItemSource};
use crate::run::failure::{Failure, FailureKind};
use crate::run::output::Outputs;

/// Answers a call with its name and its request, and never the call `never`.
#[derive(Default)]
struct Echo(Mutex<Vec<String>>);

impl Calls for Echo {
    fn call(self: Arc<Self>, name: &str, request: &[u8]) -> BoxFuture<'static, Answer> {
        self.0.lock().expect("no panic").push(name.to_owned());
        let (name, request) = (name.to_owned(), Bytes::copy_from_slice(request));
        Box::pin(async move {
            tokio::task::yield_now().await;
            match name.as_str() {
                "never" => std::future::pending().await,
                "fails" => Answer::Failure(request),
                _ => Answer::Response(request),
            }
        })
    }
}

/// A source of one item that may call.
#[derive(Default)]
struct Caller(Arc<Echo>);

impl ItemSource for Caller {
    fn id(&self, _: usize) -> String {
        String::new()
    }

    fn attempt(&self) -> u64 {
        1
    }

    fn log(&self, _: usize, _: Level, _: String) {}

    fn calls(&self, _: usize) -> Option<Arc<dyn Calls>> {
        Some(Arc::clone(&self.0) as Arc<dyn Calls>)
    }

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Returns a guest with the names `echo`, `fails` and `never` at 512, 520 and 528. Its task runs `body`, and its allocation `start`.
fn guest(start: &str, body: &str) -> String {
    format!(
        r#"(module
          (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
          (import "pcluster_v1" "call" (func $call (param i32 i32 i32 i32) (result i32)))
          (import "pcluster_v1" "call_read" (func $read (param i32)))
          (import "pcluster_v1" "retry_after" (func $after (param i64)))
          (memory (export "memory") 1)
          (data (i32.const 512) "echo") (data (i32.const 520) "fails") (data (i32.const 528) "never")
          (func (export "pcluster_alloc") (param i32) (result i32) {start} (i32.const 1024))
          (func (export "pcluster_task:t") (param i32 i32) (result i32) {body}))"#
    )
}

/// Calls with the item, emits the length as a small number, and then what was read.
const ASK: &str = "(local $length i32)
  (local.set $length (call $call (i32.const NAME) (i32.const LEN) (local.get 0) (local.get 1)))
  (if (i32.lt_s (local.get $length) (i32.const 0)) (then (local.set $length (i32.xor (local.get $length) (i32.const -1)))
    (i32.store8 (i32.const 0) (i32.const 1)) (call $emit (i32.const 0) (i32.const 1))))
  (call $read (i32.const 2048))
  (call $emit (i32.const 2048) (local.get $length))
  (i32.const 0)";

fn ask(name: u32, len: u32) -> String {
    ASK.replace("NAME", &name.to_string()).replace("LEN", &len.to_string())
}

async fn run(task: &Task) -> (Result<Vec<Bytes>, Failure>, Vec<String>) {
    let caller = Arc::new(Caller::default());
    let call = Call { source: Arc::clone(&caller) as Arc<dyn ItemSource>, position: 0 };
    let ran = task.run(Bytes::from_static(b"\x63abc"), call, &task.instances()).await;
    let names = caller.0.0.lock().expect("no panic").clone();
    assert_eq!(Arc::strong_count(&caller.0), 1, "nothing is kept when the item is over");
    (ran.map(|outputs| items(&outputs)), names)
}

#[tokio::test]
async fn a_guest_gets_the_response_or_the_failure_of_its_call() {
    let (outputs, called) = run(&task(&guest("", &ask(512, 4)), LIMITS)).await;
    assert_eq!(outputs.expect("outputs"), [b"\x63abc".as_slice()]);
    assert_eq!(called, ["echo"]);
    let (outputs, _) = run(&task(&guest("", &ask(520, 5)), LIMITS)).await;
    assert_eq!(outputs.expect("outputs"), [b"\x01".as_slice(), b"\x63abc"]);
}

#[tokio::test]
async fn a_call_without_an_answer_ends_with_the_time_of_its_item() {
    let (outputs, called) = run(&task(&guest("", &ask(528, 5)), BRIEF)).await;
    assert_eq!(outputs.expect_err("no answer").kind, FailureKind::Timeout);
    assert_eq!(called, ["never"]);
}

#[tokio::test]
async fn without_a_grant_or_an_item_a_call_is_denied() {
    let denied = |outputs: Result<Vec<Bytes>, Failure>| {
        let outputs = outputs.expect("outputs");
        let failure: ciborium::Value = ciborium::from_reader(&outputs[1][..]).expect("CBOR");
        assert!(format!("{failure:?}").contains("denied"), "{failure:?}");
    };
    let plain = task(&guest("", &ask(512, 4)), LIMITS);
    let ran = plain.run(Bytes::from_static(b"\x01"), Call::idle(), &plain.instances()).await;
    denied(ran.map(|outputs| items(&outputs)));
    // The allocation comes before the item.
    let early = "(drop (call $call (i32.const 512) (i32.const 4) (i32.const 0) (i32.const 0)))";
    let body = "(i32.store8 (i32.const 0) (i32.const 1)) (call $emit (i32.const 0) (i32.const 1)) (call $read (i32.const 2048))
      (i32.store8 (i32.const 2047) (i32.load8_u (i32.const 2048))) (call $emit (i32.const 2048) (i32.const LENGTH)) (i32.const 0)";
    let length = CallFailure::denied("`echo`: there is no item yet").encode().len();
    let (outputs, called) = run(&task(&guest(early, &body.replace("LENGTH", &length.to_string())), LIMITS)).await;
    denied(outputs);
    assert!(called.is_empty());
}

#[tokio::test]
async fn a_failed_item_may_say_how_long_the_next_attempt_waits() {
    let (outputs, _) = run(&task(&guest("", "(call $after (i64.const 1500)) (i32.const 1)"), LIMITS)).await;
    assert_eq!(outputs.expect_err("failed").retry_after, Some(Duration::from_millis(1500)));
    let (outputs, _) = run(&task(&guest("", "(call $after (i64.const -1)) (i32.const 1)"), LIMITS)).await;
    assert_eq!(outputs.expect_err("failed").retry_after, Some(Duration::ZERO));
    let (outputs, _) =
        run(&task(&guest("", "(call $after (i64.const 0x7fffffffffffffff)) (i32.const 1)"), LIMITS)).await;
    assert_eq!(outputs.expect_err("failed").retry_after, Some(RETRY_AFTER_MAX));
}

#[test]
fn a_plugin_that_calls_lists_its_calls() {
    for (calls, problem) in [("", "lists no calls"), (r#"\"ftp\""#, "calls `ftp`, which pcluster does not offer")] {
        let section = format!(r#"(@custom "pcluster" "{{\"abi\":1,\"name\":\"t\",\"calls\":[{calls}]}}") (memory"#);
        let wat = guest("", "(i32.const 0)").replacen("(memory", &section, 1);
        let bytes = wat::parse_str(&wat).expect("a module");
        let error = crate::engine::inspect::inspect(&bytes).expect_err("refused").to_string();
        assert!(error.contains(problem), "{error}");
    }
}
