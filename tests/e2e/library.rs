//! The library: a program of its own does what the command line does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Cluster, Run, probe_chain};

/// An example of the package, which `cargo test` builds next to the program.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pcluster")).with_file_name("examples").join(name);
    assert!(path.exists(), "run `cargo build -p pcluster --example {name}` first; plain `cargo test` does");
    path
}

#[test]
fn the_library_deploys_feeds_reads_waits_and_resets() {
    let cluster = Cluster::start();
    let manifest = cluster.file("chain.toml", probe_chain("embedded", &["repeat"], "config = { times = 2 }"));
    let _node = cluster.node("a");
    let mut command = Command::new(example("library"));
    command.arg(&cluster.server.url).arg(manifest);
    let printed = Run::of(command, b"").succeeded();
    let mut lines: Vec<&str> = printed.lines().collect();
    // Results come in any order.
    lines[3..9].sort_unstable();
    let expected = [
        "deployed embedded 1.0 as r1",
        "fed 3 items",
        "empty: 3 messages of results, 0 dead letters",
        r#"result "item 1" of item-1"#,
        r#"result "item 1" of item-1"#,
        r#"result "item 2" of item-2"#,
        r#"result "item 2" of item-2"#,
        r#"result "item 3" of item-3"#,
        r#"result "item 3" of item-3"#,
        "reset: 0 dropped, goes on as r2",
    ];
    assert_eq!(lines, expected);
}
