//! Items that fail are retried, then kept with the reason. No other item is affected.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciborium::Value;
use futures_util::future::BoxFuture;
use pcluster::internal::{
    Call, Engine, EngineSettings, Failure, FrameOutputs, ItemSource, Limits, Outputs, Reuse, StaticContext, to_cbor,
};
use pcluster::name::Digest;
use pcluster_abi::Level;
use serde_json::json;
use support::{Cluster, NatsClient, eventually, json_lines, numbers, plugin, probe_chain, sequence};

/// A chain of one stage, which runs this task of the probe plugin.
fn chain(name: &str, task: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1.0\"\n[[stage]]\nname = \"only\"\nplugin = \"{}\"\ntask = \"{task}\"\n{rest}\n",
        plugin("probe")
    )
}

/// The caller of a task in this process. It has one item.
struct Caller;

impl ItemSource for Caller {
    fn id(&self, _: usize) -> String {
        String::new()
    }

    fn attempt(&self) -> u64 {
        1
    }

    fn log(&self, _: usize, _: Level, _: String) {}

    fn stream(self: Arc<Self>, _: usize, _: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Two attempts, the second soon.
const TWICE: &str = "retry = { attempts = 2, backoff = [\"10ms\"] }\n";

#[test]
fn what_fails_for_good_is_a_dead_letter_with_its_reason_and_its_payload() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let cases = [
        // The task, its limits, the attempts made, the kind of failure, and what the reason says.
        ("fail", "", "2", "error", "this task always fails"),
        ("fatal", "", "1", "error", "this task always fails for good"),
        ("trap", "", "2", "trap", "this task always panics"),
        ("spin", "timeout = \"150ms\"", "2", "timeout", "the task took longer than its timeout of 150ms"),
        (
            "allocate",
            "memory = \"16MiB\"\nconfig = { mebibytes = 100 }",
            "2",
            "memory",
            "the task wanted more than its memory of 16.0 MiB",
        ),
    ];
    for (task, limits, ..) in cases {
        cluster.deploy(&chain(task, task, &format!("{TWICE}{limits}")));
    }
    let _node = cluster.node("a");
    for (task, ..) in cases {
        let headers = [("Nats-Msg-Id", "order.7"), ("X-Customer", "ada"), ("Content-Type", "application/json")];
        client.publish(&format!("pcluster.{task}.in"), &headers, "[5, \"five\"]").unwrap();
    }
    for (task, _, attempts, kind, reason) in cases {
        let letter = &client.messages(&format!("PCLUSTER_{task}_DEAD"), 1)[0];
        assert_eq!(letter.subject, format!("pcluster.{task}.dead.only"));
        assert_eq!(letter.item(), Value::Array(vec![5.into(), "five".into()]), "{task}");
        let expected = [
            ("Pcluster-Chain", task),
            ("Pcluster-Stage", "only"),
            ("Pcluster-Attempts", attempts),
            ("Pcluster-Failure", kind),
            ("Pcluster-Id", "order%2E7"),
            ("Pcluster-Version", "1.0"),
            ("Pcluster-Revision", "1"),
            ("Pcluster-Node", "a"),
            ("X-Customer", "ada"),
        ];
        for (name, value) in expected {
            assert_eq!(letter.header(name), value, "{task}: {name}");
        }
        assert!(letter.header("Pcluster-Reason").contains(reason), "{task}: {}", letter.header("Pcluster-Reason"));
        cluster.ok(&["wait", task]);
        let status =
            cluster.until(task, "the failure is counted", |status| status["revisions"][0]["stages"][0]["failed"] == 1);
        let stage = &status["revisions"][0]["stages"][0];
        assert_eq!(
            (&stage["done"], &stage["queued_messages"], &status["dead"]),
            (&json!(1), &json!(0), &json!(1)),
            "{task}"
        );
        assert_eq!(client.items_now(&format!("PCLUSTER_{task}_OUT")), 0, "{task}");
    }
}

#[test]
fn a_flaky_item_succeeds_on_the_attempt_it_should_and_not_before_its_back_off() {
    let cluster = Cluster::start();
    let retry = "config = { failures = 2 }\nretry = { attempts = 3, backoff = [\"100ms\", \"300ms\"] }";
    cluster.deploy(&chain("flaky", "flaky", retry));
    let _node = cluster.node("a");
    let started = Instant::now();
    cluster.ok(&["feed", "flaky", "7"]);
    assert_eq!(json_lines(&cluster.ok(&["pull", "flaky", "-n", "1"])), [7]);
    assert!(started.elapsed() >= Duration::from_millis(400), "after {:?}", started.elapsed());
    cluster.ok(&["wait", "flaky"]);
    let hop = eventually("the item is counted", || {
        Some(cluster.nodes()[0]["hops"][0].clone()).filter(|hop| hop["done"].as_u64() > Some(0))
    });
    assert_eq!((&hop["retried"], &hop["done"], &hop["failed"]), (&json!(2), &json!(1), &json!(0)));
}

#[test]
fn an_item_that_needs_more_attempts_than_it_has_is_a_dead_letter() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("flaky", "flaky", &format!("config = {{ failures = 2 }}\n{TWICE}")));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "flaky", "7"]);
    let letter = &client.messages("PCLUSTER_flaky_DEAD", 1)[0];
    assert_eq!(letter.header("Pcluster-Reason"), "attempt 2 of 2 that fail");
}

#[test]
fn a_failing_item_of_a_frame_does_not_repeat_its_neighbors() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    // The text is no number: its task cannot read it. The neighbors are done with at the first attempt.
    cluster.deploy(&chain("frame", "drop_odd", TWICE));
    let _node = cluster.node("a");
    client.publish("pcluster.frame.in", &[("Nats-Msg-Id", "batch")], b"\x02\x04\x61x\x06\x03".as_slice()).unwrap();
    let letter = &client.messages("PCLUSTER_frame_DEAD", 1)[0];
    assert_eq!(letter.item(), Value::from("x"));
    // It was the third item of its message.
    assert_eq!(letter.header("Pcluster-Index"), "2");
    assert!(letter.header("Pcluster-Id").starts_with("batch"));
    assert_eq!(numbers(&cluster.pull_all("frame")), [2, 4, 6]);
    let done = cluster
        .until("frame", "all are counted", |status| status["revisions"][0]["stages"][0]["done"].as_u64() >= Some(5));
    assert_eq!(done["revisions"][0]["stages"][0]["done"], 5);
}

#[test]
fn each_item_of_a_frame_that_fails_is_tried_again_by_itself() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let retry = "config = { failures = 2 }\nretry = { attempts = 3, backoff = [\"10ms\"] }";
    cluster.deploy(&chain("frame", "flaky", retry));
    let _node = cluster.node("a");
    client.publish("pcluster.frame.in", &[("Nats-Msg-Id", "batch")], b"\x01\x02\x03".as_slice()).unwrap();
    let printed = cluster.ok(&["pull", "frame", "--all", "--meta"]);
    let mut results: Vec<(u64, String)> = json_lines(&printed)
        .iter()
        .map(|result| (result["item"].as_u64().unwrap(), result["id"].as_str().unwrap().to_owned()))
        .collect();
    results.sort();
    assert_eq!(results, [(1, "batch".to_owned()), (2, "batch#1".to_owned()), (3, "batch#2".to_owned())]);
    assert_eq!(client.count("PCLUSTER_frame_DEAD"), 0);
}

#[test]
fn a_task_sees_the_variables_that_the_manifest_grants_and_nothing_else_of_the_host() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("env", &["env"], "env = { GREETING = \"hi\", EMPTY = \"\" }"));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "env", "1"]);
    let result = &json_lines(&cluster.ok(&["pull", "env", "-n", "1"]))[0];
    assert_eq!(result["variables"], json!({"GREETING": "hi", "EMPTY": ""}));
    assert!(!result["arguments"].to_string().contains("node"), "{result}");
}

#[test]
fn a_failure_in_a_rust_plugin_tells_the_function_that_it_happened_in() {
    let bytes = std::fs::read(plugin("probe")).unwrap();
    let engine = Engine::new(&EngineSettings { instances: 1, ..EngineSettings::default() }).unwrap();
    let loaded = engine.load(&Digest::of(&bytes), bytes).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (task, millis, function) in [
        ("trap", 60_000, "probe::behavior::trap"),
        ("nap", 200, "std::thread::functions::sleep"),
        ("spin", 200, "pcluster_each:spin"),
    ] {
        let timeout = Duration::from_millis(millis);
        let limits = Limits { timeout, memory: 64 << 20, output_item_bytes: 1 << 20 };
        let task = loaded.task(task, limits, StaticContext::default(), Reuse::default()).unwrap();
        let (call, mut outputs) = (Call { source: Arc::new(Caller), position: 0 }, FrameOutputs::default());
        let instances = task.instances();
        let ran = task.run_all(to_cbor(&60_000), call, &instances, &mut outputs);
        let (_, failure) = runtime.block_on(ran).unwrap_err();
        let backtrace = failure.backtrace.unwrap_or_default();
        assert!(backtrace.lines().any(|line| line == function), "{}\n{backtrace}", failure.reason);
        // What every panic goes through tells nothing of this one.
        assert!(!function.ends_with("::trap") || backtrace.starts_with(function), "{backtrace}");
    }
}

#[test]
fn no_two_items_of_a_stage_have_the_same_id_whichever_of_their_message_failed_before() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let rest = "retry = { attempts = 5, backoff = [\"10ms\"] }";
    cluster.deploy(&probe_chain("ids", &["obey", "context"], rest));
    let _node = cluster.node("a");
    let orders =
        ["flaky 1 a", "echo 1 b", "repeat 3 c", "flaky 2 d", "flaky 1 e", "wide 12 f", "echo 1 g", "flaky 1 h"];
    client.publish("pcluster.ids.in", &[("Nats-Msg-Id", "batch")], sequence(orders)).unwrap();
    cluster.ok(&["wait", "ids"]);
    let results = json_lines(&cluster.ok(&["pull", "ids", "--all"]));
    assert_eq!(results.len(), 6 + 3 + 12);
    let ids: BTreeSet<&str> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), results.len(), "{ids:?}");
}
