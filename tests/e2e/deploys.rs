//! A deploy changes nothing that it should not: a successful one keeps all messages, a failed one changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::stream::Config;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use support::{Cluster, NatsClient, Process, Server, assert_refused, eventually, lines, plugin, with_table};

/// A chain with one stage that gives what it gets; `rest` is added to the stage.
pub fn chain(name: &str, version: &str, tables: &str, rest: &str) -> String {
    let plugin = plugin("probe");
    let stage = format!("[[stage]]\nname = \"echo\"\nplugin = \"{plugin}\"\n{rest}\n");
    with_table(tables, &format!("name = \"{name}\"\nversion = \"{version}\"\n{stage}"))
}

pub fn config(client: &NatsClient, stream: &str) -> Config {
    client.with(async |jetstream| jetstream.get_stream(stream).await.unwrap().cached_info().config.clone())
}

/// The names of all streams, sorted.
pub fn streams(client: &NatsClient) -> Vec<String> {
    let mut names: Vec<String> = client.with(async |jetstream| jetstream.stream_names().try_collect().await.unwrap());
    names.sort();
    names
}

/// The entries of the registry about a chain, but for what removed ones leave.
pub fn entries(client: &NatsClient, chain: &str) -> BTreeMap<String, Value> {
    let keys = client.with(async |jetstream| {
        let Ok(store) = jetstream.get_key_value("pcluster_chains").await else { return BTreeMap::new() };
        let keys: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
        let mut entries = BTreeMap::new();
        for key in keys {
            // A node may have removed it since its key was listed.
            let Some(value) = store.get(key.as_str()).await.unwrap() else { continue };
            entries.insert(key, serde_json::from_slice(&value).unwrap());
        }
        entries
    });
    keys.into_iter().filter(|(key, _)| key.split('.').next() == Some(chain)).collect()
}

/// What a deploy that fails must leave as it was.
#[derive(Debug, PartialEq)]
struct Picture {
    streams: Vec<String>,
    entries: BTreeMap<String, Value>,
    settings: Vec<(Vec<String>, i64, i64, Duration, Duration)>,
    consumers: Vec<String>,
}

fn picture(client: &NatsClient, chain: &str) -> Picture {
    let all = streams(client);
    let own: Vec<&String> = all.iter().filter(|name| name.starts_with(&format!("PCLUSTER_{chain}"))).collect();
    let settings = own.iter().map(|name| {
        let Config { mut subjects, max_messages_per_subject, max_bytes, max_age, duplicate_window, .. } =
            config(client, name);
        subjects.sort();
        (subjects, max_messages_per_subject, max_bytes, max_age, duplicate_window)
    });
    let consumers = own.iter().flat_map(|name| client.consumers(name));
    Picture {
        settings: settings.collect(),
        consumers: consumers.collect(),
        entries: entries(client, chain),
        streams: all,
    }
}

#[test]
fn a_deploy_deletes_nothing_and_forgets_nothing_and_narrows_later() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let wide = "[queue]\nlimit = 1000\nack_wait = \"1s\"\n[results]\nmax_age = \"1h\"\n";
    let narrow = "[queue]\nlimit = 3\nack_wait = \"1s\"\nduplicate_window = \"12s\"\n\
                  [results]\nmax_age = \"2m\"\nmax_bytes = \"1MiB\"\n";
    cluster.deploy(&chain("kept", "1.0", wide, ""));
    cluster.ok(&["feed", "kept", "--id", "early", "0"]);
    let node = cluster.node("a");
    cluster.ok(&["wait", "kept"]);
    drop(node);
    cluster.run_with_input(&["feed", "kept", "--pack-items", "1"], lines(1..50)).succeeded();

    cluster.deploy(&chain("kept", "1.1", narrow, ""));
    // Whatever changes the streams goes by all live versions.
    cluster.ok(&["stop", "kept"]);
    cluster.ok(&["start", "kept"]);
    assert_eq!(client.count("PCLUSTER_kept"), 49);
    let settings = || {
        let (work, out) = (config(&client, "PCLUSTER_kept"), config(&client, "PCLUSTER_kept_OUT"));
        (work.max_messages_per_subject, work.duplicate_window.as_secs(), out.max_age.as_secs(), out.max_bytes)
    };
    assert_eq!(settings(), (1000, 120, 3600, -1));

    let _node = cluster.node("b");
    cluster.ok(&["wait", "kept"]);
    eventually("the limit is narrowed once the older version has retired", || (settings().0 == 3).then_some(()));
    assert_eq!(settings(), (3, 120, 3600, -1), "results from before the deploy are there, ids are remembered");
    // The server still knows what was fed to the version before.
    let again = cluster.run(&["feed", "kept", "--id", "early", "0"]);
    assert!(again.succeeded().is_empty());
    assert_eq!(client.count("PCLUSTER_kept"), 0);
    assert_eq!(cluster.pull_all("kept").len(), 50);
    client.with(async |jetstream| jetstream.get_stream("PCLUSTER_kept_OUT").await.unwrap().purge().await.unwrap());
    eventually("ages and bytes are narrowed once nothing from before is left", || {
        (settings().2 == 120 && settings().3 == 1 << 20).then_some(())
    });
    // A queue that is full under the narrower limit takes more again.
    cluster.run_with_input(&["feed", "kept", "--pack-items", "1"], lines(100..140)).succeeded();
    assert_eq!(cluster.pull_all("kept").len(), 40);
}

#[test]
fn results_of_a_chain_that_is_not_known_are_not_removed_unasked() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&chain("left", "1.0", "", ""));
    let node = cluster.node("a");
    let long = "x".repeat(60_000);
    cluster.run_with_input(&["feed", "left", "--pack-items", "1"], lines((0..40).map(|_| &long))).succeeded();
    cluster.ok(&["wait", "left"]);
    drop(node);
    client.with(async |jetstream| {
        jetstream.get_key_value("pcluster_chains").await.unwrap().purge("left").await.unwrap();
    });
    let small = chain("left", "1.0", "[results]\nmax_bytes = \"1MiB\"\n", "concurrency = 3");
    cluster.file("small.toml", small);
    let before = picture(&client, "left");
    let run = cluster.run(&["deploy", "small.toml"]);
    assert_refused(&run, 1, &["would remove ", " results that are kept already", "`--force`"]);
    assert_eq!(picture(&client, "left"), before);
    let kept = client.count("PCLUSTER_left_OUT");
    cluster.ok(&["deploy", "small.toml", "--force"]);
    assert!(client.count("PCLUSTER_left_OUT") < kept);
}

/// Each case has a server of its own: what that allows, what is deployed before, what is refused, and what is said.
#[test]
fn a_deploy_that_the_server_refuses_changes_nothing() {
    const SMALL: &str = "[results]\nmax_bytes = \"1MiB\"\n";
    const BIG: &str = "[results]\nmax_bytes = \"900MiB\"\n";
    const OVER: &str = "[queue]\nlimit = 7\n[results]\nmax_age = \"30days\"\nmax_bytes = \"1MiB\"\n";
    let three = |rest: &str| {
        let stages: String = ["b", "c"]
            .map(|name| {
                format!("[[stage]]\nname = \"{name}\"\ntask = \"echo\"\nplugin = \"{}\"\n{rest}\n", plugin("probe"))
            })
            .concat();
        format!("{rest}\n{stages}")
    };
    let account = |limits: &str| {
        format!(
            "jetstream {{ store_dir: data }}\naccounts {{ A {{ jetstream: {{ {limits} }}, users: [{{ user: a }}] }} }}\n\
                 no_auth_user: a"
        )
    };
    let few = "jetstream { store_dir: data, limits: { max_ack_pending: 1000 } }".to_owned();
    for (server, good, tables, rest, says) in [
        (few, "none", OVER, String::new(), "`max_ack_pending` below `limits`"),
        (account("max_file: 1GB, max_mem: 1GB, max_consumers: 7"), "", OVER, three(""), "make the consumer `r"),
        (
            account("max_file: 300MB, max_mem: 1MB, max_streams: 8"),
            SMALL,
            BIG,
            String::new(),
            "ask for less with `max_bytes`",
        ),
        // Room for some of the streams that all chains share; and for those, but not for the chain's.
        (
            account("max_file: 1GB, max_mem: 1MB, max_streams: 4"),
            "none",
            OVER,
            String::new(),
            "maximum number of streams",
        ),
        (
            account("max_file: 1GB, max_mem: 1MB, max_streams: 7"),
            "none",
            OVER,
            String::new(),
            "maximum number of streams",
        ),
    ] {
        let cluster = Cluster::with_server(Server::with_configuration(&server));
        let client = NatsClient::connect(&cluster);
        // A chain that was never there.
        cluster.file("new.toml", chain("new", "1.0", tables, &rest));
        cluster.run(&["deploy", "new.toml"]).failed(1, says);
        assert_eq!(streams(&client).iter().filter(|name| name.contains("new")).count(), 0, "{says}");
        assert_eq!(entries(&client, "new"), BTreeMap::new());
        assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
        if good == "none" {
            continue;
        }
        // One that goes on.
        cluster.deploy(&chain("old", "1.0", good, ""));
        let before = picture(&client, "old");
        cluster.file("old.toml", chain("old", "1.1", tables, &rest));
        cluster.run(&["deploy", "old.toml"]).failed(1, says);
        assert_eq!(picture(&client, "old"), before, "{says}");
        cluster.ok(&["feed", "old", "1"]);
        let _node = cluster.node("a");
        assert_eq!(cluster.pull_all("old"), [1]);
        // And the version is free.
        cluster.deploy(&chain("old", "1.1", good, "concurrency = 2"));
    }
}

#[test]
fn an_intake_that_belongs_to_another_stream_is_refused_and_nothing_changes() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let subjects = vec!["pcluster.taken.in".to_owned()];
    let other = Config { name: "OTHER".to_owned(), subjects, ..Config::default() };
    client.with(async |jetstream| jetstream.create_stream(other.clone()).await.map(drop).unwrap());
    cluster.file("chain.toml", chain("taken", "1.0", "", ""));
    let run = cluster.run(&["deploy"]);
    assert_refused(&run, 1, &["the subject `pcluster.taken.in` belongs to the stream `OTHER` already"]);
    assert_eq!(streams(&client).iter().filter(|name| name.contains("taken")).count(), 0);
    assert_eq!(cluster.ok(&["status", "--json"]).trim(), "[]");
    client.with(async |jetstream| jetstream.delete_stream("OTHER").await.map(drop).unwrap());
    cluster.ok(&["deploy"]);
}

/// How often the work stream of a chain takes what is published once to each of its subjects. Nothing is stored: the server answers
/// for each time that it does not know what it is asked for.
fn times_taken(client: &NatsClient, chain: &str) -> BTreeMap<String, usize> {
    client.with(async |jetstream| {
        let stream = jetstream.get_stream(format!("PCLUSTER_{chain}")).await.unwrap();
        let (client, mut taken) = (jetstream.client(), BTreeMap::new());
        for pattern in &stream.cached_info().config.subjects {
            let subject = pattern.replace('>', "probe");
            let (inbox, mut times) = (client.new_inbox(), 0);
            let mut answers = client.subscribe(format!("{inbox}.*")).await.unwrap();
            // All answers to the first come before that to the second.
            for number in 1..=2 {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Rollup", "none");
                let reply = format!("{inbox}.{number}");
                client.publish_with_reply_and_headers(subject.clone(), reply, headers, "".into()).await.unwrap();
            }
            while let Some(answer) = answers.next().await
                && answer.subject.ends_with(".1")
            {
                times += usize::from(answer.status.is_none());
            }
            taken.insert(pattern.clone(), times);
        }
        taken
    })
}

#[test]
fn of_those_who_deploy_one_version_at_once_exactly_one_succeeds() {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    let _node = cluster.node("a");
    let deploy_all = |manifests: Vec<String>| -> Vec<(Option<i32>, String)> {
        let racing: Vec<Process> = manifests
            .into_iter()
            .enumerate()
            .map(|(number, manifest)| {
                let file = cluster.file(&format!("{number}.toml"), manifest);
                cluster.spawn(&["deploy", file.to_str().unwrap()])
            })
            .collect();
        racing.into_iter().map(|mut each| (each.ended(), each.stdout() + &each.stderr())).collect()
    };
    for round in 0..6 {
        let name = format!("race{}", round % 2);
        let other = |number| chain(&name, &format!("1.{round}"), "", &format!("concurrency = {}", number + 1));
        let ended = deploy_all((0..4).map(other).collect());
        let winners: Vec<&String> = ended.iter().filter(|(code, _)| *code == Some(0)).map(|(_, said)| said).collect();
        assert_eq!(winners.len(), 1, "{ended:?}");
        let revision = cluster.status(&name)["revision"].as_u64().unwrap();
        assert!(winners[0].contains(&format!("deployed as r{revision}")), "{ended:?}");
        let told = format!("manifest and deploy again (it is r{revision}, deployed by ");
        assert!(ended.iter().filter(|(_, said)| said.contains(&told)).count() == 3, "{ended:?}");
        cluster.ok(&["feed", &name, "7"]);
        let taken = times_taken(&client, &name);
        assert!(taken.values().all(|times| *times == 1), "{taken:?}");
    }
    // Other versions: each is deployed, and none takes away the queues of another.
    let version = |number| chain("many", &format!("1.{number}"), "", "");
    let ended = deploy_all((0..5).map(version).collect());
    assert!(ended.iter().all(|(code, _)| *code == Some(0)), "{ended:?}");
    let taken = times_taken(&client, "many");
    assert!(taken.values().all(|times| *times == 1), "{taken:?}");
    cluster.ok(&["feed", "many", "7"]);
    // The same content: one deploys, the others find it done.
    let ended = deploy_all((0..4).map(|_| chain("same", "1.0", "", "")).collect());
    assert!(ended.iter().all(|(code, _)| *code == Some(0)), "{ended:?}");
    let deployed = ended.iter().filter(|(_, said)| said.contains("deployed as")).count();
    assert_eq!((deployed, ended.len()), (1, 4), "{ended:?}");
    for (name, results) in [("race0", 3), ("race1", 3), ("many", 1)] {
        assert_eq!(cluster.pull_all(name).len(), results, "{name}");
        let revision = cluster.status(name)["revision"].as_u64().unwrap();
        eventually("only the active version is left", || {
            let consumers = client.consumers(&format!("PCLUSTER_{name}"));
            let own = [format!("r{revision}_"), format!("r{revision}-")];
            let is_own = |consumer: &String| own.iter().any(|prefix| consumer.starts_with(prefix));
            let state = entries(&client, name);
            (consumers.iter().all(is_own) && state[name]["live"] == json!([revision])).then_some(())
        });
        assert_eq!(entries(&client, name)[name].get("pending"), None);
    }
}
