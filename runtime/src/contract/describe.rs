//! Says in words what a schema takes, and why a value does not fit.

use super::datum::Datum;
use super::judge::{Refusal, Step, Why};
use super::kinds::Kinds;
use super::node::{Bound, Count, Id, Node};
use super::read::below;
use crate::frame::json::to_json;

/// The most values or schemas that are listed.
const MAX_LISTED: usize = 4;
/// The most characters of a value that is shown.
const MAX_SHOWN: usize = 60;
/// How many nodes deep a description goes.
const MAX_DEPTH: usize = 3;

/// Returns what fits any of these nodes, in a few words.
pub(super) fn describe_any(nodes: &[Node], ids: impl Iterator<Item = Id>) -> String {
    or(ids.map(|id| describe(nodes, id)))
}

/// Returns what fits this node, in a few words.
pub(super) fn describe(nodes: &[Node], id: Id) -> String {
    at_depth(nodes, id, 0)
}

fn at_depth(nodes: &[Node], id: Id, depth: usize) -> String {
    let node = &nodes[id];
    let logic = &node.logic;
    if let Some(values) = &node.values {
        return or(values.iter().map(shown));
    }
    if depth < MAX_DEPTH {
        let several = logic.any.as_ref().or(logic.one.as_ref()).filter(|_| node.kinds == Kinds::ALL);
        if let Some(several) = several {
            return or(several.iter().map(|id| at_depth(nodes, *id, depth + 1)));
        }
        if let [only] = logic.all.as_slice()
            && node.kinds == Kinds::ALL
        {
            return at_depth(nodes, *only, depth);
        }
    }
    if node.kinds == Kinds::ALL {
        let has_rules = !node.object.properties.is_empty() || !node.object.required.is_empty();
        return if has_rules { "object" } else { "any value" }.to_owned();
    }
    let types = node.kinds.types();
    if types.is_empty() {
        return "nothing".to_owned();
    }
    or(types.into_iter().map(|name| of_type(nodes, node, name, depth)))
}

fn of_type(nodes: &[Node], node: &Node, name: &str, depth: usize) -> String {
    match name {
        "number" | "integer" => {
            let least = node.number.least.iter().map(at_least);
            let bounds: Vec<String> = least.chain(node.number.most.iter().map(at_most)).collect();
            let step = node.number.step.iter().map(|step| format!("a multiple of {step}"));
            let all: Vec<String> = bounds.into_iter().chain(step).collect();
            if all.is_empty() { name.to_owned() } else { format!("{name} {}", all.join(" and ")) }
        }
        "string" => {
            let rules = &node.text;
            let length =
                (rules.length != Count::default()).then(|| format!("of {}", counted(&rules.length, "character")));
            let pattern = rules.pattern.as_ref().map(|pattern| format!("like `{pattern}`"));
            let format = rules.format.as_ref().map(|format| format!("as {format}"));
            [Some(name.to_owned()), format, pattern, length].into_iter().flatten().collect::<Vec<_>>().join(" ")
        }
        "array" => match node.list.rest.filter(|_| depth < MAX_DEPTH && node.list.prefix.is_empty()) {
            Some(items) => format!("array of {}", at_depth(nodes, items, depth + 1)),
            None => name.to_owned(),
        },
        _ => name.to_owned(),
    }
}

fn at_least(bound: &Bound) -> String {
    format!("{} {}", if bound.is_open { ">" } else { "≥" }, bound.value)
}

fn at_most(bound: &Bound) -> String {
    format!("{} {}", if bound.is_open { "<" } else { "≤" }, bound.value)
}

fn counted(count: &Count, what: &str) -> String {
    let number = match (count.least, count.most) {
        (least, Some(most)) if least == most => least.to_string(),
        (0, Some(most)) => format!("at most {most}"),
        (least, Some(most)) => format!("{least} to {most}"),
        (least, None) => format!("at least {least}"),
    };
    format!("{number} {what}{}", if number == "1" || number.ends_with(" 1") { "" } else { "s" })
}

/// Joins what may be, of which there may be too many to list.
fn or(parts: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for part in parts {
        if !all.contains(&part) {
            all.push(part);
        }
    }
    match all.len() {
        0 => "nothing".to_owned(),
        count if count > MAX_LISTED => format!("{} or {} others", all[..MAX_LISTED].join(", "), count - MAX_LISTED),
        _ => all.join(" or "),
    }
}

/// Returns a value as JSON, cut to a line.
fn shown(value: &Datum<'_>) -> String {
    let Some(value) = value.to_value() else { return kind_name(value).to_owned() };
    let json = to_json(&value);
    if json.chars().count() <= MAX_SHOWN {
        return json;
    }
    format!("{}…", json.chars().take(MAX_SHOWN).collect::<String>())
}

/// Returns what people call the kind of a value.
fn kind_name(value: &Datum<'_>) -> &'static str {
    match value {
        Datum::Null => "null",
        Datum::Bool(_) => "boolean",
        Datum::Number(number) if number.is_integer() => "integer",
        Datum::Number(_) => "number",
        Datum::Text(_) => "string",
        Datum::List(_) => "array",
        Datum::Object(_) => "object",
        Datum::Foreign(kind, _) if *kind == Kinds::OTHER => "a value that JSON does not have",
        Datum::Foreign(kind, _) => Kinds::FOREIGN.iter().find(|(each, _)| each == kind).map_or("", |(_, name)| *name),
    }
}

/// Returns a path as a JSON Pointer (RFC 6901).
pub(super) fn pointer(path: &[Step]) -> String {
    path.iter().fold(String::new(), |pointer, step| match step {
        Step::Key(key) => below(&pointer, key),
        Step::Item(at) => below(&pointer, &at.to_string()),
    })
}

/// Returns why this part of an item does not fit.
pub(super) fn reason(nodes: &[Node], refusal: &Refusal, part: &Datum<'_>) -> String {
    let expected = || describe_any(nodes, refusal.ids());
    match &refusal.why {
        Why::Kind(kinds) => format!("is {}, not {}", kind_name(part), or(kinds.types().into_iter().map(str::to_owned))),
        Why::Value | Why::None => format!("is {}, not {}", shown(part), expected()),
        Why::Least(bound) => format!("is {}, not {}", shown(part), at_least(bound)),
        Why::Most(bound) => format!("is {}, not {}", shown(part), at_most(bound)),
        Why::Step(step) => format!("is {}, not a multiple of {step}", shown(part)),
        Why::Length(count) => match part {
            Datum::Text(text) => {
                format!("has {} characters, not {}", text.chars().count(), counted(count, "character"))
            }
            _ => expected(),
        },
        Why::Pattern(pattern) => format!("is {}, which does not match `{pattern}`", shown(part)),
        Why::Items(count) => format!("has {}, not {}", parts(part, "item"), counted(count, "item")),
        Why::Contains => match nodes[refusal.id].list.contains {
            Some(contained) => format!("has no item that is {}", describe(nodes, contained)),
            None => "lacks an item".to_owned(),
        },
        Why::Twice(first, second) => format!("has equal items at {first} and {second}"),
        Why::Missing(name) => format!("lacks `{name}`"),
        Why::Extra(name) => format!("has `{name}`, which it must not have"),
        Why::Name(name) => format!("has the name `{name}`, which is none of those that fit"),
        Why::Size(count) => {
            format!("has {}, not {}", parts(part, "key"), counted(count, "key"))
        }
        Why::Several => "fits more than one of the schemas of a `oneOf`".to_owned(),
        Why::Not => "is what it must not be".to_owned(),
    }
}

fn parts(part: &Datum<'_>, what: &str) -> String {
    let count = match part {
        Datum::List(items) => items.len(),
        Datum::Object(entries) => entries.len(),
        _ => 0,
    };
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Returns the part of a value that a path leads to.
pub(super) fn part_at<'v, 'd>(value: &'v Datum<'d>, path: &[Step]) -> &'v Datum<'d> {
    path.iter().fold(value, |part, step| match (part, step) {
        (Datum::Object(entries), Step::Key(key)) => entries.get(key.as_str()).unwrap_or(part),
        (Datum::List(items), Step::Item(at)) => items.get(*at).unwrap_or(part),
        _ => part,
    })
}
