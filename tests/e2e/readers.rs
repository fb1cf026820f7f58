//! Slow, closed and unread pipes behind a puller. Each result still goes to exactly one living reader.

use std::io::Read;
use std::process::{ChildStdout, Command};
use std::time::Duration;

use pcluster::client::{Client, PulledResult};
use serde_json::json;
use support::{Cluster, DEADLINE, NatsClient, Process, eventually, json_lines, lines, numbers, probe_chain};
use tokio::time::timeout;

/// How long the server waits for pullers in these tests: a process that the machine lets wait for a while is still there.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// How long a puller may wait for what another has given back, in seconds. The server would hand it out by itself only later:
/// a puller renews its hold on what it has every sixth of [`ACK_WAIT`].
const AT_ONCE: &str = "6";

/// A cluster whose chain `read` has this many results, ten a message. The server waits for pullers some seconds only.
fn with_results(number: u64) -> (Cluster, NatsClient) {
    let cluster = Cluster::start();
    let client = NatsClient::connect(&cluster);
    cluster.deploy(&probe_chain("read", &["echo"], ""));
    client.with(async |jetstream| {
        let stream = jetstream.get_stream("PCLUSTER_read_OUT").await.unwrap();
        let mut config = stream.consumer_info("pull").await.unwrap().config;
        config.ack_wait = ACK_WAIT;
        let pull = async_nats::jetstream::consumer::pull::Config {
            durable_name: config.durable_name,
            description: config.description,
            ack_policy: config.ack_policy,
            ack_wait: config.ack_wait,
            max_deliver: config.max_deliver,
            max_ack_pending: config.max_ack_pending,
            filter_subject: config.filter_subject,
            ..Default::default()
        };
        stream.create_consumer(pull).await.unwrap();
    });
    let mut node = cluster.node("a");
    cluster.run_with_input(&["feed", "read", "--pack-items", "10"], lines(0..number)).succeeded();
    cluster.ok(&["wait", "read"]);
    assert_eq!(node.stop(), Some(0));
    (cluster, client)
}

/// How many messages pullers hold, and how many wait for one.
fn held(client: &NatsClient) -> (usize, u64) {
    client.with(async |jetstream| {
        let stream = jetstream.get_stream("PCLUSTER_read_OUT").await.unwrap();
        let info = stream.consumer_info("pull").await.unwrap();
        (info.num_ack_pending, info.num_pending)
    })
}

/// Starts a puller whose pipe is not read, and waits until it has results in hand.
fn stalled(cluster: &Cluster, client: &NatsClient, arguments: &[&str]) -> (Process, ChildStdout) {
    let (process, output) = Process::start_unread(cluster.command(&[&["pull", "read"], arguments].concat()));
    eventually("the puller has results in hand", || (held(client).0 >= 200).then_some(()));
    (process, output)
}

fn read_all(mut output: ChildStdout) -> Vec<serde_json::Value> {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    json_lines(&text)
}

#[test]
fn a_result_in_the_hands_of_a_stalled_puller_goes_to_no_other() {
    let (cluster, client) = with_results(3_000);
    let (mut first, output) = stalled(&cluster, &client, &["--all"]);
    // The second gets what the first has not taken, and for longer than the server waits nothing else.
    let second = cluster.run(&["pull", "read", "-t", "11"]).failed(3, "no result for 11s");
    let second = json_lines(&second.stdout);
    assert!((1..=1_000).contains(&second.len()), "{} results", second.len());
    let first_results = read_all(output);
    assert_eq!(first.ended(), Some(0), "{}", first.stderr());
    assert_eq!(numbers(&[first_results, second].concat()), (0..3_000).collect::<Vec<_>>());
    assert_eq!(held(&client), (0, 0));
}

#[test]
fn a_stalled_puller_that_is_told_to_stop_gives_back_what_it_has_not_written() {
    let (cluster, client) = with_results(3_000);
    for arguments in [&["--all"][..], &[]] {
        let (mut first, output) = stalled(&cluster, &client, arguments);
        first.signal("TERM");
        first.ended();
        let written = read_all(output);
        assert!(written.len() < 500, "{} results", written.len());
        // At once: nobody has to wait until the server gives up on the first.
        let second = cluster.run(&["pull", "read", "--all", "-t", AT_ONCE]).succeeded();
        let all = [written, json_lines(&second)].concat();
        assert_eq!(numbers(&all), (0..3_000).collect::<Vec<_>>());
        let _node = cluster.node("a");
        cluster.run_with_input(&["feed", "read", "--pack-items", "10"], lines(0..3_000)).succeeded();
        cluster.ok(&["wait", "read"]);
    }
}

#[test]
fn a_reader_of_a_few_lines_takes_no_more_than_it_shows() {
    let (cluster, _client) = with_results(2_000);
    let mut shown = Vec::new();
    for (number, pull) in [(2, "pull read"), (1, "pull read --all"), (20, "pull read"), (2, "pull read -n 40")] {
        let mut command = cluster.command(&[]);
        let program = command.get_program().to_str().unwrap().to_owned();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{program} {pull} | head -n {number}")).current_dir(cluster.path("."));
        for (name, value) in command.envs(std::iter::empty::<(&str, &str)>()).get_envs() {
            shell.env(name, value.unwrap());
        }
        let (mut head, output) = Process::start_unread(shell);
        let results = read_all(output);
        head.ended();
        assert_eq!(results.len(), number);
        shown.extend(results);
    }
    // At once: nobody has to wait until the server gives up on what was given back.
    let rest = json_lines(&cluster.ok(&["pull", "read", "--all", "-t", AT_ONCE]));
    assert_eq!(numbers(&[shown, rest].concat()), (0..2_000).collect::<Vec<_>>());
}

#[test]
fn a_puller_that_was_paused_for_too_long_prints_nothing_that_others_may_have() {
    let (cluster, client) = with_results(2_000);
    let (mut first, output) = stalled(&cluster, &client, &[]);
    first.signal("STOP");
    // All the others, and what the first has in hand once the server has given up on it.
    let mut second = cluster.spawn(&["pull", "read"]);
    eventually("the second has everything", || (second.stdout().lines().count() == 2_000).then_some(()));
    // What the server has not heard of goes to the first when the second ends.
    eventually("the server knows that it has", || (held(&client) == (0, 0)).then_some(()));
    first.signal("CONT");
    // It takes part again, and is given what is new.
    let reading = std::thread::spawn(move || read_all(output));
    assert_eq!(second.stop().map(|_| ()), Some(()));
    let _node = cluster.node("a");
    cluster.run_with_input(&["feed", "read"], lines(2_000..2_003)).succeeded();
    // Before the results are stored, nothing is held and nothing waits either.
    cluster.ok(&["wait", "read"]);
    eventually("the first has taken what is new", || (held(&client) == (0, 0)).then_some(()));
    first.signal("TERM");
    first.ended();
    let printed = numbers(&reading.join().unwrap());
    // One result was in its pipe before it was paused.
    let old = printed.iter().filter(|number| **number < 2_000).count();
    assert!(old <= 1, "{printed:?}");
    assert_eq!(printed[old..], [2_000, 2_001, 2_002]);
    assert_eq!(numbers(&json_lines(&second.stdout())), (0..2_000).collect::<Vec<_>>());
}

#[test]
fn a_program_that_drops_futures_and_results_loses_and_doubles_nothing() {
    let (cluster, client) = with_results(600);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (url, chain) = (cluster.server.url.clone(), "read".parse().unwrap());
    let got = runtime.block_on(async {
        let library = Client::connect(&url.as_str().into(), "drops").await.unwrap();
        let mut puller = library.puller(&chain).await.unwrap();
        let (mut got, mut kept, mut seen): (_, Vec<PulledResult>, u64) = (Vec::new(), Vec::new(), 0);
        for patience in (0..).map(|number| Duration::from_micros(number % 7 * 100)) {
            // Given up in the middle again and again.
            let Ok(next) = timeout(patience, puller.next_until_drained()).await else { continue };
            let Some(taken) = next.unwrap() else { break };
            seen += 1;
            // The results of a message share its fate, so those that are kept come last.
            if seen % 4 == 0 && got.len() < 550 {
                // It comes again.
                drop(taken);
            } else if got.len() < 580 {
                got.push(json!(taken.result.to_json().parse::<u64>().unwrap()));
                taken.ack().await;
            } else {
                kept.push(taken);
            }
            if got.len() + kept.len() == 600 {
                break;
            }
        }
        // Results that are kept for longer than the server waits are still this program's.
        let other = cluster.run(&["pull", "read", "-t", "11"]).failed(3, "0 results taken");
        assert_eq!(other.stdout, "");
        for taken in kept {
            assert!(taken.is_held());
            got.push(json!(taken.result.to_json().parse::<u64>().unwrap()));
            taken.ack().await;
        }
        // Dropped with messages taken ahead, a puller gives these back.
        cluster.run_with_input(&["feed", "read", "--pack-items", "1"], lines(600..700)).succeeded();
        let node = cluster.node("b");
        cluster.ok(&["wait", "read"]);
        drop(node);
        let taken = puller.next().await.unwrap();
        got.push(json!(taken.result.to_json().parse::<u64>().unwrap()));
        taken.ack().await;
        let all_taken = async {
            while tokio::task::block_in_place(|| held(&client).1) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, all_taken).await.expect("the puller takes messages ahead");
        drop(puller);
        let rest = cluster.run(&["pull", "read", "--all", "-t", AT_ONCE]).succeeded();
        got.extend(json_lines(&rest));
        got
    });
    assert_eq!(numbers(&got), (0..700).collect::<Vec<_>>());
    eventually("nothing is left", || (held(&client) == (0, 0)).then_some(()));
}
