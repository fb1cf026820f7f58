//! What results and dead letters tell of their way: each step with its times, also under packing, generators, inline stages,
//! retries and dead nodes; and the headers that a feeder gives.

use serde_json::{Value, json};
use support::{
    Cluster, NatsClient, Process, Reply, World, assert_refused, json_lines, lines, plugin, probe_chain, with_table,
};

/// A manifest whose results tell of their way.
fn recording(records: &str, manifest: &str) -> String {
    with_table(&format!("[results]\nrecords = \"{records}\""), manifest)
}

/// The results of a chain with all that is known about them.
fn with_meta(cluster: &Cluster, chain: &str) -> Vec<Value> {
    json_lines(&cluster.ok(&["pull", chain, "--all", "--meta"]))
}

/// The steps of a result or dead letter.
#[track_caller]
fn steps(of: &Value) -> &Vec<Value> {
    of["record"]["steps"].as_array().unwrap_or_else(|| panic!("no steps: {of}"))
}

/// A field of each step.
fn each(of: &Value, field: &str) -> Vec<Value> {
    steps(of).iter().map(|step| step[field].clone()).collect()
}

/// The bytes of a text as CBOR.
fn size(text: &Value) -> usize {
    let length = text.as_str().unwrap().len();
    length + if length < 24 { 1 } else { 2 }
}

/// Checks that the times of a record follow each other as far as one clock shows them.
#[track_caller]
fn assert_in_order(of: &Value) {
    let record = &of["record"];
    assert!(record["fed"].as_str() <= record["done"].as_str(), "{record}");
    for step in steps(of) {
        assert!(step["started"].as_str() <= step["ended"].as_str(), "{step}");
        assert!(step["wait_ms"].as_f64() >= Some(0.0) && step["run_ms"].as_f64() >= Some(0.0), "{step}");
        assert!(step["skew"]["error_ms"].is_u64(), "the node has compared its clock: {step}");
    }
}

#[test]
fn each_output_tells_the_steps_of_its_own_ancestors() {
    let cluster = Cluster::start();
    let plugin = plugin("probe");
    let stage = |name: &str, task: &str, rest: &str| {
        format!("[[stage]]\nname = \"{name}\"\ntask = \"{task}\"\nplugin = \"{plugin}\"\n{rest}\n")
    };
    let stages = [
        stage("first", "echo", ""),
        stage("second", "repeat", "config = { times = 2 }"),
        stage("third", "echo", "inline = true"),
        stage("last", "echo", ""),
    ];
    cluster.deploy(&recording("all", &format!("name = \"way\"\nversion = \"1.0\"\n{}", stages.concat())));
    let _nodes = [cluster.node("a"), cluster.node("b")];
    cluster.run_with_input(&["feed", "way", "--format", "lines"], lines((1..=60).map(|n| "x".repeat(n)))).succeeded();
    let results = with_meta(&cluster, "way");
    assert_eq!(results.len(), 120);
    for result in &results {
        assert_in_order(result);
        assert_eq!(result["record"]["hops"], 3, "{result}");
        assert_eq!(each(result, "stage"), ["first", "second", "third", "last"]);
        let own = json!(size(&result["item"]));
        assert_eq!(each(result, "bytes_in"), vec![own.clone(); 4], "{result}");
        assert_eq!(steps(result)[1]["bytes_out"], json!(2 * size(&result["item"])), "{result}");
        assert_eq!((&steps(result)[2]["queued"], &steps(result)[3]["version"]), (&Value::Null, &json!("1.0")));
        for step in steps(result) {
            assert!(["a", "b"].contains(&step["node"].as_str().unwrap()), "{step}");
            assert_eq!((&step["attempt"], &step["revision"], &step["coarse"]), (&json!(1), &json!(1), &Value::Null));
        }
    }
}

#[test]
fn a_record_is_bounded_and_off_where_it_is_not_wanted() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&recording("all", &probe_chain("all", &["echo", "obey"], "")));
    cluster.deploy(&recording("times", &probe_chain("times", &["echo", "obey"], "")));
    cluster.deploy(&probe_chain("none", &["echo"], ""));
    let _node = cluster.node("a");
    let many = lines((0..900).map(|n| format!("x{}", "y".repeat(n * 7 % 97))));
    for chain in ["all", "times", "none"] {
        let packed =
            ["feed", chain, "--format", "lines", "--pack-items", "900", "--pack-bytes", "1MiB", "--pack-wait", "1s"];
        cluster.run_with_input(&packed, &many).succeeded();
        cluster.ok(&["wait", chain]);
    }
    for chain in ["all", "times"] {
        for message in client.messages_of(&format!("PCLUSTER_{chain}_OUT"), &format!("pcluster.{chain}.out")) {
            assert!(message.header("Pcluster-Steps").len() <= 4_096);
        }
        for result in with_meta(&cluster, chain) {
            assert_in_order(&result);
            assert_eq!(each(&result, "stage"), ["echo", "obey"]);
            assert_eq!(steps(&result)[1]["bytes_in"].is_u64(), chain == "all");
        }
    }
    assert!(with_meta(&cluster, "none").iter().all(|result| result["record"].is_null()));
    for message in client.all_items("PCLUSTER_none_OUT") {
        assert!(!message.headers.contains_key("Pcluster-Steps"), "{message:?}");
    }
    // What a feeder writes there means nothing.
    for steps in ["AA", "oWFiAA", &"A".repeat(5_000)] {
        client.publish("pcluster.times.in", &[("Pcluster-Steps", steps)], b"\x61x".to_vec()).unwrap();
    }
    let foreign = with_meta(&cluster, "times");
    assert_eq!(foreign.len(), 3);
    assert!(foreign.iter().all(|result| result["record"]["fed"].is_string() && steps(result).len() == 2));
}

#[test]
fn failed_attempts_are_steps_of_results_and_of_dead_letters() {
    let cluster = Cluster::start();
    let retry = "retry = { attempts = 3, backoff = [\"10ms\"] }";
    cluster.deploy(&recording("all", &probe_chain("failing", &["obey"], retry)));
    let _node = cluster.node("a");
    cluster.ok(&["feed", "failing", "\"flaky 2 a\"", "\"fatal\"", "\"fail\"", "\"plain\""]);
    cluster.ok(&["wait", "failing"]);
    let shown = cluster.run(&["pull", "failing", "--all", "--meta", "--summary"]);
    assert!(shown.stderr.contains("STAGE") && shown.stderr.contains("obey"), "{}", shown.stderr);
    let results = json_lines(&shown.succeeded());
    assert_eq!(results.len(), 2);
    let flaky = results.iter().find(|result| result["item"] == "flaky 2 a").unwrap();
    assert_in_order(flaky);
    assert_eq!(each(flaky, "attempt"), [1, 2, 3]);
    assert_eq!(each(flaky, "failure"), [json!("error"), json!("error"), Value::Null]);
    assert_eq!(each(flaky, "lines"), [json!(["runs flaky 2 a"]), json!(["runs flaky 2 a"]), Value::Null]);
    let queued = each(flaky, "queued");
    assert!(queued.iter().all(|time| time.is_string() && *time == queued[0]), "it waits since it was queued: {flaky}");
    let letters = json_lines(&cluster.ok(&["dead", "ls", "failing", "--json"]));
    let letter = |item: &str| letters.iter().find(|letter| letter["item"] == item).unwrap();
    assert_eq!((steps(letter("fatal")).len(), steps(letter("fail")).len()), (1, 3));
    assert_eq!(each(letter("fail"), "failure"), ["error", "error", "error"]);
    assert_eq!((&letter("fail")["record"]["hops"], &letter("fail")["failure"]), (&json!(1), &json!("error")));
    let shown = cluster.ok(&["dead", "show", "failing", "--all"]);
    assert!(shown.contains("  steps:\n    obey 1.0 (r1), node a, attempt 1: waited "), "{shown}");
    assert!(shown.contains("failed: error\n       runs fatal\n"), "{shown}");
    let summary = json_lines(&cluster.ok(&["dead", "ls", "failing", "--summary", "--json"]));
    assert_eq!(
        (&summary[0]["stage"], &summary[0]["steps"], &summary[0]["failed"]),
        (&json!("obey"), &json!(4), &json!(4))
    );
    assert!(summary[0]["wait_ms"]["p90"].is_number() && summary[0]["run_ms"]["max"].is_number(), "{summary:?}");
    assert!(cluster.ok(&["dead", "ls", "failing", "--summary"]).contains("WAIT p50"));
    // A retried letter goes on with its record.
    cluster.ok(&["dead", "retry", "failing", &letter("fatal")["number"].to_string()]);
    cluster.ok(&["wait", "failing"]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "failing", "--json"]));
    let again = letters.iter().find(|letter| letter["item"] == "fatal").unwrap();
    assert_eq!(each(again, "attempt"), [1, 1]);
    assert!(steps(again)[0]["queued"].as_str() < steps(again)[1]["queued"].as_str(), "{again}");
}

#[test]
fn a_step_names_the_node_that_ended_it_and_counts_the_attempts_of_those_that_died() {
    let cluster = Cluster::start();
    let manifest = "[results]\nrecords = \"times\"\n[queue]\nack_wait = \"1s\"";
    cluster.deploy(&with_table(manifest, &probe_chain("lost", &["obey"], "")));
    let mut first = cluster.node("first");
    cluster.ok(&["feed", "lost", "\"sleep 2000\""]);
    cluster.until_begun("lost", 0, 1);
    first.signal("KILL");
    first.ended();
    let _second = cluster.node("second");
    let results = with_meta(&cluster, "lost");
    assert_eq!(results.len(), 1);
    assert_eq!((each(&results[0], "node"), each(&results[0], "attempt")), (vec![json!("second")], vec![json!(2)]));
    assert!(results[0]["record"]["fed"].is_string(), "{}", results[0]);
}

#[test]
fn a_step_tells_the_exit_status_of_its_program_and_the_time_of_its_calls() {
    let cluster = Cluster::start();
    let script = "read x; echo said >&2; echo $x; exit $x";
    let manifest = format!(
        "name = \"exits\"\nversion = \"1\"\n[[stage]]\nname = \"run\"\nexec = [\"sh\", \"-c\", {script:?}]\n\
         retry = {{ attempts = 1 }}\n"
    );
    cluster.deploy(&recording("all", &manifest));
    let node = Process::start(cluster.command(&["node", "--name", "a", "--allow-exec", "sh"]));
    node.said("ready: serving");
    cluster.ok(&["feed", "exits", "0", "3"]);
    cluster.ok(&["wait", "exits"]);
    assert_eq!(each(&with_meta(&cluster, "exits")[0], "exit"), [0]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "exits", "--json"]));
    assert_eq!((each(&letters[0], "exit"), each(&letters[0], "lines")), (vec![json!(3)], vec![json!(["said"])]));

    let world = World::start(&cluster, |_| Reply::new(200, "hello"));
    cluster.deploy(&recording("all", &world.chain("world", "ask", "")));
    let _open = world.node(&cluster, "open");
    let ask = json!({ "do": [world.get("/")] }).to_string();
    cluster.ok(&["feed", "world", &ask]);
    let results = with_meta(&cluster, "world");
    let step = &steps(&results[0])[0];
    let (calls, ran) = (step["calls_ms"].as_f64().unwrap(), step["run_ms"].as_f64().unwrap());
    assert!(0.0 < calls && calls <= ran, "{step}");
}

#[test]
fn headers_of_a_feeder_come_back_within_a_bound() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("tagged", &["echo", "obey"], "retry = { attempts = 1 }"));
    let _node = cluster.node("a");
    let long = "v".repeat(4_000);
    let tags = ["-H", "X-Customer=ada", "--header", "tag=a=b", "-H", &format!("long={long}")];
    cluster.ok(&[&["feed", "tagged", "\"one\"", "\"fatal\""][..], &tags].concat());
    cluster.ok(&["wait", "tagged"]);
    let expected = json!({ "X-Customer": "ada", "tag": "a=b", "long": long });
    assert_eq!(with_meta(&cluster, "tagged")[0]["headers"], expected);
    assert_eq!(json_lines(&cluster.ok(&["dead", "ls", "tagged", "--json"]))[0]["headers"], expected);
    let large = format!("X={}", "v".repeat(4_096));
    for (header, says) in [
        ("no-value", "write a header as in `-H customer=ada`"),
        ("Nats-Msg-Id=7", "`Nats-Msg-Id` is not a feeder's"),
        ("pcluster-fed=7", "`pcluster-fed` is not a feeder's"),
        ("a b=7", "is not the name of a header"),
        ("a=", "the value of the header `a`"),
        ("a=b\nc", "the value of the header `a`"),
        (&large, "the headers have 4097 bytes, and 4096 is the most"),
    ] {
        let refused = cluster.run(&["feed", "tagged", "\"two\"", "-H", header]);
        assert_refused(&refused, 2, &[says]);
    }
    assert_eq!(NatsClient::connect(&cluster).items_now("PCLUSTER_tagged_OUT"), 1, "nothing else was fed");
}

#[test]
fn records_are_off_or_one_of_two() {
    let cluster = Cluster::start();
    let deploy = |records: &str, name: &str| {
        let manifest = with_table(&format!("[results]\nrecords = {records}"), &probe_chain(name, &["echo"], ""));
        let file = cluster.file("chosen.toml", manifest);
        cluster.run(&["deploy", file.to_str().unwrap()])
    };
    let refused =
        [("true", "`true` is none of its values"), ("\"some\"", "`some` is none of its values"), ("7", "`records`: ")];
    for (records, says) in refused {
        assert_refused(&deploy(records, "chosen"), 1, &[says, "write `false`, \"times\" or \"all\""]);
    }
    for (records, name) in [("false", "off"), ("\"times\"", "times"), ("\"all\"", "all")] {
        deploy(records, name).succeeded();
    }
}
