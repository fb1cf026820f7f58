//! Reads what a case expects.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::reading::File;
use super::tables::Section;
use crate::cases::case::{Expect, ExpectedDead};
use crate::dead::FailureKind;
use crate::name::{StageName, nearest};

/// The keys of an expectation.
const KEYS: [&str; 3] = ["results", "stage", "dead"];
/// The keys of a dead letter.
const DEAD: [&str; 4] = ["stage", "kind", "reason", "attempts"];

/// Reads an expectation.
pub(super) fn expect(file: &mut File<'_>, section: &Section<'_>) -> Expect {
    for key in ["unordered", "tolerance"].iter().filter(|key| section.get(key).is_some()) {
        let text = format!("`{key}` is a key of the case; write it below `[[case]]`, before other tables");
        file.notes.add("unknown-key", section.key(key), text);
    }
    let known = [&KEYS[..], &["unordered", "tolerance"]].concat();
    file.notes.unknown(section, &known, "an expectation");
    let results = file.items(section, "results", "results = [{ id = 1 }]");
    let stages = stages(file, section);
    let dead = section.get("dead").map(|_| {
        let sections = file.notes.sections(section, "dead", "[[case.expect.dead]]");
        sections.iter().filter_map(|section| dead(file, section)).collect()
    });
    Expect { results, stages, dead, ..Expect::default() }
}

fn stages(file: &mut File<'_>, section: &Section<'_>) -> BTreeMap<StageName, Vec<Bytes>> {
    let Some(own) = file.notes.section(section, "stage", "stage.parse = [{ id = 1 }]") else {
        return BTreeMap::new();
    };
    let mut stages = BTreeMap::new();
    for (name, _) in own.table.iter() {
        let items = file.items(&own, name, &format!("stage.{name} = [{{ id = 1 }}]"));
        if let (Some(stage), Some(items)) = (file.stages.named(&mut file.notes, name, own.key(name)), items) {
            stages.insert(stage, items);
        }
    }
    stages
}

fn dead(file: &mut File<'_>, section: &Section<'_>) -> Option<ExpectedDead> {
    file.notes.unknown(section, &DEAD, "a dead letter");
    let stage = file.stages.read(&mut file.notes, section);
    let kind = kind(file, section);
    let reason = file.notes.text(section, "reason", "reason = \"negative\"").map(str::to_owned);
    let attempts = file.notes.number(section, "attempts", 1);
    Some(ExpectedDead { stage: stage?, kind, reason, attempts })
}

/// Reads the kind of a failure.
fn kind(file: &mut File<'_>, section: &Section<'_>) -> Option<FailureKind> {
    let name = file.notes.text(section, "kind", "kind = \"error\"")?;
    let kind = FailureKind::from_name(name);
    if kind.is_none() {
        let names = FailureKind::ALL.map(FailureKind::name);
        let help = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", super::tables::listed(&names)),
        };
        file.notes.add("invalid-value", section.value("kind"), format!("no kind of failure is `{name}`; {help}"));
    }
    kind
}
