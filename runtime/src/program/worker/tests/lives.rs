//! How workers begin and end.

use super::*;

#[tokio::test]
async fn a_worker_is_replaced_after_its_items_and_ends_when_it_is_idle() {
    let script = "hello()\nfor item in take():\n    done(item, os.getpid())\nraw(b'')\nprint('bye', flush=True)";
    let node = Node::with(script, |settings| settings.reuse = Some(2));
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(node.done(number(1)).await.concat());
    }
    assert_eq!((all[0] == all[1], all[1] == all[2], all[2] == all[3], all[3] == all[4]), (true, false, true, false));
    node.living(1).await;
    node.logged("bye").await;
    let node = Node::with(script, |settings| settings.idle = Duration::from_millis(300));
    node.done(number(1)).await;
    node.logged("bye").await;
    node.living(0).await;
    node.done(number(1)).await;
    assert_eq!(node.started(), 2);
}

#[tokio::test]
async fn a_start_that_fails_is_no_attempt_and_is_tried_again_later() {
    let cases = [
        (
            "print('no model', file=sys.stderr, flush=True); sys.exit(4)",
            "the program ended with status 4; it said: no model",
        ),
        ("sys.exit(0)", "the worker ended with status 0 before it answered"),
        ("say(hello={'version': 2})", "it speaks version 2 of the protocol; this node speaks 1"),
        ("raw(b'Loading\\n'); time.sleep(300)", "the worker wrote a line that is no message: `Loading`"),
        ("say(done={'request': 1}); time.sleep(300)", "the worker sent `done` before it had an item"),
        ("time.sleep(300)", "it said no `hello` within 2s; a worker writes to the descriptor in PCLUSTER_WORKER_OUT"),
        ("hello(); sys.exit(0)", "the worker ended with status 0 before it answered"),
    ];
    futures_util::future::join_all(cases.map(async |(script, reason)| {
        let script = format!(
            "if not os.path.exists(os.environ['FLAG']):\n    {script}\nhello()\nfor item in take(): done(item, 1)"
        );
        let flag = tempfile::tempdir().expect("a folder");
        let flag = flag.path().join("flag");
        let node = Node::with(&script, |settings| {
            settings.executable.environment.push(("FLAG".into(), flag.clone().into()));
            settings.start = Duration::from_secs(2);
        });
        let began = Instant::now();
        let failure = node.failure(number(1)).await;
        assert_eq!((failure.kind, failure.fatal), (FailureKind::Node, false), "no attempt");
        let told = failure.reason.strip_prefix("its worker does not start: ").expect("why");
        assert!(told.starts_with(reason), "{script}: {told}");
        std::fs::write(&flag, "").expect("written");
        while let Err(failure) = node.run(number(1)).await {
            assert_eq!(failure.kind, FailureKind::Node);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed() >= Duration::from_secs(1), "starts are spaced");
        assert_eq!(node.started(), 2);
        assert_eq!(node.done(number(1)).await, ["1"]);
    }))
    .await;
    let node = Node::with("", |settings| settings.executable.file = "/nowhere".into());
    let failure = node.failure(number(1)).await;
    assert!(
        failure.reason.starts_with("its worker does not start: `/nowhere` cannot be executed"),
        "{}",
        failure.reason
    );
}

#[tokio::test]
async fn an_item_that_is_given_back_ends_its_worker() {
    let node = Node::new("hello()\nfor item in take():\n    time.sleep(item['value'])\n    done(item)");
    node.done(number(0)).await;
    let dropped = tokio::time::timeout(Duration::from_millis(300), node.run(number(300))).await;
    assert!(dropped.is_err());
    node.living(0).await;
    node.done(number(0)).await;
}

#[tokio::test]
async fn a_worker_that_takes_more_than_its_bounds_costs_the_item_that_it_holds() {
    let script = "hello()\nfor item in take():\n    x = b'x' * (200 << 20) if item['value'] else b''\n    time.sleep(item['value'])\n    done(item)";
    let node = Node::with(script, |settings| settings.executable.bounds.memory = Some(100 << 20));
    node.done(number(0)).await;
    let failure = node.failure(number(30)).await;
    assert_eq!((failure.kind, failure.fatal), (FailureKind::Memory, false), "{}", failure.reason);
    node.done(number(0)).await;
}

#[tokio::test]
async fn a_worker_that_has_grown_is_replaced_before_its_next_item() {
    let script = "hello()\nfor item in take():\n    x = b'x' * (100 << 20)\n    time.sleep(0.5)\n    done(item, os.getpid())\nprint('bye', flush=True)";
    let node = Node::with(script, |settings| {
        settings.executable.bounds.grown = Some(90 << 20);
        settings.executable.bounds.memory = Some(300 << 20);
    });
    let first = node.done(number(1)).await;
    assert_eq!(node.logged("close to its `memory`").await.1, Level::Info);
    node.logged("bye").await;
    assert_ne!(node.done(number(1)).await, first);
    assert_eq!(node.started(), 2);
}

#[tokio::test]
async fn a_node_that_stops_ends_its_workers_and_their_items_have_neither_succeeded_nor_failed() {
    let script = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: (done(item), os._exit(0)))\nhello()\nfor item in take():\n    time.sleep(item['value'])\n    done(item)";
    let node = Node::new(script);
    node.done(number(0)).await;
    let stops = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        node.workers.0.settings.executable.processes.end_all().await;
    };
    tokio::select! {
        ended = node.run(number(300)) => panic!("{ended:?}"),
        () = stops => {}
    }
    node.living(0).await;
}

#[tokio::test]
async fn a_silent_worker_is_ended_after_the_timeout_of_its_item() {
    let cases = [
        ("time.sleep(300)", true),
        (
            "import signal; signal.signal(signal.SIGTERM, lambda *_: (done(item, 'late'), os._exit(0))); time.sleep(300)",
            true,
        ),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)", false),
    ];
    futures_util::future::join_all(cases.map(async |(script, is_kind)| {
        let script =
            format!("hello()\nfor item in take():\n    if item['value'] == 1:\n        {script}\n    done(item)");
        let node = Node::with(&script, |settings| settings.timeout = Duration::from_secs(2));
        assert_eq!(node.done(number(0)).await, Vec::<String>::new());
        let began = Instant::now();
        let failure = node.failure(number(1)).await;
        assert_eq!((failure.kind, failure.fatal), (FailureKind::Timeout, false));
        assert_eq!(failure.reason, "the program took longer than its timeout of 2s");
        assert_eq!(began.elapsed() < Duration::from_secs(7), is_kind, "{script}");
        assert_eq!(node.done(number(0)).await, Vec::<String>::new());
    }))
    .await;
}

#[tokio::test]
async fn a_worker_of_which_no_answer_has_come_is_told_where_and_how_to_write_it() {
    let lost = [
        "print('{\"done\": {\"request\": 1}}', flush=True)",
        "held = open(os.dup(answers.fileno()), 'w'); held.write('{\"done\": {\"request\": 1}}\\n')",
    ];
    let told = lost.map(async |script| {
        let script = format!("hello()\nfor item in take():\n    {script}; time.sleep(300)");
        let node = Node::with(&script, |settings| settings.timeout = Duration::from_secs(2));
        let reason = node.failure(number(1)).await.reason;
        let expected = "the program took longer than its timeout of 2s; a worker writes to the descriptor in \
                        PCLUSTER_WORKER_OUT, not to its standard output, and flushes each line";
        assert!(reason.starts_with(expected), "{reason}");
    });
    futures_util::future::join_all(told).await;
    let node = Node::with(
        "hello()\nfor item in take():\n    say(output={'request': item['request'], 'value': 1}); time.sleep(300)",
        |settings| {
            settings.timeout = Duration::from_secs(2);
        },
    );
    assert_eq!(node.failure(number(1)).await.reason, "the program took longer than its timeout of 2s");
}
