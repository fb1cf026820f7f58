//! Manifests of chains made of the probe plugin's tasks.

use std::fmt::Write;

use crate::plugin;

/// The manifest of a chain with one stage per task of the probe plugin; `rest` is added to each stage.
pub fn probe_chain(name: &str, tasks: &[&str], rest: &str) -> String {
    let plugin = plugin("probe");
    let mut manifest = format!("name = \"{name}\"\nversion = \"1.0\"\n");
    let inline = std::env::var_os("PCLUSTER_TEST_INLINE").is_some();
    for (position, task) in tasks.iter().enumerate() {
        let rest = if inline && position > 0 { as_inline(rest) } else { rest.to_owned() };
        let _ = writeln!(manifest, "[[stage]]\nname = \"{task}\"\nplugin = \"{plugin}\"\n{rest}");
    }
    manifest
}

/// What is said of a stage, but for what belongs to a queue: that of an inline stage.
fn as_inline(rest: &str) -> String {
    let is_queues = |line: &&str| ["concurrency", "max_in_flight", "retry"].iter().any(|key| line.starts_with(key));
    let lines: Vec<&str> = rest.lines().filter(|line| !is_queues(line)).collect();
    format!("{}\ninline = true", lines.join("\n"))
}

/// The manifest with a table, such as `[queue]`, put before its stages.
pub fn with_table(table: &str, manifest: &str) -> String {
    manifest.replacen("[[stage]]", &format!("{table}\n[[stage]]"), 1)
}

/// The manifest with a short time after which a dead node's items are given to others.
pub fn recovering(manifest: &str) -> String {
    with_table("[queue]\nack_wait = \"1s\"", manifest)
}
