use super::*;
use crate::dead::calls::Safety;

/// The calls of an attempt: `kv.get` with the request `a`, then `kv.put` with `b`.
fn record() -> CallRecord {
    let mut record = CallRecord::default();
    for (call, request) in [("kv.get", "a"), ("kv.put", "b")] {
        let called = Called {
            call: call.to_owned(),
            target: format!("cache/{request}"),
            outcome: "ok".to_owned(),
            ms: 1,
            safety: Safety::Safe,
            key: None,
            request: digest_of(request.as_bytes()),
            body: None,
            answer: Some(BASE64_STANDARD.encode(request)),
            answer_cut: false,
            failed: false,
            item: None,
        };
        record.add(called);
    }
    record
}

fn calls(record: Option<&CallRecord>) -> Arc<ReplayedCalls> {
    let replay = Replay::new(record, true, Box::new(|_| {}));
    Arc::new(ReplayedCalls { replay, item: None, stage: "ask".to_owned(), live: None })
}

async fn ask(calls: &Arc<ReplayedCalls>, name: &str, request: &str) -> Result<Answer, String> {
    let replay = Arc::clone(&calls.replay);
    tokio::select! {
        biased;
        answer = Arc::clone(calls).call(name, request.as_bytes()) => Ok(answer),
        departure = replay.departure() => Err(departure.to_string()),
    }
}

#[tokio::test]
async fn calls_are_answered_in_order_and_end_with_the_record() {
    let calls = calls(Some(&record()));
    assert_eq!(ask(&calls, "kv.get", "a").await, Ok(Answer::Response(Bytes::from_static(b"a"))));
    assert_eq!(calls.replay.left(), 1);
    assert_eq!(ask(&calls, "kv.put", "b").await, Ok(Answer::Response(Bytes::from_static(b"b"))));
    let further = "call 3 differs: it is `kv.get`, and the last attempt made no call there, as far as its letter tells";
    assert_eq!(ask(&calls, "kv.get", "a").await, Err(further.to_owned()));
    assert_eq!(calls.replay.made(), record().calls);
}

#[tokio::test]
async fn the_first_call_that_differs_stops_the_replay() {
    for (name, request, says) in [
        (
            "kv.get",
            "b",
            "call 1 differs: it is `kv.get` with another request, and the last attempt made `kv.get cache/a`",
        ),
        ("kv.put", "a", "call 1 differs: it is `kv.put`, and the last attempt made `kv.get cache/a`"),
    ] {
        assert_eq!(ask(&calls(Some(&record())), name, request).await, Err(says.to_owned()));
    }
}

#[tokio::test]
async fn a_call_without_an_answer_says_why_it_has_none() {
    let without = |change: fn(&mut Called)| {
        let mut record = record();
        record.calls[0].answer = None;
        change(&mut record.calls[0]);
        record
    };
    let none = without(|_| {});
    let answer_cut = without(|called| called.answer_cut = true);
    let open = without(|called| called.outcome = "open".to_owned());
    let mut cut = record();
    cut.calls.clear();
    cut.left_off = 2;
    let line = "set `record = \"bodies\"` in the `[stage.allow]` of stage `ask`";
    for (record, says) in [
        (Some(&none), line),
        (Some(&answer_cut), "its answer was cut from the record; a letter has room for 64 KiB of calls"),
        (Some(&open), "the last attempt ended before it had an answer"),
        (Some(&cut), "the record was cut before it; a letter has room for 64 KiB of calls"),
        (None, "the last attempt ended with its node, and nothing is known of what it called"),
    ] {
        let said = ask(&calls(record), "kv.get", "a").await.expect_err("a departure");
        assert!(said.starts_with("call 1, `kv.get") && said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn each_item_of_an_inline_stage_has_its_own_calls() {
    let mut record = record();
    record.calls[1].item = Some("x.0".to_owned());
    let first = calls(Some(&record));
    let replay = Arc::clone(&first.replay);
    let inline = |item: &str| {
        let (item, stage) = (Some(item.to_owned()), "put".to_owned());
        Arc::new(ReplayedCalls { replay: Arc::clone(&replay), item, stage, live: None })
    };
    assert!(ask(&inline("x.0"), "kv.put", "b").await.is_ok());
    assert!(ask(&first, "kv.get", "a").await.is_ok());
    assert!(ask(&inline("x.1"), "kv.put", "b").await.is_err());
}
