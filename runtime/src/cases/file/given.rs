//! Reads what answers calls, and what stands in for programs.

use pcluster_abi::call;
use toml_edit::Item;
use url::Url;

use super::answer::{answer, failure};
use super::reading::File;
use super::tables::{Section, listed};
use crate::cases::case::{CaseCall, Given, StandIn};
use crate::cases::value::{Part, read};
use crate::dead::FailureKind;
use crate::name::nearest;

/// The names of calls.
pub(super) const CALLS: [&str; 12] = [
    call::HTTP,
    call::KV_GET,
    call::KV_PUT,
    call::KV_CREATE,
    call::KV_UPDATE,
    call::KV_DELETE,
    call::KV_KEYS,
    call::OBJECTS_GET,
    call::OBJECTS_PUT,
    call::OBJECTS_LIST,
    call::PUBLISH,
    call::SECRETS_GET,
];
/// The keys of an answered call, with the first parts of the names of calls.
const CALL_KEYS: [&str; 8] = ["stage", "answer", "failure", "http", "kv", "objects", "publish", "secrets"];
/// The keys of what stands in for a program.
const PROGRAM_KEYS: [&str; 4] = ["stage", "item", "outputs", "failure"];
/// How a call is named.
const EXAMPLE: &str = "http = \"GET https://api.example.com/price/1\"";

/// Reads the answer to a call.
pub(super) fn call(file: &mut File<'_>, section: &Section<'_>) -> Option<CaseCall> {
    let known: Vec<&'static str> = CALL_KEYS.into_iter().chain(CALLS).collect();
    file.notes.unknown(section, &known, "a call");
    let stage = file.stages.read(&mut file.notes, section);
    if let Some(stage) = stage.as_ref().filter(|stage| file.stages.has_program(stage)) {
        let text =
            format!("stage `{stage}` runs a program, which makes no calls; `[[case.programs]]` stands in for it");
        file.notes.add("no-call", section.value("stage"), text);
    }
    let (name, target) = named(file, section)?;
    let given = match (section.get("answer"), section.get("failure")) {
        (Some(_), None) => answer(file, &section.clone(), name, &target),
        (None, Some(_)) => failure(file, section),
        (None, None) => {
            file.notes.missing(section, "answer", super::answer::example(name));
            None
        }
        (Some(_), Some(_)) => {
            let text = "the call has an `answer` and a `failure`; write one of them";
            file.notes.add("too-many-keys", section.key("failure"), text);
            None
        }
    };
    Some(CaseCall { stage: stage?, call: name.to_owned(), target, answer: given?, line: file.line(section) })
}

/// Reads the name of a call, and what it is made to.
fn named(file: &mut File<'_>, section: &Section<'_>) -> Option<(&'static str, String)> {
    let mut found = Vec::new();
    for (key, item) in section.table.iter().filter(|(key, _)| !["stage", "answer", "failure"].contains(key)) {
        match item.as_table_like().filter(|_| CALL_KEYS.contains(&key)) {
            Some(table) => {
                found.extend(table.iter().map(|(rest, item)| (format!("{key}.{rest}"), item, section.key(key))));
            }
            None if CALLS.contains(&key) || CALL_KEYS.contains(&key) => {
                found.push((key.to_owned(), item, section.key(key)));
            }
            None => {}
        }
    }
    let (name, item, span) = match found.as_slice() {
        [one] => one.clone(),
        // The name is mistyped, which is told already.
        [] if section.table.iter().any(|(key, _)| !CALL_KEYS.contains(&key) && !CALLS.contains(&key)) => return None,
        [] => {
            let text = format!("the call has no name; write what the task calls, as in `{EXAMPLE}`");
            file.notes.add("missing-key", section.span.clone(), text);
            return None;
        }
        [_, (name, _, span), ..] => {
            let text = format!("the call has two names, the second is `{name}`; write a `[[case.calls]]` for each");
            file.notes.add("too-many-keys", span.clone(), text);
            return None;
        }
    };
    let Some(known) = CALLS.into_iter().find(|known| *known == name) else {
        let help = match nearest(&name, CALLS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("calls are {}", listed(&CALLS)),
        };
        file.notes.add("unknown-call", span, format!("no task can call `{name}`; {help}"));
        return None;
    };
    target(file, known, item, span).map(|target| (known, target))
}

/// Reads what a call is made to.
fn target(file: &mut File<'_>, name: &str, item: &Item, key: std::ops::Range<usize>) -> Option<String> {
    let span = item.as_value().and_then(toml_edit::Value::span).unwrap_or(key);
    let example = match name {
        call::HTTP => EXAMPLE.to_owned(),
        call::KV_KEYS => "kv.keys = \"cache/prefix*\"".to_owned(),
        call::OBJECTS_LIST => "objects.list = \"models/prefix*\"".to_owned(),
        call::PUBLISH => "publish = \"alerts.new\"".to_owned(),
        call::SECRETS_GET => "secrets.get = \"api_token\"".to_owned(),
        _ => format!("{name} = \"{}\"", if name.starts_with("kv") { "cache/key" } else { "models/name" }),
    };
    let Some(text) = item.as_str() else {
        file.notes.add("wrong-type", span, format!("`{name}` is not a text; write `{example}`"));
        return None;
    };
    let read = match name {
        call::HTTP => http(text),
        call::PUBLISH | call::SECRETS_GET => (!text.is_empty()).then(|| text.to_owned()),
        call::KV_KEYS | call::OBJECTS_LIST => text.contains('/').then(|| format!("{}*", text.trim_end_matches('*'))),
        _ => text.contains('/').then(|| text.to_owned()),
    };
    if read.is_none() {
        file.notes.add(
            "invalid-value",
            span,
            format!("`{text}` is nothing that `{name}` is made to; write `{example}`"),
        );
    }
    read
}

/// Returns a method and a URL as a node writes them.
fn http(text: &str) -> Option<String> {
    let (method, url) = text.trim().split_once(' ')?;
    let url = Url::parse(url.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    is_method.then(|| format!("{} {url}", method.to_ascii_uppercase()))
}

/// Reads what stands in for a program.
pub(super) fn stand_in(file: &mut File<'_>, section: &Section<'_>) -> Option<StandIn> {
    file.notes.unknown(section, &PROGRAM_KEYS, "what stands in for a program");
    let stage = file.stages.read(&mut file.notes, section);
    if let Some(stage) = stage.as_ref().filter(|stage| !file.stages.has_program(stage)) {
        let text = format!("stage `{stage}` runs a task, which runs here as on a node; only programs are stood in for");
        file.notes.add("no-program", section.value("stage"), text);
    }
    let item = match section.get("item").map(|item| read(Part::Item(item))) {
        None => None,
        Some(Ok(item)) => Some(item),
        Some(Err(problem)) => {
            file.notes.add("invalid-item", section.value("item"), problem);
            return None;
        }
    };
    let gives = match (section.get("outputs"), section.get("failure")) {
        (Some(_), None) => Given::Outputs(file.items(section, "outputs", "outputs = [{ text = \"hello\" }]")?),
        (None, Some(_)) => program_failure(file, section)?,
        (None, None) => {
            file.notes.missing(section, "outputs", "outputs = [{ text = \"hello\" }]");
            return None;
        }
        (Some(_), Some(_)) => {
            let text = "the program gives `outputs` and a `failure`; write one of them";
            file.notes.add("too-many-keys", section.key("failure"), text);
            return None;
        }
    };
    Some(StandIn { stage: stage?, item, gives, line: file.line(section) })
}

/// Reads how a program fails. `transient` and `fatal` are errors that say whether another attempt is made.
fn program_failure(file: &mut File<'_>, section: &Section<'_>) -> Option<Given> {
    const EXAMPLE: &str = "failure = { kind = \"transient\", reason = \"no page\" }";
    let own = file.notes.section(section, "failure", EXAMPLE)?;
    file.notes.unknown(&own, &["kind", "reason"], "a failure");
    let names: Vec<&str> = ["transient", "fatal"].into_iter().chain(FailureKind::ALL.map(FailureKind::name)).collect();
    let word = file.notes.text(&own, "kind", "kind = \"transient\"").unwrap_or("transient");
    let kind = match word {
        "transient" | "fatal" => Some(FailureKind::Error),
        _ => FailureKind::from_name(word),
    };
    if kind.is_none() {
        let help = match nearest(word, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", listed(&names)),
        };
        file.notes.add("invalid-value", own.value("kind"), format!("no kind of failure is `{word}`; {help}"));
    }
    let reason = file.notes.text(&own, "reason", "reason = \"no page\"").unwrap_or("the program failed").to_owned();
    Some(Given::Failure { kind: kind?, reason, is_transient: word != "fatal" })
}
