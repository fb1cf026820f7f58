//! Errors of the TOML reader in words of manifests, with what to do.

use crate::name::nearest;

/// Returns the code of an error of the TOML reader.
pub(super) fn code(message: &str) -> &'static str {
    match message {
        _ if message.starts_with("unknown field") => "unknown-key",
        _ if message.starts_with("missing field") => "missing-key",
        _ if message.starts_with("unknown variant") => "invalid-value",
        _ => "wrong-type",
    }
}

/// Returns the hint for a value of the wrong type. `expected` says which type it has to be.
fn hint(key: &str, expected: &str) -> &'static str {
    let (is_text, is_list) = (expected.contains("a string"), expected.contains("a sequence"));
    let is_table = ["a map", "struct"].iter().any(|kind| expected.contains(&format!("expected {kind}")));
    match key {
        "ack_wait" | "duplicate_window" | "max_age" | "timeout" | "backoff" if is_text => {
            "; a duration is a text with its unit, as in \"500ms\", \"5s\" or \"5m\""
        }
        "version" if is_text => "; write it in quotes, as in \"1.0\"",
        "stage" if is_list => "; write two brackets before each stage, as in `[[stage]]`",
        "retry" if is_table => "; write a table, as in `retry = { attempts = 3 }`",
        "where" => "; write a table of texts, as in `where = { zone = \"eu\" }`",
        "allow" if is_table => "; write a table, as in `[stage.allow]`",
        "limits" if is_table => "; write a table, as in `limits = { calls = 100 }`",
        "kv" if is_table => "; write a table, as in `kv = { cache = \"read\" }`",
        "objects" if is_table => "; write a table, as in `objects = { models = \"read\" }`",
        "secrets" if is_table => "; write a table, as in `secrets = { api_token = \"https://api.example.com\" }`",
        "http" if is_list => "; write a list, as in [\"https://api.example.com\"]",
        "publish" if is_list => "; write a list, as in [\"alerts.>\"]",
        "max_bytes" | "large" | "large_bytes" | "memory" | "sent" | "received" | "body" if is_text => {
            "; a size is a text with its unit, as in \"64MiB\" or \"1GiB\""
        }
        "schema" if is_table => "; write a table, as in `schema = { input = \"a.json\", output = \"b.json\" }`",
        "exec" if is_list => {
            "; write the program and its arguments as a list of texts, as in [\"python3\", \"job.py\"]"
        }
        "files" if is_list => "; write the paths as a list of texts, as in [\"sim\", \"tables/\"]",
        _ => "",
    }
}

/// Adds what to do to an error of the TOML reader. `key` is the key of the wrong value.
pub(super) fn explain(message: &str, key: Option<&str>) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, [unknown, known @ ..]) = (message.starts_with("unknown field"), names.as_slice()) {
        return match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("unknown key `{unknown}`; did you mean `{near}`?"),
            None => format!("unknown key `{unknown}`; known here are {}", quoted(known)),
        };
    }
    if let (true, [unknown, known @ ..]) = (message.starts_with("unknown variant"), names.as_slice()) {
        return format!("`{unknown}` is not known; known here are {}", quoted(known));
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("the key {field} is missing");
    }
    let message = message.lines().collect::<Vec<_>>().join(", ");
    match key {
        Some(key) if message.starts_with("invalid ") => {
            let hint = hint(key, &message);
            format!("`{key}`: {}{hint}", in_toml(&message))
        }
        _ => message,
    }
}

/// Says what is expected in words of TOML, where the reader names a type of Rust.
fn in_toml(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((found, expected)) if expected.starts_with("struct ") => format!("{found}, expected a table"),
        Some((found, "u16" | "u32" | "u64" | "usize")) => {
            format!("{found}, expected a whole number that is not negative")
        }
        _ => message.to_owned(),
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
