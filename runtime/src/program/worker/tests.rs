//! Real workers, under a real guard.

mod lives;

use std::path::PathBuf;

use super::*;
use crate::frame::cbor::value;
use crate::frame::format::to_cbor;
use crate::frame::json;
use crate::program::folder::Folders;
use crate::program::guard::message::Bounds;
use crate::program::guard::tests::guards;
use crate::program::process::Processes;

/// What the workers of the tests have in common.
const BEGIN: &str = r#"
import json, os, sys, time
items = open(int(os.environ["PCLUSTER_WORKER_IN"]), "rb")
answers = open(int(os.environ["PCLUSTER_WORKER_OUT"]), "wb")
def raw(text):
    answers.write(text)
    answers.flush()
def say(**message):
    raw(json.dumps(message).encode() + b"\n")
def hello(**more):
    say(hello={"version": 1, "name": "test", **more})
def take():
    for line in items:
        yield json.loads(line)["item"]
def done(item, *values):
    for value in values:
        say(output={"request": item["request"], "value": value})
    say(done={"request": item["request"]})
"#;

struct Node {
    workers: Workers,
    told: Arc<Told>,
    folder: PathBuf,
    _all: tempfile::TempDir,
}

/// What a node was told.
#[derive(Default)]
struct Told {
    log: Mutex<Vec<(String, Level, String)>>,
}

impl Node {
    fn new(script: &str) -> Self {
        Self::with(script, |_| {})
    }

    fn with(script: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let all = tempfile::tempdir().expect("a folder");
        let folders = Arc::new(Folders::new(all.path(), "node", |_| Ok(())).expect("folders"));
        let folder = folders.path().to_owned();
        let told = Arc::new(Told::default());
        let log = Arc::clone(&told);
        let mut settings = Settings {
            executable: Executable {
                file: "/usr/bin/env".into(),
                shipped: None,
                environment: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
                bounds: Bounds::default(),
                processes: Processes {
                    guards: Arc::new(guards()),
                    folders,
                    cgroups: None,
                    started: Arc::new(AtomicU64::new(0)),
                    must_end: Arc::default(),
                },
            },
            arguments: ["env", "python3", "-SE", "-c", &format!("{BEGIN}{script}")].map(OsString::from).into(),
            timeout: Duration::from_mins(1),
            reuse: None,
            most: 8,
            runtime: Handle::current(),
            log: Box::new(move |id, level, line| lock(&log.log).push((id.to_owned(), level, line))),
            idle: Duration::from_mins(5),
            start: Duration::from_mins(1),
        };
        change(&mut settings);
        Self { workers: Workers::new(settings), told, folder, _all: all }
    }

    async fn run(&self, item: serde_json::Value) -> Result<Vec<String>, Failure> {
        self.run_on(item, &Bound::default()).await
    }

    async fn run_on(&self, item: serde_json::Value, bound: &Bound) -> Result<Vec<String>, Failure> {
        let id = crate::text::cut(&format!("id of {item}"), 20);
        let item = Item { bytes: &to_cbor(&item), id: &id, topic: None, attempt: 1, keep: None };
        let mut answers = self.workers.run(&item, bound).await?;
        let mut all = Vec::new();
        while let Some(output) = answers.next().expect("an output") {
            all.push(json::to_json(&value(&output).expect("an item")));
        }
        Ok(all)
    }

    async fn done(&self, item: serde_json::Value) -> Vec<String> {
        match self.run(item).await {
            Ok(all) => all,
            Err(error) => panic!("{error:?}; the log: {:?}", self.log()),
        }
    }

    async fn failure(&self, item: serde_json::Value) -> Failure {
        self.run(item).await.expect_err("it fails")
    }

    fn log(&self) -> Vec<(String, Level, String)> {
        lock(&self.told.log).clone()
    }

    async fn logged(&self, part: &str) -> (String, Level, String) {
        until(part, || self.log().into_iter().find(|(_, _, line)| line.contains(part))).await
    }

    fn started(&self) -> u64 {
        self.workers.0.settings.executable.processes.started.load(SeqCst)
    }

    async fn living(&self, count: usize) {
        until("the number of folders", || {
            (std::fs::read_dir(&self.folder).expect("a folder").count() == count).then_some(())
        })
        .await;
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "not seen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn number(number: u64) -> serde_json::Value {
    number.into()
}

#[tokio::test]
async fn one_process_takes_item_after_item_and_has_a_log() {
    let node = Node::new(
        r#"
say(log={"message": "loading"})
hello()
print("a stray print", flush=True)
for item in take():
    say(log={"request": item["request"], "level": "warn", "message": "look"})
    done(item, [os.getpid() == os.getpid(), item["value"], item["id"], item["attempt"]], os.listdir())
    open("left", "w").close()
"#,
    );
    assert_eq!(node.done(number(1)).await, [r#"[true,1,"id of 1",1]"#, "[]"]);
    assert_eq!(node.done("ü\n".into()).await, [r#"[true,"ü\n","id of \"ü\\n\"",1]"#, r#"["left"]"#]);
    let large = node.done("x".repeat(900_000).into()).await;
    assert!(large[0].contains(&"x".repeat(900_000)));
    assert_eq!(node.started(), 1);
    assert_eq!(node.logged("loading").await, (String::new(), Level::Info, "loading".to_owned()));
    assert_eq!(node.logged("look").await, ("id of 1".to_owned(), Level::Warn, "look".to_owned()));
    assert_eq!(node.logged("a stray print").await.0, "");
    node.living(1).await;
    let folder = node.folder.clone();
    drop(node.workers);
    until("its end", || (std::fs::read_dir(&folder).map_or(0, Iterator::count) == 0).then_some(())).await;
}

#[tokio::test]
async fn an_item_travels_as_cbor_where_the_worker_asks_for_it() {
    let node = Node::new(
        r#"
hello(items="cbor")
for item in take():
    say(output={"request": item["request"], "cbor": item["cbor"]})
    done(item)
"#,
    );
    let bytes = Bytes::from_static(&[0x82, 0x43, 0, 1, 2, 0xf9, 0x7e, 0x00]);
    let mut answers = node
        .workers
        .run(&Item { bytes: &bytes, id: "id", topic: None, attempt: 1, keep: None }, &Bound::default())
        .await
        .expect("done");
    assert_eq!(answers.next().expect("an output"), Some(bytes), "bytes and NaN mean what they mean in a sandbox");
}

#[tokio::test]
async fn an_item_fails_as_the_worker_says_and_the_worker_goes_on() {
    let node = Node::new(
        r#"
hello()
for item in take():
    if item["value"] == 1:
        say(output={"request": item["request"], "value": 1})
        say(error={"request": item["request"], "message": "no mesh", "retry_after_ms": 1500, "trace": "a\nb"})
    elif item["value"] == 2:
        say(error={"request": item["request"], "message": "for good", "permanent": True})
    elif item["value"] == 3:
        raw(b'{"output":{"request":%d,"value":{"a":1,"a":2}}}\n' % item["request"])
        done(item)
    elif item["value"] == 4:
        done(item, 1, "x" * (65 << 20))
    else:
        done(item, "well")
"#,
    );
    let failure = node.failure(number(1)).await;
    let expected = Failure {
        kind: FailureKind::Error,
        reason: "no mesh".to_owned(),
        brief: None,
        fatal: false,
        backtrace: Some("a\nb".to_owned()),
        retry_after: Some(Duration::from_millis(1500)),
        calls: None,
        exit: None,
        steps: None,
    };
    assert_eq!(failure, expected);
    assert_eq!(node.failure(number(2)).await, Failure::fatal(FailureKind::Error, "for good"));
    let failure = node.failure(number(3)).await;
    assert_eq!((failure.kind, failure.fatal), (FailureKind::Output, true));
    assert!(failure.reason.starts_with("output 1: the key `a` twice in one object"), "{}", failure.reason);
    let failure = node.failure(number(4)).await;
    assert!(
        failure.reason.starts_with("output 2: it has 65.0 MiB, and an output of a worker has at most 64.0 MiB"),
        "{}",
        failure.reason
    );
    assert_eq!(node.done(number(5)).await, ["\"well\""]);
    assert_eq!(node.started(), 1);
}

#[tokio::test]
async fn a_worker_that_breaks_the_protocol_is_named_and_replaced() {
    let cases = [
        ("raw(b'oops\\n')", "the worker wrote a line that is no message: `oops` "),
        ("hello()", "the worker said `hello` twice"),
        ("say(done={'request': 77})", "the worker sent `done` for request 77, which no item has"),
        ("raw(b'{\"output\":{\"request\":1,\"value\":NaN}}\\n')", "the worker wrote a line that is no message: `{"),
        ("raw(b'x' * (129 << 20))", "the worker wrote a line of more than 134283264 bytes"),
        ("answers.close(); time.sleep(300)", "the worker closed its end of the channel, and went on"),
    ];
    futures_util::future::join_all(cases.map(async |(fault, reason)| {
        let node = Node::new(&format!(
            r#"
hello()
for item in take():
    if item["value"] == 1:
        print("my last words", file=sys.stderr, flush=True)
        say(output={{"request": item["request"], "value": "never handed on"}})
        {fault}
    done(item, "well")
"#
        ));
        assert_eq!(node.done(number(0)).await, ["\"well\""]);
        let failure = node.failure(number(1)).await;
        assert_eq!((failure.kind, failure.fatal), (FailureKind::Error, false));
        assert!(failure.reason.starts_with(reason), "{fault}: {}", failure.reason);
        assert!(failure.reason.ends_with("; it said: my last words"), "{fault}: {}", failure.reason);
        assert_eq!(node.logged("a worker is replaced: ").await.1, Level::Error);
        assert_eq!(node.done(number(2)).await, ["\"well\""]);
        assert_eq!(node.started(), 2);
    }))
    .await;
}

#[tokio::test]
async fn an_answer_that_comes_twice_or_late_goes_to_no_other_item() {
    for late in ["say(done={'request': 1})", "say(output={'request': 1, 'value': 'late'})"] {
        let node = Node::new(&format!(
            r#"
hello()
for item in take():
    done(item, item["value"])
    if item["request"] == 1:
        {late}
"#
        ));
        assert_eq!(node.done(number(1)).await, ["1"]);
        let told = node.logged("a worker is replaced: ").await.2;
        assert!(told.contains("for request 1, which it has answered already"), "{told}");
        node.living(0).await;
        assert_eq!(node.done(number(2)).await, ["2"]);
        assert_eq!(node.started(), 2);
    }
}

#[tokio::test]
async fn a_worker_that_dies_costs_the_item_that_it_holds_and_no_other() {
    let node = Node::new(
        r#"
hello()
for item in take():
    if item["value"] == 1:
        say(output={"request": item["request"], "value": "never handed on"})
        print("no mesh", file=sys.stderr, flush=True)
        os._exit(3)
    if item["value"] == 2:
        os.kill(os.getpid(), 9)
    if item["value"] == 3:
        os._exit(0)
    done(item, "well")
    if item["value"] == 4:
        # It reads no further item.
        time.sleep(0.1)
        os._exit(0)
"#,
    );
    for (value, kind, reason) in [
        (1, FailureKind::Error, "the program ended with status 3; it said: no mesh"),
        (2, FailureKind::Trap, "the program was killed from outside by SIGKILL"),
        (3, FailureKind::Error, "the worker ended with status 0 before it answered"),
    ] {
        let failure = node.failure(number(value)).await;
        assert_eq!((failure.kind, failure.fatal), (kind, false));
        assert!(failure.reason.starts_with(reason), "{}", failure.reason);
        assert_eq!(node.done(number(0)).await, ["\"well\""]);
    }
    // While it ends, an item is written to it that it never reads.
    for _ in 0..3 {
        assert_eq!(node.done(number(4)).await, ["\"well\""]);
        assert_eq!(node.done(number(0)).await, ["\"well\""]);
    }
}

#[tokio::test]
async fn a_worker_takes_as_many_items_at_once_as_it_says() {
    let node = Node::new(
        r#"
hello(at_once=3)
held = []
for item in take():
    held.append(item)
    if len(held) == 3:
        # The last comes first.
        for item in reversed(held):
            done(item, item["value"])
        held = []
"#,
    );
    let items = futures_util::future::join_all((0..3).map(|item| node.done(number(item)))).await;
    assert_eq!((items.concat(), node.started()), (["0", "1", "2"].map(str::to_owned).into(), 1));
}

#[tokio::test]
async fn each_item_has_a_worker_of_its_own_where_they_take_one_at_once() {
    // An item ends once three processes have begun one.
    let script = r#"
hello()
for item in take():
    open(os.path.join(os.environ["MARKS"], str(os.getpid())), "w").close()
    while item["value"] and len(os.listdir(os.environ["MARKS"])) < 3:
        time.sleep(0.01)
    done(item, os.getpid())
"#;
    let marks = tempfile::tempdir().expect("a folder");
    let node = Node::with(script, |settings| {
        settings.executable.environment.push(("MARKS".into(), marks.path().into()));
    });
    node.done(number(0)).await;
    let mut processes = futures_util::future::join_all((1..4).map(|item| node.done(number(item)))).await.concat();
    processes.sort();
    processes.dedup();
    assert_eq!((processes.len(), node.started()), (3, 3));
    node.done(number(1)).await;
    assert_eq!(node.started(), 3);
}

#[tokio::test]
async fn a_worker_takes_the_items_that_have_its_slots_and_holds_none_while_it_is_idle() {
    let script =
        "hello()\nfor item in take():\n    time.sleep(item['value'])\n    done(item, os.environ['PCLUSTER_SLOT_GPU'])";
    let node = Node::with(script, |settings| settings.most = 2);
    let gpu = |number: &str| Bound { variables: vec![("PCLUSTER_SLOT_GPU".into(), number.into())] };
    for (number, started) in [("0", 1), ("1", 2), ("0", 2), ("1", 2), ("2", 3)] {
        assert_eq!(node.run_on(0.into(), &gpu(number)).await.expect("done"), [format!("\"{number}\"")]);
        assert_eq!(node.started(), started, "{number}");
    }
    // The third has made an idle one end.
    node.living(2).await;
    let slots: Arc<dyn Send + Sync> = Arc::new(());
    let (bytes, bound) = (to_cbor(&300), gpu("2"));
    let item = Item { bytes: &bytes, id: "id", topic: None, attempt: 1, keep: Some(Arc::clone(&slots)) };
    let dropped = tokio::time::timeout(Duration::from_millis(300), node.workers.run(&item, &bound)).await;
    assert!(dropped.is_err());
    drop(item);
    assert_eq!(Arc::strong_count(&slots), 2, "kept until the worker has ended");
    until("the end of the worker", || (Arc::strong_count(&slots) == 1).then_some(())).await;
    node.living(1).await;
}
