//! Unusable servers and incomplete nodes: each is reported once, in time, and with a remedy.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use support::{Cluster, Run, Server, assert_refused, probe_chain};

/// The five seconds that connecting may take, and what a slow machine adds.
const IN_TIME: Duration = Duration::from_secs(20);

/// Runs `pcluster` against another address.
fn run_at(cluster: &Cluster, url: &str, arguments: &[&str]) -> Run {
    let mut command = cluster.command(arguments);
    command.env("PCLUSTER_NATS", url);
    Run::of(command, b"")
}

/// The address of a server with these lines in its configuration, with a user's name and password in it.
fn as_user(server: &Server, user: &str) -> String {
    server.url.replacen("nats://", &format!("nats://{user}:secret%21@"), 1)
}

#[test]
fn a_server_that_cannot_be_reached_is_named_within_five_seconds() {
    let cluster = Cluster::start();
    cluster.file("chain.toml", probe_chain("a", &["echo"], ""));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("nats://me:secret@{free}");
    let shown = format!("cannot reach NATS at nats://{free}: ");
    let says = [shown.as_str(), "Is nats-server running? `--nats URL` names another one, `pcluster dev` starts one"];
    for arguments in
        [&["deploy"][..], &["feed", "a", "1"], &["pull", "a"], &["status"], &["nodes"], &["node", "--no-wait"]]
    {
        let run = run_at(&cluster, &url, arguments);
        assert_refused(&run, 5, &says);
        assert!(run.took < IN_TIME && !run.stderr.contains("secret"), "{run:?}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = run_at(&cluster, &format!("nats://{}", silent.local_addr().unwrap()), &["status"]);
    assert_refused(&run, 5, &["cannot reach NATS at nats://127.0.0.1:"]);
    assert!(run.took < IN_TIME, "{run:?}");
    assert_refused(
        &cluster.run(&["status", "--creds", "none"]),
        5,
        &["cannot use the credentials file `none`: No such file"],
    );
}

#[test]
fn what_is_started_before_its_server_waits_for_it_if_told_so_and_a_node_in_any_case() {
    const WAITING: &str = "waiting for NATS: cannot reach NATS at nats://127.0.0.1:";
    let mut cluster = Cluster::start();
    cluster.deploy(&probe_chain("a", &["echo"], ""));
    cluster.server.kill();
    let mut node = cluster.spawn(&["node", "--name", "early"]);
    let mut told_to_stop = cluster.spawn(&["node", "--name", "stopped"]);
    let mut feed = cluster.spawn(&["feed", "a", "1", "--wait", "1m"]);
    for process in [&node, &told_to_stop, &feed] {
        process.said(WAITING);
    }
    assert_eq!(told_to_stop.stop(), Some(0), "{}", told_to_stop.stderr());
    assert_refused(&cluster.run(&["status", "--wait", "500ms"]), 5, &["cannot reach NATS at"]);
    assert_refused(&cluster.run(&["node", "--wait", "500ms"]), 5, &["cannot reach NATS at"]);
    assert_refused(&cluster.run(&["node", "--wait", "1s", "--no-wait"]), 2, &["do not go together"]);

    cluster.server.restart();
    assert_eq!(feed.ended(), Some(0), "{}", feed.stderr());
    node.said("ready: serving");
    cluster.ok(&["wait", "a"]);
    assert_eq!(cluster.pull_all("a"), [1]);
    assert_eq!(node.stderr().matches(WAITING).count(), 1, "{}", node.stderr());
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_server_without_jetstream_is_refused_with_how_to_turn_it_on() {
    let cluster = Cluster::with_server(Server::with_configuration("server_name: plain"));
    for arguments in [&["status"][..], &["node"], &["feed", "a", "1"]] {
        assert_refused(&cluster.run(arguments), 5, &["has JetStream turned off; start it with `nats-server -js`"]);
    }
}

#[test]
fn a_server_that_is_too_old_is_refused_with_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let _ = old_server(connection);
        }
    });
    let cluster = Cluster::start();
    for arguments in [&["status"][..], &["node"]] {
        assert_refused(
            &run_at(&cluster, &url, arguments),
            5,
            &[&url, "is version 2.9.0; pcluster needs 2.12.5 or newer"],
        );
    }
}

/// As much of an old server as a client meets before it looks at the version.
fn old_server(mut connection: TcpStream) -> std::io::Result<()> {
    let info =
        r#"{"server_id":"OLD","server_name":"old","version":"2.9.0","go":"go1.19","host":"127.0.0.1","port":4222,"#;
    write!(connection, "INFO {info}\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"jetstream\":true}}\r\n")?;
    for line in BufReader::new(connection.try_clone()?).lines() {
        if line?.starts_with("PING") {
            connection.write_all(b"PONG\r\n")?;
        }
    }
    Ok(())
}

#[test]
fn a_user_without_permission_is_told_which_and_changes_nothing() {
    let server = Server::start(
        r#"authorization { users: [
            { user: all, password: "secret!" }
            { user: no_api, password: "secret!", permissions: { publish: { deny: ["$JS.API.>"] } } }
            { user: no_items, password: "secret!", permissions: { publish: { deny: ["pcluster.>"] } } }
        ] }"#,
    );
    let (all, no_api, no_items) = (as_user(&server, "all"), as_user(&server, "no_api"), as_user(&server, "no_items"));
    let (wrong, anonymous) = (all.replacen("secret", "wrong", 1), server.url.clone());
    let cluster = Cluster::with_server(server);
    cluster.file("chain.toml", probe_chain("a", &["echo"], ""));

    for url in [&wrong, &anonymous] {
        let run = run_at(&cluster, url, &["deploy"]);
        assert_refused(&run, 5, &["refuses the login: authorization violation. Put user and password into the URL"]);
        assert!(!run.stderr.contains("wrong"), "{}", run.stderr);
    }
    // The server answers no request that is not permitted, so each takes until its time is over.
    std::thread::scope(|scope| {
        for arguments in [&["deploy"][..], &["status"], &["feed", "a", "1"], &["node"]] {
            let (cluster, no_api) = (&cluster, &no_api);
            scope.spawn(move || {
                let run = run_at(cluster, no_api, arguments);
                assert_refused(&run, 1, &["no permission to ", "$JS.API.", "the server's configuration must allow it"]);
            });
        }
    });
    assert_eq!(run_at(&cluster, &all, &["status", "--json"]).succeeded().trim(), "[]");

    run_at(&cluster, &all, &["deploy"]).succeeded();
    let run = run_at(&cluster, &no_items, &["feed", "a", "1", "2"]);
    assert_refused(&run, 1, &["no permission to publish to `pcluster.a.in`"]);
    run_at(&cluster, &all, &["feed", "a", "3"]).succeeded();
    let run = run_at(&cluster, &all, &["node", "--until-empty"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run_at(&cluster, &all, &["pull", "a", "--all"]).succeeded(), "3\n");
}

#[test]
fn a_node_without_a_cache_folder_says_so_and_goes_on() {
    let cluster = Cluster::start();
    cluster.deploy(&probe_chain("a", &["echo"], ""));
    cluster.ok(&["feed", "a", "1"]);
    let file = cluster.file("file", "");
    let below = file.join("cache").display().to_string();
    let run = cluster.run(&["node", "--until-empty", "--cache", &below]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let said = format!("cannot use the cache folder `{below}`: plugins are compiled at each start");
    assert_eq!(run.stderr.matches(&said).count(), 1, "{}", run.stderr);
    assert_eq!(cluster.pull_all("a"), [1]);
}

#[test]
fn a_server_program_that_is_not_there_or_no_server_is_named() {
    let cluster = Cluster::start();
    let none = cluster.run(&["dev", "--nats-server", "none", "--until-empty"]);
    assert_refused(&none, 4, &["there is no nats-server at `none`"]);
    let other = cluster.run(&["dev", "--nats-server", "/bin/true", "--until-empty"]);
    assert_refused(&other, 1, &["`/bin/true` did not start"]);
}
