//! Real programs, under a real guard.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;
use crate::frame::format::to_cbor;
use crate::frame::json;
use crate::program::folder::Folders;
use crate::program::guard::message::Bounds;
use crate::program::guard::tests::guards;
use crate::program::process::{GRACE, Processes};

struct Node {
    program: Program,
    _all: tempfile::TempDir,
}

impl Node {
    fn new(arguments: &[&str], input: Option<Format>, output: Option<Format>) -> Self {
        let all = tempfile::tempdir().expect("a folder");
        let program = Program {
            executable: Executable {
                shipped: None,
                file: "/bin/sh".into(),
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                bounds: Bounds::default(),
                processes: Processes {
                    guards: Arc::new(guards()),
                    folders: Arc::new(Folders::new(all.path(), "node", |_| Ok(())).expect("folders")),
                    cgroups: None,
                    started: Arc::new(AtomicU64::new(0)),
                    must_end: Arc::default(),
                },
            },
            arguments: arguments.iter().map(|text| Argument::new(text).expect("an argument")).collect(),
            options: false,
            input,
            output,
            timeout: Duration::from_mins(1),
            permanent: BTreeSet::from([65]),
            output_large: 1 << 20,
        };
        Self { program, _all: all }
    }

    fn sh(script: &str) -> Self {
        Self::new(
            &["sh", "-c", &script.replace('{', "{{").replace('}', "}}")],
            Some(Format::Json),
            Some(Format::Ndjson),
        )
    }

    async fn run(&self, item: serde_json::Value) -> (Result<Vec<String>, Failure>, Vec<String>) {
        let mut lines = Vec::new();
        let variables = vec![("PCLUSTER_ITEM_ID".into(), "id".into())];
        let ran = self.program.run(&to_cbor(&item).into(), variables, Place::default(), |line| lines.push(line)).await;
        let ran = ran.and_then(|mut outputs| {
            let mut all = Vec::new();
            while let Some(output) = outputs.next()? {
                let output = output.into_whole().map_err(|error| here("an output", &error))?;
                all.push(json::to_json(&value(&output).expect("an item")));
            }
            Ok(all)
        });
        (ran, lines)
    }

    async fn reason(&self, item: serde_json::Value) -> (FailureKind, bool, String) {
        let failure = self.run(item).await.0.expect_err("it fails");
        (failure.kind, failure.fatal, failure.reason)
    }

    async fn is_clean(&self) {
        let began = Instant::now();
        while std::fs::read_dir(self.program.executable.processes.folders.path()).expect("a folder").count() > 0 {
            assert!(began.elapsed() < Duration::from_mins(1), "a folder is left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn an_item_goes_in_and_each_line_comes_out_as_an_output() {
    let node =
        Node::sh("cat; echo; echo 2; echo to the log >&2; printf 3; echo $PCLUSTER_ITEM_ID >&2; touch $HOME/left");
    let (ran, lines) = node.run(serde_json::json!({"a": 1})).await;
    assert_eq!(ran.expect("done"), ["{\"a\":1}", "2", "3"]);
    assert_eq!(lines, ["to the log", "id"]);
    node.is_clean().await;
    let node = Node::new(&["sh", "-c", "echo \"$1\" \"$2\"", "sh", "{name}", "-n={n}"], None, Some(Format::Text));
    let (ran, _) = node.run(serde_json::json!({"name": "$(id); 'x", "n": 5})).await;
    assert_eq!(ran.expect("done"), ["\"$(id); 'x -n=5\\n\""]);
}

#[tokio::test]
async fn an_item_fails_with_the_reason_and_nothing_of_it_is_handed_on() {
    for (script, kind, fatal, reason) in [
        (
            "echo 1; echo no such mesh >&2; exit 3",
            FailureKind::Error,
            false,
            "the program ended with status 3; it said: no such mesh",
        ),
        (
            "echo 1; exit 65",
            FailureKind::Error,
            true,
            "the program ended with status 65, which the stage calls permanent",
        ),
        ("kill -SEGV $$", FailureKind::Trap, false, "SIGSEGV ended the program"),
        ("echo 1; echo x", FailureKind::Output, true, "standard output: "),
        (
            "sh -c 'kill -KILL $$'; exit $?",
            FailureKind::Trap,
            false,
            "the program was killed from outside by SIGKILL (status 137 of what started it)",
        ),
    ] {
        let told = Node::sh(script).reason(serde_json::json!(1)).await;
        assert_eq!((told.0, told.1), (kind, fatal), "{script}: {}", told.2);
        assert!(told.2.starts_with(reason), "{script}: {}", told.2);
    }
    let node = Node::new(&["sh", "-c", "true", "{steps}"], None, None);
    let told = node.reason(serde_json::json!({})).await;
    assert!(told.2.starts_with("the item lacks the field `steps`, which the argument `{steps}` takes"), "{}", told.2);
    assert_eq!((told.0, told.1), (FailureKind::Error, true));
    let mut node = Node::sh("true");
    node.program.executable.file = "/nowhere".into();
    let told = node.reason(serde_json::json!(1)).await;
    assert_eq!((told.0, told.1), (FailureKind::Node, false));
    node.is_clean().await;
}

#[tokio::test]
async fn a_program_that_takes_too_long_ends_however_it_takes_the_request() {
    for (script, is_kind) in [
        ("sleep 300", true),
        ("trap 'echo 1; exit 0' TERM; sleep 300 & wait", true),
        ("trap '' TERM; sleep 300", false),
    ] {
        let mut node = Node::sh(script);
        node.program.timeout = Duration::from_millis(300);
        let began = Instant::now();
        let told = node.reason(serde_json::json!(1)).await;
        assert_eq!((told.0, told.1), (FailureKind::Timeout, false));
        assert!(told.2.starts_with("the program took longer than its timeout of 300ms"), "{}", told.2);
        assert_eq!(began.elapsed() < GRACE, is_kind, "{script}");
        node.is_clean().await;
    }
}

#[tokio::test]
async fn streams_are_fed_and_drained_side_by_side_and_need_not_be() {
    let large = serde_json::json!("x".repeat(900_000));
    let echo = Node::new(&["sh", "-c", "cat"], Some(Format::Json), Some(Format::Json));
    assert_eq!(echo.run(large.clone()).await.0.expect("done")[0].len(), 900_002);
    for script in [
        "exit 0",
        "exec <&-; sleep 0.1",
        "exec >&- 2>&-; sleep 0.1",
        "head -c 1000000 /dev/zero >&2",
        "sleep 300 & exit 0",
    ] {
        let (ran, _) = Node::sh(script).run(large.clone()).await;
        assert_eq!(ran.expect(script), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_nothing() {
    let node = Node::sh("setsid sleep 307 & while :; do date > $HOME/x; done");
    let dropped = tokio::time::timeout(Duration::from_millis(300), node.run(serde_json::json!(1))).await;
    assert!(dropped.is_err());
    node.is_clean().await;
}

#[tokio::test]
async fn an_item_whose_program_must_end_has_neither_succeeded_nor_failed() {
    let node = Node::sh("trap 'touch asked; exit 0' TERM; touch began; sleep 300 & wait");
    let folder = node.program.executable.processes.folders.path().join("0");
    let mut run = std::pin::pin!(node.run(serde_json::json!(1)));
    let began = async {
        while !folder.join("began").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = Instant::now();
        node.program.executable.processes.end_all().await;
        assert!(asked.elapsed() < GRACE, "it ends when it is asked");
    };
    tokio::select! {
        ended = &mut run => panic!("{ended:?}"),
        () = began => {}
    }
    node.is_clean().await;
    // Nothing starts any more.
    assert!(tokio::time::timeout(Duration::from_millis(50), node.run(serde_json::json!(1))).await.is_err());
    let began = Instant::now();
    node.program.executable.processes.end_all().await;
    assert!(began.elapsed() < GRACE, "none runs");
}
