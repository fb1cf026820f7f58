//! Outputs of commands without the values that differ from run to run.

use std::collections::BTreeSet;

/// The columns of tables that differ from run to run.
const VARYING: [&str; 6] = ["TIME", "HOST", "PID", "UP", "ITEMS/S", "MEMORY"];
/// The words after numbers that differ from run to run.
const UNITS: [&str; 9] = ["s", "bytes", "kB", "kB/s", "MiB", "items/s", "results/s", "result", "messages"];

/// The lines of a command's output, masked, in an order that is the same in every run.
pub fn comparable(command: &str, output: &str) -> Vec<String> {
    let mut lines = masked(output);
    // Items run side by side: their logs and results come in any order.
    if ["pcluster dev", "pcluster logs"].iter().any(|start| command.starts_with(start)) {
        lines.sort();
    }
    lines
}

/// The lines of an output, without the width of columns, and with `…` in the place of values that differ from run to run.
fn masked(output: &str) -> Vec<String> {
    let mut varying = BTreeSet::new();
    let mut lines = Vec::new();
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_title =
            |word: &&str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'/');
        if words.is_empty() {
            varying.clear();
        } else if words.len() > 1 && words.iter().all(is_title) {
            // Which of several nodes has done how much is not known before.
            let is_varying = |word: &str| VARYING.contains(&word) || words[0] == "NODE" && word == "DONE";
            varying = (0..words.len()).filter(|&column| is_varying(words[column])).collect();
            lines.push(words.join(" "));
            continue;
        }
        let mask = |(position, word): (usize, &&str)| {
            let next = words.get(position + 1).map_or("", |word| word.trim_end_matches([',', ';']));
            let is_figure = word.parse::<f64>().is_ok();
            let is_measured = is_figure && (UNITS.contains(&next) || decimals(word) == 2);
            let is_process = position > 0 && words[position - 1] == "(process";
            let is_varying = varying.contains(&position) || is_measured || is_process || word.contains('@');
            if is_varying { "…".to_owned() } else { masked_word(word) }
        };
        lines.push(words.iter().enumerate().map(mask).collect::<Vec<_>>().join(" "));
    }
    lines
}

/// The number of digits behind a figure's point.
fn decimals(figure: &str) -> usize {
    figure.split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

/// A word without its times, ids, digests and ports.
fn masked_word(word: &str) -> String {
    let is_time =
        word.len() > 20 && word.as_bytes()[10] == b'T' && word.bytes().take(4).all(|byte| byte.is_ascii_digit());
    if is_time {
        return "…".to_owned();
    }
    let mut masked = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let length = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(length);
        let is_ulid = run.len() == 26 && run.bytes().all(|byte| !byte.is_ascii_lowercase());
        let is_digest = run.len() == 64 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_port = masked.ends_with("127.0.0.1:");
        masked += if is_ulid || is_digest || is_port { "…" } else { run };
        let mut letters = after.chars();
        masked.extend(letters.next());
        rest = letters.as_str();
    }
    masked
}

#[test]
fn only_values_that_differ_from_run_to_run_are_masked() {
    for (line, expected) in [
        ("text 1.0 deployed as r1", "text 1.0 deployed as r1"),
        ("fed 202 items in 0.01 s", "fed 202 items in … s"),
        ("STAGE  DONE  ITEMS/S\nsplit   202     53.4", "STAGE DONE ITEMS/S\nsplit 202 …"),
        ("NODE  PID  DONE\na      12    7", "NODE PID DONE\na … …"),
        ("2026-11-26T14:34:11.102+01:00 info  wait 01M8C10K4TVAAZAMQ49M90DCFH.0#1: hi", "… info wait ….0#1: hi"),
        ("at nats://127.0.0.1:4222; yes", "at nats://127.0.0.1:…; yes"),
        ("by ada@home (process 13479) at 2026-11-26T14:34:23.496+01:00)", "by … (process … at …"),
        ("{\"id\":\"01M8C10ZK03415VG3J0RXWA1AM\",\"revision\":1}", "{\"id\":\"…\",\"revision\":1}"),
    ] {
        assert_eq!(masked(line).join("\n"), expected);
    }
}
