//! The page of the wire names every subject, stream, consumer and header. A client that subscribes to everything compares the
//! page with the traffic, and the names in the sources are compared with it too.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, TryStreamExt};
use support::{Cluster, NatsClient, eventually, repository, sequence, with_table};
use tokio::runtime::Runtime;

/// The page.
fn page() -> String {
    std::fs::read_to_string(repository().join("runtime/WIRE.md")).unwrap()
}

/// What stands between backticks on the page, outside of blocks of code.
fn names(page: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (position, prose) in page.split("\n```").enumerate() {
        if position % 2 == 0 {
            // The first line after a block closes it.
            let prose = if position > 0 { prose.split_once('\n').map_or("", |(_, rest)| rest) } else { prose };
            names.extend(prose.split('`').skip(1).step_by(2).map(|name| name.replace('\n', " ")));
        }
    }
    names
}

/// Whether a name fits a pattern in which `<…>` stands for a part without dots, and `…` at the end for all that follows.
fn fits(pattern: &str, name: &str) -> bool {
    let Some(open) = pattern.find('<') else {
        return pattern.strip_suffix('…').map_or(pattern == name, |start| name.starts_with(start));
    };
    let Some(rest) = name.strip_prefix(&pattern[..open]) else { return false };
    let close = open + pattern[open..].find('>').expect("a placeholder ends");
    let longest = rest.find('.').unwrap_or(rest.len());
    (1..=longest).any(|end| rest.is_char_boundary(end) && fits(&pattern[close + 1..], &rest[end..]))
}

/// What a client has heard that listens to all of `pcluster.>`.
#[derive(Default)]
struct Heard {
    subjects: BTreeSet<String>,
    headers: BTreeSet<String>,
}

/// Listens until it is dropped.
struct Listener {
    _runtime: Runtime,
    heard: Arc<Mutex<Heard>>,
}

impl Listener {
    fn start(cluster: &Cluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let mut messages = runtime.block_on(async {
            let client = async_nats::connect(&cluster.server.url).await.unwrap();
            let messages = client.subscribe("pcluster.>").await.unwrap();
            client.flush().await.unwrap();
            messages
        });
        let hearing = Arc::clone(&heard);
        runtime.spawn(async move {
            while let Some(message) = messages.next().await {
                let mut heard = hearing.lock().unwrap();
                heard.subjects.insert(message.subject.to_string());
                let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
                heard.headers.extend(headers.map(|(name, _)| name.to_string()));
            }
        });
        Self { _runtime: runtime, heard }
    }

    /// Waits until something was published to a subject that contains this.
    #[track_caller]
    fn hears(&self, part: &str) {
        eventually(&format!("something is published to `…{part}…`"), || {
            self.heard.lock().unwrap().subjects.iter().any(|subject| subject.contains(part)).then_some(())
        });
    }
}

/// A chain whose last stage does as its items say.
fn manifest() -> String {
    let plugin = support::plugin("probe");
    let stage = |name: &str, task: &str, rest: &str| {
        format!("[[stage]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ntask = \"{task}\"\n{rest}\n")
    };
    let retry = "retry = { attempts = 3, backoff = [\"10ms\"] }";
    let stages = [stage("first", "echo", retry), stage("last", "obey", retry)].concat();
    with_table("[queue]\nack_wait = \"1s\"", &format!("name = \"wire\"\nversion = \"1.0\"\n{stages}"))
}

#[test]
fn the_page_of_the_wire_names_all_that_goes_over_it() {
    let cluster = Cluster::start();
    let listener = Listener::start(&cluster);
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&manifest());
    let feed = |id: &str, items: &[&str]| {
        client.publish("pcluster.wire.in", &[("Nats-Msg-Id", id)], sequence(items)).unwrap();
    };
    // Every node that meets it dies, until it is a dead letter.
    feed("poison", &["echo 1 poison"]);
    let mut deaths = 0;
    while client.count("PCLUSTER_wire_DEAD") == 0 {
        let name = format!("victim-{deaths}");
        let mut node = cluster.spawn(&["node", "--name", &name, "--die-at", "ran@poison"]);
        eventually("the node dies or the item is given up", || {
            (node.has_ended() || client.count("PCLUSTER_wire_DEAD") > 0).then_some(())
        });
        deaths += 1;
        assert!(deaths < 20, "the nodes die on and on");
    }
    let _node = cluster.node("a");
    // Of the first message one item is a result at once, of the second none.
    feed("mixed", &["fail 1 a", "flaky 1 b", "echo 1 c"]);
    feed("late", &["flaky 1 d"]);
    cluster.ok(&["wait", "wire"]);
    cluster.ok(&["dead", "retry", "wire", "--all"]);
    cluster.ok(&["wait", "wire"]);
    cluster.ok(&["pull", "wire", "-n", "1"]);
    cluster.ok(&["reset", "wire"]);
    for kind in [
        ".in",
        ".work.1.last",
        ".retry.1.last.",
        ".alone.1.first.",
        ".out",
        ".note",
        ".dead.",
        ".log.",
        ".count.",
        ".claim.",
    ] {
        listener.hears(kind);
    }

    let page = page();
    let names = names(&page);
    let is_named = |name: &str| names.iter().any(|pattern| fits(pattern, name));
    let heard = listener.heard.lock().unwrap();
    let unnamed: Vec<&String> = heard.subjects.iter().filter(|subject| !is_named(subject)).collect();
    assert!(unnamed.is_empty(), "subjects that runtime/WIRE.md does not name: {unnamed:?}");
    let is_ours = |name: &&String| ["Pcluster-", "Nats-"].iter().any(|prefix| name.starts_with(prefix));
    let unnamed: Vec<&String> = heard.headers.iter().filter(is_ours).filter(|name| !page.contains(*name)).collect();
    assert!(unnamed.is_empty(), "headers that runtime/WIRE.md does not name: {unnamed:?}");

    let (streams, consumers) = client.with(async |jetstream| {
        let streams: Vec<String> = jetstream.stream_names().try_collect().await.unwrap();
        let work = jetstream.get_stream("PCLUSTER_wire").await.unwrap();
        let consumers: Vec<String> = work.consumer_names().try_collect().await.unwrap();
        (streams, consumers)
    });
    assert!(!consumers.is_empty());
    let unnamed: Vec<&String> = streams.iter().chain(&consumers).filter(|name| !is_named(name)).collect();
    assert!(unnamed.is_empty(), "streams and consumers that runtime/WIRE.md does not name: {unnamed:?}");
}

/// The names of headers and of metadata that the sources have between quotes.
fn in_sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            in_sources(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for quoted in code.flat_map(|line| line.split('"').skip(1).step_by(2)) {
            let is_header = quoted.starts_with("Pcluster-") && quoted.len() > "Pcluster-".len();
            if is_header && quoted.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                found.insert(quoted.to_owned());
            }
        }
    }
}

#[test]
fn the_page_of_the_wire_and_the_sources_name_the_same_headers() {
    let mut sources = BTreeSet::new();
    in_sources(&repository().join("runtime/src"), &mut sources);
    assert!(sources.len() > 10, "{sources:?}");
    let page = page();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let words = page.split(|letter: char| !is_word(letter)).filter(|word| word.starts_with("Pcluster-"));
    let named: BTreeSet<String> = words.filter(|word| !word.ends_with('-')).map(str::to_owned).collect();
    assert_eq!(named, sources);
}

#[test]
fn names_are_compared_with_patterns_part_by_part() {
    for (pattern, name) in [
        ("pcluster.<chain>.in", "pcluster.a.in"),
        ("pcluster.<chain>.retry.<revision>.<hop>.<place>", "pcluster.a.retry.1.s.8-0"),
        ("r<revision>-retry_<hop>", "r12-retry_s"),
        ("PCLUSTER_<chain>_OUT", "PCLUSTER_a_b_OUT"),
    ] {
        assert!(fits(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in [
        ("pcluster.<chain>.in", "pcluster.a.b.in"),
        ("pcluster.<chain>.in", "pcluster..in"),
        ("pcluster.<chain>.retry.<revision>.<hop>", "pcluster.a.retry.1.s.8-0"),
        ("PCLUSTER_<chain>", "PCLUSTER"),
    ] {
        assert!(!fits(pattern, name), "{pattern} {name}");
    }
}
