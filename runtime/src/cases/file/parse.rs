//! Reads one file of cases.

use std::collections::BTreeMap;
use std::path::Path;

use toml_edit::{ImDocument, Item};

use super::expect::expect;
use super::given::{call, stand_in};
use super::keys::Stages;
use super::reading::File;
use super::tables::{Notes, Section};
use super::{Must, Read};
use crate::cases::case::{Case, Expect};
use crate::cases::value::Part;
use crate::chain::Chain;
use crate::diagnostic::{Diagnostic, Source};
use crate::name::{StageName, Topic};

/// The keys of a case.
const KEYS: [&str; 9] = ["name", "items", "topic", "unordered", "tolerance", "config", "calls", "programs", "expect"];
/// How items are written.
const ITEMS: &str = "items = [{ id = 1 }]";

/// Reads the cases of a text as far as they are right. Returns what is wrong too.
pub(super) fn cases(text: &str, path: &Path, chain: &Chain, must: Must) -> (Vec<Read>, Vec<Diagnostic>) {
    let document = match ImDocument::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            return (Vec::new(), vec![Diagnostic::error("toml", error.span().unwrap_or_default(), message)]);
        }
    };
    let source = Source::new(path.display().to_string(), text);
    let mut file = File { text, stages: Stages::of(chain), notes: Notes::default(), path, source, must };
    let root = Section { table: document.as_table(), span: 0..0, is_inline: false };
    file.notes.unknown(&root, &["case"], "a file of cases");
    let sections = file.notes.sections(&root, "case", "[[case]]");
    if sections.is_empty() && file.notes.found.is_empty() {
        file.notes.add("no-case", 0..0, "the file has no case; write `[[case]]`, and below it its name and items");
    }
    let cases = sections.iter().enumerate().filter_map(|(position, section)| file.case(position, section)).collect();
    (cases, file.notes.found)
}

impl File<'_> {
    /// Reads a case. `None` if it lacks what all else is told by.
    fn case(&mut self, position: usize, section: &Section<'_>) -> Option<Read> {
        self.notes.unknown(section, &KEYS, "a case");
        let name = self.name(section);
        if section.get("items").is_none() {
            self.notes.missing(section, "items", ITEMS);
        }
        let items = self.items(section, "items", ITEMS);
        if items.as_ref().is_some_and(Vec::is_empty) {
            let text = format!("the case feeds nothing; write at least one item, as in `{ITEMS}`");
            self.notes.add("tests-nothing", section.value("items"), text);
        }
        let expect = self.expect(section);
        let calls = self.notes.sections(section, "calls", "[[case.calls]]");
        let programs = self.notes.sections(section, "programs", "[[case.programs]]");
        let calls = calls.iter().filter_map(|section| call(self, section)).collect();
        let programs = programs.iter().filter_map(|section| stand_in(self, section)).collect();
        let (topic, config) = (self.topic(section), self.config(section));
        let case = Case {
            // Only now: a case without a name may have other mistakes.
            name: name?,
            file: self.path.to_owned(),
            line: self.line(section),
            position,
            items: items.unwrap_or_default(),
            topic,
            config,
            calls,
            programs,
            expect,
            replayed: None,
        };
        Some(Read { case, name: section.value("name") })
    }

    fn name(&mut self, section: &Section<'_>) -> Option<String> {
        const EXAMPLE: &str = "name = \"a total per order\"";
        if section.get("name").is_none() {
            self.notes.missing(section, "name", EXAMPLE);
        }
        let name = self.notes.text(section, "name", EXAMPLE)?;
        if name.trim().is_empty() {
            self.notes.add("invalid-name", section.value("name"), format!("the name is blank; write `{EXAMPLE}`"));
            return None;
        }
        Some(name.to_owned())
    }

    fn topic(&mut self, section: &Section<'_>) -> Option<Topic> {
        let topic = self.notes.text(section, "topic", "topic = \"eu\"")?;
        topic.parse().map_err(|error| self.notes.add("invalid-name", section.value("topic"), format!("{error}"))).ok()
    }

    fn expect(&mut self, section: &Section<'_>) -> Expect {
        let mut read = Expect::default();
        if let Some(own) = self.notes.section(section, "expect", "[case.expect]") {
            read = expect(self, &own);
        }
        read.unordered = self.notes.flag(section, "unordered").unwrap_or(false);
        read.tolerance = self.notes.amount(section, "tolerance").unwrap_or(0.0);
        let is_right = section.get("expect").is_none_or(Item::is_table_like);
        if self.must == Must::Expect && read.is_empty() && is_right && !has_expectation(section) {
            let text = "the case tests nothing: it expects no `results`, no `stage` and no `dead`; write what it gives \
                        below `[case.expect]`, or let `pcluster test --update` write it";
            self.notes.add("tests-nothing", section.span.clone(), text);
        }
        read
    }

    fn config(&mut self, section: &Section<'_>) -> BTreeMap<StageName, serde_json::Value> {
        let Some(own) = self.notes.section(section, "config", "config.sum.rate = 0.2") else {
            return BTreeMap::new();
        };
        let mut configs = BTreeMap::new();
        for (name, item) in own.table.iter() {
            let Some(stage) = self.stages.named(&mut self.notes, name, own.key(name)) else { continue };
            match super::keys::json(Part::Item(item), &format!("config.{name}")) {
                Ok(config) => drop(configs.insert(stage, config)),
                Err(problem) => self.notes.add("invalid-value", own.value(name), problem),
            }
        }
        configs
    }
}

/// Returns `true` if a case has an expectation, be it right or wrong.
fn has_expectation(section: &Section<'_>) -> bool {
    section.get("expect").and_then(Item::as_table_like).is_some_and(|expect| !expect.is_empty())
}
