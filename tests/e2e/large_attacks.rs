//! Large items under hostile clients and bad luck: objects that are no item, files that change, stores that are deleted.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use support::{Cluster, NatsClient, Run, eventually, json_lines, probe_chain, with_table};

/// Bytes that are no item of their own, or more than one, and what is said of them.
const NO_ITEMS: [(&str, &[u8], &str); 6] = [
    ("two", b"\x61a\x61b", "not well-formed CBOR at byte 2"),
    ("trailing", b"\x61a\xff", "not well-formed CBOR at byte 2"),
    ("cut-off", b"\x82\x01", "is cut off"),
    ("liar", b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "is cut off"),
    ("not-utf8", b"\x62\xff\xff", "not UTF-8"),
    ("nothing", b"", "the payload is empty"),
];

/// The stage of a program that gets items as JSON.
const PROGRAM: &str = "name = \"cat\"\nexec = [\"cat\"]\ninput = \"json\"\noutput = \"json\"\n";

/// A cluster with a chain whose items are large from 1 KiB on, and whose stage runs a program.
fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.deploy(&format!("name = \"json\"\nversion = \"1\"\n[queue]\nlarge = \"1KiB\"\n[[stage]]\n{PROGRAM}"));
    cluster
}

/// Stores an object as any client can, and returns the reference to it.
fn put(client: &NatsClient, chain: &str, name: &str, content: &[u8]) -> Value {
    let digest = client.with(async |jetstream| {
        let store = jetstream.get_object_store(format!("pcluster_large_{chain}")).await.unwrap();
        store.put(name, &mut &content[..]).await.unwrap().digest.unwrap()
    });
    json!({ "name": name, "size": content.len(), "digest": digest, "form": "cbor" })
}

/// Publishes the reference to an object.
fn publish(client: &NatsClient, subject: &str, id: &str, reference: &Value) {
    let mut payload = Vec::new();
    ciborium::into_writer(reference, &mut payload).unwrap();
    let headers = [("Nats-Msg-Id", id), ("Pcluster-Id", id), ("Pcluster-Large", "0")];
    client.publish(subject, &headers, payload).unwrap();
}

/// Feeds a byte string that goes to the object store.
fn feed(cluster: &Cluster, chain: &str, id: &str, size: usize) {
    cluster.run_with_input(&["feed", chain, "--format", "bytes", "--id", id], vec![7; size]).succeeded();
}

/// Returns the parts of the subjects in a chain's store that begin with this.
fn stored(client: &NatsClient, chain: &str, part: &str) -> Vec<String> {
    let subjects = client.by_subject(&format!("OBJ_pcluster_large_{chain}")).into_keys();
    subjects.filter_map(|subject| Some(subject.split_once(part)?.1.to_owned())).collect()
}

/// Runs a command in the folder of a cluster with a variable.
fn run_with(cluster: &Cluster, arguments: &[&str], variable: (&str, &str)) -> Run {
    let mut command: Command = cluster.command(arguments);
    command.env(variable.0, variable.1);
    Run::of(command, b"")
}

#[test]
fn an_object_that_is_not_exactly_one_item_is_a_dead_letter_that_says_why() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    feed(&cluster, "json", "good", 2_000);
    let deep = [vec![0x81; 300_000], vec![1]].concat();
    let bad: Vec<(&str, &[u8], &str)> = NO_ITEMS.into_iter().chain([("deep", &deep[..], "nests deeper")]).collect();
    for (name, content, _) in &bad {
        publish(&client, "pcluster.json.in", name, &put(&client, "json", name, content));
    }
    let _node = cluster.node_with("a", &["--allow-exec", "cat"]);
    cluster.ok(&["wait", "json"]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "json", "--json"]));
    for (name, _, said) in &bad {
        let letter = letters.iter().find(|letter| letter["id"] == *name).unwrap_or_else(|| panic!("{name} is lost"));
        let reason = letter["reason"].as_str().unwrap();
        assert!(reason.starts_with("the item cannot be read: ") && reason.contains(said), "{name}: {reason}");
        assert_eq!(letter["attempts"], 1, "{name}: the same would happen again");
    }
    assert_eq!(letters.len(), bad.len());
    cluster.ok(&["pull", "json", "-n", "1", "--output", "out"]);
    assert!(cluster.path("out/good").exists());

    // As results, too, none is shown in part.
    for (name, content, _) in &bad {
        publish(&client, "pcluster.json.out", name, &put(&client, "json", &format!("result-{name}"), content));
    }
    let pulled = cluster.run(&["pull", "json", "-n", &bad.len().to_string()]);
    assert_eq!((pulled.code, &*pulled.stdout), (Some(1), ""), "{}", pulled.stderr);
    for (name, ..) in &bad {
        assert!(pulled.stderr.contains(&format!("the result of item {name} is lost")), "{}", pulled.stderr);
    }
}

#[test]
fn a_store_that_is_deleted_under_load_takes_no_item_without_a_word() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&with_table(
        "[queue]\nlarge = \"1KiB\"",
        &probe_chain("gone", &["first", "second"], "task = \"echo\""),
    ));
    let _node = cluster.node("a");
    let ids: Vec<String> = (0..24).map(|number| format!("item-{number}")).collect();
    for (number, id) in ids.iter().enumerate() {
        feed(&cluster, "gone", id, 300_000);
        if number % 6 == 3 {
            client.with(async |jetstream| jetstream.delete_stream("OBJ_pcluster_large_gone").await.unwrap());
        }
    }
    cluster.ok(&["wait", "gone"]);
    let letters = json_lines(&cluster.ok(&["dead", "ls", "gone", "--json"]));
    let pulled = cluster.run(&["pull", "gone", "--all", "--output", "out"]);
    let saved = fs::read_dir(cluster.path("out")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = BTreeSet::new();
    for path in saved {
        assert!(fs::read(&path).unwrap() == vec![7; 300_000], "{}", path.display());
        found.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    for letter in &letters {
        assert!(letter["reason"].as_str().unwrap().contains("does not have the large item"), "{letter}");
        found.insert(letter["id"].as_str().unwrap().to_owned());
    }
    let is_told = |id: &&String| pulled.stderr.contains(&format!("the result of item {id} is lost"));
    found.extend(ids.iter().filter(is_told).cloned());
    assert_eq!(found, ids.into_iter().collect(), "{}", pulled.stderr);
    cluster.ok(&["dead", "drop", "gone", "--all"]);
    eventually("nothing is left", || stored(&client, "gone", ".C.").is_empty().then_some(()));
}

#[test]
fn a_file_that_becomes_shorter_while_it_waits_is_named() {
    let cluster = Cluster::start();
    let queue = "[queue]\nlarge = \"1KiB\"\nlarge_bytes = \"4MiB\"";
    cluster.deploy(&with_table(queue, &probe_chain("short", &["echo"], "")));
    feed(&cluster, "short", "first", 2_500_000);
    let file = cluster.file("log", vec![1; 1_500_000]);
    let mut feeder = cluster.spawn(&["feed", "short", "-f", "log", "--format", "bytes"]);
    feeder.said("waiting: large items take");
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(100_000).unwrap();
    let _node = cluster.node("a");
    cluster.ok(&["pull", "short", "-n", "1", "--output", "out"]);
    feeder.said("error: `log`: cannot read the file of an item: it has become shorter while it was fed");
    assert_eq!(feeder.ended(), Some(1));
    cluster.ok(&["wait", "short"]);
    assert_eq!(cluster.status("short")["result_messages"], 0);
}

#[test]
fn a_feeder_that_is_interrupted_or_fails_leaves_nothing_of_what_it_was_storing() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    feed(&cluster, "json", "first", 2_000);
    let before = client.by_subject("OBJ_pcluster_large_json");
    for (is_cut, code) in [(false, 130), (true, 1)] {
        let sparse = fs::File::create(cluster.path("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let mut feeder = cluster.spawn(&["feed", "json", "-f", "sparse", "--format", "bytes"]);
        eventually("a part is stored", || (stored(&client, "json", ".C.").len() > 1).then_some(()));
        if is_cut {
            sparse.set_len(0).unwrap();
        } else {
            feeder.signal("INT");
        }
        assert_eq!(feeder.ended(), Some(code), "{}", feeder.stderr());
        assert_eq!(client.by_subject("OBJ_pcluster_large_json"), before);
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_by_get() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    feed(&cluster, "json", "good", 2_000);
    let name = stored(&client, "json", ".C.").remove(0);
    let nowhere = cluster.path("nowhere");
    let printed = run_with(&cluster, &["get", "json", &name], ("TMPDIR", nowhere.to_str().unwrap()));
    printed.failed(1, &format!("cannot write a file in `{}`, which TMPDIR names", nowhere.display()));
    cluster.run(&["get", "json", &name, "-o", "nowhere/x"]).failed(1, "cannot write `nowhere/x`");
    cluster.ok(&["get", "json", &name, "-o", "x"]);
    assert_eq!(fs::read(cluster.path("x")).unwrap(), vec![7; 2_000]);
}

#[test]
fn pullers_and_ids_that_share_a_folder_share_no_file() {
    let cluster = Cluster::start();
    cluster.deploy(&with_table("[queue]\nlarge = \"1KiB\"", &probe_chain("share", &["echo"], "")));
    let _node = cluster.node("a");
    // Encoded and cut, these names are the same up to what tells them apart.
    let (slashes, encoded) = ("/".repeat(100), "%2F".repeat(100));
    let long = |end: char| format!("{}{end}", "ü".repeat(150));
    let odd = [slashes, encoded, long('a'), long('b'), "..".to_owned(), "../../x".to_owned(), ".hidden".to_owned()];
    let ids: Vec<String> = odd.into_iter().chain((0..20).map(|number| format!("item#{number}"))).collect();
    for (number, id) in ids.iter().enumerate() {
        let content = vec![u8::try_from(number).unwrap(); 3_000];
        cluster.run_with_input(&["feed", "share", "--format", "bytes", "--id", id], content).succeeded();
    }
    cluster.ok(&["wait", "share"]);
    let mut pullers: Vec<_> = (0..2).map(|_| cluster.spawn(&["pull", "share", "--all", "--output", "out"])).collect();
    assert!(pullers.iter_mut().all(|puller| puller.ended() == Some(0)));
    let files: Vec<_> = fs::read_dir(cluster.path("out")).unwrap().map(|entry| entry.unwrap()).collect();
    let contents: BTreeSet<Vec<u8>> = files.iter().map(|file| fs::read(file.path()).unwrap()).collect();
    assert_eq!((files.len(), contents.len()), (ids.len(), ids.len()));
    for file in files {
        let name = file.file_name().into_string().unwrap();
        assert!(name.len() <= 200 && !name.starts_with('.'), "{name}");
    }
}
