//! Manifests of chains made of the probe plugin's tasks.

use std::fmt::Write;

use crate::plugin;

/// Returns the manifest of a chain with one stage per task. The tasks are those of the probe plugin, and `rest` is added to each
/// stage.
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

/// Returns the lines of an inline stage: those of a stage without the ones about its queue.
fn as_inline(rest: &str) -> String {
    let is_queues = |line: &&str| ["concurrency", "max_in_flight", "retry"].iter().any(|key| line.starts_with(key));
    let lines: Vec<&str> = rest.lines().filter(|line| !is_queues(line)).collect();
    format!("{}\ninline = true", lines.join("\n"))
}

/// Returns the manifest with a table, such as `[queue]`, before its stages.
pub fn with_table(table: &str, manifest: &str) -> String {
    manifest.replacen("[[stage]]", &format!("{table}\n[[stage]]"), 1)
}

/// Returns the manifest with a short `ack_wait`. So other nodes get the items of a dead node soon.
pub fn recovering(manifest: &str) -> String {
    with_table("[queue]\nack_wait = \"1s\"", manifest)
}
