//! Large items as clients feed, pull, watch and fetch them, and what stays of them.

use std::collections::BTreeSet;
use std::fs;

use async_nats::jetstream::object_store::ObjectInfo;
use serde_json::{Value, json};
use support::{Cluster, Message, NatsClient, eventually, json_lines, probe_chain, with_table};

/// The object store of the chain in these tests.
const STORE: &str = "pcluster_large_big";
/// Its stream.
const STREAM: &str = "OBJ_pcluster_large_big";
const WORK: &str = "PCLUSTER_big";
const OUT: &str = "PCLUSTER_big_OUT";

/// A cluster with a chain whose items are large from 1 KiB on, and no node.
fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.deploy(&with_table("[queue]\nlarge = \"1KiB\"", &probe_chain("big", &["echo"], "")));
    cluster
}

/// Bytes that are no text, and differ from place to place.
fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at.wrapping_mul(31) >> 3) % 251).unwrap() ^ seed).collect()
}

/// Returns the objects of the store.
fn objects(client: &NatsClient) -> Vec<ObjectInfo> {
    use futures_util::TryStreamExt;

    client.with(async |jetstream| match jetstream.get_object_store(STORE).await {
        Ok(store) => store.list().await.unwrap().try_collect().await.unwrap(),
        Err(_) => Vec::new(),
    })
}

/// Returns the messages of the queues. A consumer would take them.
fn queued(client: &NatsClient) -> Vec<Message> {
    use async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound;

    client.read(&async |jetstream| {
        let stream = jetstream.get_stream(WORK).await?;
        let mut messages = Vec::new();
        for place in 1..=stream.cached_info().state.last_sequence {
            let stored = match stream.get_raw_message(place).await {
                Err(error) if error.kind() == NoMessageFound => continue,
                stored => stored?,
            };
            let headers = stored.headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string()));
            let (subject, payload) = (stored.subject.to_string(), stored.payload);
            messages.push(Message { subject, headers: headers.collect(), payload });
        }
        Ok(messages)
    })
}

/// Returns the reference that a message of one item is.
fn reference(message: &Message) -> Value {
    ciborium::from_reader(&message.payload[..]).unwrap()
}

/// Returns the holders of all objects, by their subjects.
fn holders(client: &NatsClient) -> BTreeSet<String> {
    let subjects = client.by_subject(STREAM).into_keys();
    let holder = |subject: String| Some(subject.split_once(".R.")?.1.rsplit_once('.')?.1.to_owned());
    subjects.filter_map(holder).collect()
}

/// Stores a result with large items, as any client can, and returns the names of their objects.
fn store_result(client: &NatsClient, place: u64, id: &str, items: &[(&str, &[u8])]) -> Vec<String> {
    let mut payload = Vec::new();
    let mut names = Vec::new();
    for (position, (form, content)) in items.iter().enumerate() {
        let name = format!("object-{place}-{position}");
        let digest = client.with(async |jetstream| {
            let store = jetstream.get_object_store(STORE).await.unwrap();
            store.put(name.as_str(), &mut &content[..]).await.unwrap().digest.unwrap()
        });
        let reference = json!({ "name": name, "size": content.len(), "digest": digest, "form": form });
        ciborium::into_writer(&reference, &mut payload).unwrap();
        client.publish(&format!("$O.{STORE}.R.{name}.out-{place}"), &[], Vec::new()).unwrap();
        names.push(name);
    }
    let positions: Vec<String> = (0..items.len()).map(|position| position.to_string()).collect();
    let (id, large, index) = (id.replace('.', "%2E"), positions.join(","), vec!["0"; items.len()].join(","));
    let headers = [("Pcluster-Id", &*id), ("Pcluster-Large", &large), ("Pcluster-Index", &index)];
    client.publish("pcluster.big.out", &headers, payload).unwrap();
    names
}

/// Makes the object store, as the first large item does.
fn make_store(cluster: &Cluster) {
    cluster.run_with_input(&["feed", "big", "--format", "bytes"], noise(2_000, 0)).succeeded();
}

#[test]
fn a_fed_file_is_beside_the_queue_and_its_message_alone_holds_it() {
    let (cluster, content) = (cluster(), noise(3_000_000, 1));
    let client = NatsClient::connect(&cluster);
    cluster.file("scan", &content);
    let fed = cluster.run(&["feed", "big", "-f", "scan", "--format", "bytes", "--id", "a"]);
    assert!(fed.stderr.contains("fed 1 item in "), "{}", fed.stderr);
    let message = &queued(&client)[0];
    assert_eq!(message.header("Pcluster-Large"), "0");
    let reference = reference(message);
    assert_eq!((&reference["size"], &reference["form"]), (&json!(content.len()), &json!("bytes")));
    let found = objects(&client);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].name, found[0].size), (&reference["name"].as_str().unwrap().to_owned(), content.len()));
    let read = client.with(async |jetstream| {
        let mut object = jetstream.get_object_store(STORE).await.unwrap().get(&found[0].name).await.unwrap();
        let mut read = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut object, &mut read).await.unwrap();
        read
    });
    assert!(read == content, "other object stores read it");
    assert_eq!(holders(&client), BTreeSet::from(["work-1".to_owned()]));

    // The chain has it already: what was stored of the second goes.
    let again = cluster.run(&["feed", "big", "-f", "scan", "--format", "bytes", "--id", "a"]);
    assert!(again.stderr.contains("fed before under the same id"), "{}", again.stderr);
    assert_eq!((objects(&client).len(), client.count(WORK)), (1, 1));
    assert_eq!(holders(&client), BTreeSet::from(["work-1".to_owned()]));

    // By name or by reference, to a file or to standard output.
    let name = reference["name"].as_str().unwrap();
    cluster.ok(&["get", "big", name, "-o", "copy"]);
    assert!(fs::read(cluster.path("copy")).unwrap() == content);
    cluster.run(&["get", "big", name, "-o", "copy"]).failed(1, "`copy` already, and it is not overwritten");
    cluster.run(&["get", "big", "nothing"]).failed(4, "does not have the large item nothing");
    let mut wrong = reference.clone();
    wrong["size"] = json!(7);
    cluster.run(&["get", "big", &wrong.to_string()]).failed(1, "the reference says 7");
    cluster.run(&["get", "big", "{}"]).failed(2, "this is no reference to a large item");
    assert_eq!(holders(&client), BTreeSet::from(["work-1".to_owned()]), "who reads holds it no longer");
}

#[test]
fn items_on_both_sides_of_the_threshold_share_a_queue() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    let lines: Vec<String> = [10, 2_000, 10, 1_021, 1_022].map(|length| "x".repeat(length)).into();
    cluster.run_with_input(&["feed", "big", "--format", "lines"], lines.join("\n")).succeeded();
    // A head of three bytes counts: 1,022 characters are 1,025 bytes.
    let messages = queued(&client);
    let is_large = |message: &&Message| message.headers.contains_key("Pcluster-Large");
    assert_eq!(messages.iter().filter(is_large).count(), 2);
    assert_eq!(objects(&client).len(), 2);
    for (input, format, said) in [
        (&b"ab\xffcd"[..], "text", "not UTF-8 after byte 2; feed it with --format bytes"),
        (&[&b"x".repeat(2_000_000)[..], b"\xff"].concat()[..], "text", "not UTF-8 after byte 2000000"),
    ] {
        cluster.run_with_input(&["feed", "big", "--format", format], input).failed(1, said);
    }
    assert_eq!(queued(&client).len(), messages.len(), "nothing of them was fed");
}

#[test]
fn what_is_too_large_is_refused_with_both_sizes() {
    let cluster = cluster();
    let file = fs::File::create(cluster.path("huge")).unwrap();
    file.set_len((1 << 30) + 1).unwrap();
    cluster
        .run(&["feed", "big", "-f", "huge", "--format", "bytes"])
        .failed(1, "it has 1073741825 bytes; a byte string has at most 1073741824 bytes");
    file.set_len((64 << 20) + 1).unwrap();
    cluster.run(&["feed", "big", "-f", "huge", "--format", "lines"]).failed(1, "an item of more than 67108864 bytes");
    assert_eq!(NatsClient::connect(&cluster).count(WORK), 0);
}

#[test]
fn a_large_result_is_printed_like_any_other_and_goes_once_it_is_taken() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    make_store(&cluster);
    let text = "größe\n".repeat(1_000);
    let mut map = Vec::new();
    ciborium::into_writer(&json!({ "a": [1, 2] }), &mut map).unwrap();
    store_result(&client, 1, "one", &[("text", text.as_bytes())]);
    store_result(&client, 2, "two", &[("cbor", &map), ("bytes", b"abc")]);
    let refs = json_lines(&cluster.ok(&["pull", "big", "--refs"]));
    let ids: Vec<&Value> = refs.iter().map(|reference| &reference["id"]).collect();
    assert_eq!(ids, ["one", "two", "two"]);
    assert_eq!(cluster.ok(&["pull", "big", "--refs", "-n", "1"]).lines().count(), 1);
    assert_eq!(cluster.ok(&["get", "big", &refs[0].to_string()]), text);
    assert_eq!(cluster.ok(&["get", "big", &refs[1].to_string()]), "{\"a\":[1,2]}\n");
    let watched = json_lines(&cluster.ok(&["watch", "big", "--all", "-n", "3"]));
    assert_eq!(watched, [json!(text), json!({ "a": [1, 2] }), json!("YWJj")]);
    assert_eq!(objects(&client).len(), 4, "nothing of that took anything");

    let pulled = cluster.run(&["pull", "big", "-n", "2"]);
    assert!(
        pulled.stderr.contains("`pcluster pull big --output DIR` saves each result as a file"),
        "{}",
        pulled.stderr
    );
    assert_eq!(json_lines(&pulled.succeeded()), watched[..2]);
    // Of the second message one result is put back, with its reference.
    let left = &client.messages(OUT, 1)[0];
    assert_eq!((left.header("Pcluster-Large"), left.header("Pcluster-Again")), ("0", "1"));
    assert_eq!(holders(&client), BTreeSet::from(["work-1".to_owned(), "out-3".to_owned()]));
    assert_eq!(json_lines(&cluster.ok(&["pull", "big", "-t", "0", "-n", "1", "--meta"]))[0]["item"], "YWJj");
    assert_eq!((client.count(OUT), objects(&client).len()), (0, 1));
    assert_eq!(holders(&client), BTreeSet::from(["work-1".to_owned()]));
}

#[test]
fn a_result_without_its_bytes_is_told_taken_and_in_nobodys_way() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    make_store(&cluster);
    let names = store_result(&client, 1, "lost", &[("bytes", &noise(400_000, 2))]);
    store_result(&client, 2, "there", &[("text", b"here")]);
    client.with(async |jetstream| {
        let stream = jetstream.get_stream(STREAM).await.unwrap();
        let info = jetstream.get_object_store(STORE).await.unwrap().info(names[0].as_str()).await.unwrap();
        stream.purge().filter(format!("$O.{STORE}.C.{}", info.nuid)).await.unwrap();
    });
    let pulled = cluster.run(&["pull", "big", "-n", "2"]);
    assert_eq!(pulled.stdout, "\"here\"\n");
    pulled.failed(1, "the result of item lost is lost, and taken without its bytes: chain `big` does not have");
    assert_eq!(client.count(OUT), 0);
}

#[test]
fn each_result_is_a_file_and_none_overwrites_another() {
    let cluster = cluster();
    cluster.file("taken", "");
    cluster.run(&["pull", "big", "--output", "taken"]).failed(1, "it is no folder; name one");
    let client = NatsClient::connect(&cluster);
    make_store(&cluster);
    let content = noise(700_000, 3);
    store_result(&client, 1, "../x/.y", &[("bytes", &content), ("text", b"same id")]);
    let mut small = Vec::new();
    ciborium::into_writer(&json!({ "a": 1 }), &mut small).unwrap();
    client.publish("pcluster.big.out", &[("Pcluster-Id", "small")], small).unwrap();
    let printed = cluster.ok(&["pull", "big", "-n", "3", "--output", "results"]);
    let folder = cluster.path("results");
    let mut paths: Vec<&str> = printed.lines().collect();
    paths.sort_unstable();
    assert_eq!(paths, ["results/%2E.%2Fx%2F.y", "results/%2E.%2Fx%2F.y~2", "results/small"]);
    let [first, second] = ["%2E.%2Fx%2F.y", "%2E.%2Fx%2F.y~2"].map(|name| fs::read(folder.join(name)).unwrap());
    assert!(first == content && second == b"same id" || second == content && first == b"same id");
    assert_eq!(fs::read_to_string(folder.join("small")).unwrap(), "{\"a\":1}\n");
    assert_eq!((fs::read_dir(&folder).unwrap().count(), objects(&client).len()), (3, 1));

    client.publish("pcluster.big.out", &[("Pcluster-Id", "small")], b"\x01".to_vec()).unwrap();
    let told = json_lines(&cluster.ok(&["pull", "big", "-n", "1", "-o", "results", "--json"]));
    assert_eq!(told, [json!({ "id": "small", "file": "results/small~2" })]);
    cluster.run(&["pull", "big", "-t", "0", "-o", "new/results"]).failed(3, "no result");
    cluster.file("plain", "");
    cluster.run(&["pull", "big", "-t", "0", "-o", "plain"]).failed(1, "cannot save results in `plain`");
}

#[test]
fn a_result_that_finds_no_room_on_the_disk_goes_back() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    make_store(&cluster);
    let content = noise(600_000, 4);
    store_result(&client, 1, "a", &[("bytes", &content)]);
    // No file of this process may be larger.
    let mut command = std::process::Command::new("bash");
    let pcluster = cluster.command(&["pull", "big", "-n", "1", "-o", "results"]);
    let script = "ulimit -f 100; trap '' XFSZ; exec \"$0\" \"$@\"";
    command.arg("-c").arg(script).arg(pcluster.get_program()).args(pcluster.get_args());
    command.current_dir(pcluster.get_current_dir().unwrap());
    command.envs(pcluster.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = support::Run::of(command, b"");
    assert!(run.stderr.contains("cannot save the result of item a in `results`: "), "{}", run.stderr);
    run.failed(1, "it was given back");
    assert_eq!(fs::read_dir(cluster.path("results")).unwrap().count(), 0);
    cluster.ok(&["pull", "big", "-n", "1", "-o", "results"]);
    assert!(fs::read(cluster.path("results/a")).unwrap() == content);
}

#[test]
fn a_letter_with_a_large_item_is_shown_retried_and_dropped_with_it() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    make_store(&cluster);
    let item = queued(&client)[0].clone();
    for id in ["a", "b"] {
        let headers = [
            ("Pcluster-Id", id),
            ("Pcluster-Large", "0"),
            ("Pcluster-Chain", "big"),
            ("Pcluster-Revision", "1"),
            ("Pcluster-Stage", "echo"),
            ("Pcluster-Failure", "error"),
            ("Pcluster-Reason", "no"),
        ];
        client.publish("pcluster.big.dead.echo", &headers, item.payload.clone()).unwrap();
    }
    let large = reference(&item);
    let name = large["name"].as_str().unwrap();
    for place in [1, 2] {
        client.publish(&format!("$O.{STORE}.R.{name}.dead-{place}"), &[], Vec::new()).unwrap();
    }
    let letter = &json_lines(&cluster.ok(&["dead", "ls", "big", "--json"]))[0];
    assert_eq!((&letter["large"], &letter["item"]), (&large, &Value::Null));
    assert!(cluster.ok(&["dead", "show", "big", "1"]).contains(&format!("`pcluster get big {name}` fetches it")));
    cluster.ok(&["dead", "retry", "big", "1"]);
    let requeued = &queued(&client)[1];
    assert_eq!((requeued.header("Pcluster-Large"), reference(requeued)), ("0", large.clone()));
    let expected = ["dead-2", "work-1", "work-2"].map(str::to_owned);
    assert_eq!(holders(&client), BTreeSet::from(expected));
    assert_eq!(cluster.ok(&["dead", "drop", "big", "--all"]), "1 dead letter dropped\n");
    assert_eq!(holders(&client), BTreeSet::from(["work-1", "work-2"].map(str::to_owned)));
    assert_eq!(objects(&client).len(), 1);
}

#[test]
fn a_feeder_waits_for_the_server_and_a_killed_one_leaves_only_what_its_lease_holds() {
    let mut cluster = cluster();
    let content = noise(40_000_000, 5);
    cluster.file("scan", &content);
    let mut feed = cluster.spawn(&["feed", "big", "-f", "scan", "--format", "bytes"]);
    let client = NatsClient::connect(&cluster);
    eventually("some of it is stored", || (client.by_subject(STREAM).len() > 1).then_some(()));
    cluster.server.restart();
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    let client = NatsClient::connect(&cluster);
    assert_eq!(objects(&client).iter().map(|object| object.size).collect::<Vec<_>>(), [content.len()]);
    assert_eq!(holders(&client), BTreeSet::from(["work-1".to_owned()]));

    let mut killed = cluster.spawn(&["feed", "big", "-f", "scan", "--format", "bytes"]);
    eventually("the next has begun", || {
        holders(&client).iter().any(|holder| holder.starts_with("lease-")).then_some(())
    });
    killed.signal("KILL");
    killed.ended();
    assert!(client.count(WORK) == 1 || objects(&client).len() == 2, "what is not fed has no message");
}

#[test]
fn large_items_go_through_a_chain_into_files_and_leave_nothing() {
    let cluster = cluster();
    let client = NatsClient::connect(&cluster);
    let _node = cluster.node("a");
    let content = noise(3_000_000, 6);
    cluster.file("scan", &content);
    cluster.ok(&["feed", "big", "-f", "scan", "--format", "bytes", "--id", "scan"]);
    let text = "größe ".repeat(400);
    cluster.ok(&["feed", "big", &text, "--id", "text", "--topic", "t"]);
    cluster.ok(&["feed", "big", "7", "--id", "small"]);
    let topic = json_lines(&cluster.ok(&["pull", "big", "--topic", "t", "-n", "1"]));
    assert_eq!(topic, [json!(text)], "a topic waits for it beside all others");
    let printed = cluster.ok(&["pull", "big", "--all", "--output", "results"]);
    assert_eq!(printed.lines().count(), 3);
    let saved = |name: &str| fs::read(cluster.path("results").join(name)).unwrap();
    assert!(saved("scan") == content && saved("text") == text.as_bytes() && saved("small") == b"7\n");
    eventually("nothing is left", || (objects(&client).is_empty() && holders(&client).is_empty()).then_some(()));
}
