use super::*;
use crate::cases::case::Expect;
use crate::cases::file::{Must, read_text_of};
use crate::cases::outcome::Died;
use crate::cases::random::Random;
use crate::dead::FailureKind;
use crate::frame::format::to_cbor;
use crate::frame::json::read::document;

const PATH: &str = "cases/a.toml";

fn read(text: &str) -> Vec<Case> {
    let (cases, mistakes) = read_text_of(text, Path::new(PATH), Must::Feed);
    assert_eq!(mistakes, [], "{text}");
    cases
}

fn items(lines: &[&str]) -> Vec<bytes::Bytes> {
    lines.iter().map(|line| document(line.as_bytes(), 1).expect("JSON")).collect()
}

fn died(stage: &str, reason: &str, attempts: u64) -> Died {
    let stage = stage.parse().expect("a name");
    Died { stage, kind: FailureKind::Error, reason: reason.to_owned(), attempts, item: bytes::Bytes::new() }
}

/// Updates the first case of a text. Checks that it passes then, and that another update changes nothing.
fn update_with(text: &str, outcome: &Outcome) -> String {
    let once = |text: &str| {
        let cases = read(text);
        if !cases[0].expect.is_empty() && compare(&cases[0], outcome).is_empty() {
            return text.to_owned();
        }
        let (new, changed) = updated(Path::new(PATH), text, &[(&cases[0], outcome)]).expect("updated");
        assert!(!changed.is_empty(), "{text}\n{new}");
        new
    };
    let new = once(text);
    let case = &read(&new)[0];
    assert!(!case.expect.is_empty(), "{new}");
    assert_eq!(compare(case, outcome), [], "{text}\nbecame\n{new}");
    // Whatever passes is left alone; even if it is written again, it stays.
    assert_eq!(updated(Path::new(PATH), &new, &[(case, outcome)]).expect("updated").0, new);
    new
}

fn results(lines: &[&str]) -> Outcome {
    Outcome { results: items(lines), ..Outcome::default() }
}

#[test]
fn only_what_differs_is_written() {
    let head = "# first\n[[case]] # one\nname = \"a\"\nitems = [1]\n";
    let tail = "\n\n# second\n[[case]]\nname = \"b\"\nitems = [2]\nexpect.results = [ 7 ]\n";
    for (before, got, after) in [
        (
            "[case.expect]\nresults = [1, 0x2, 3] # all",
            vec!["1", "2", "4"],
            "[case.expect]\nresults = [1, 0x2, 4] # all",
        ),
        ("expect.results = [1,  2]", vec!["1"], "expect.results = [1]"),
        ("expect.results = [1,  2]", vec![], "expect.results = []"),
        ("expect = { results = [] }", vec!["1", "null"], "expect = { results = [1, { json = 'null' }] }"),
        ("expect.results = [1]", vec!["1", "2"], "expect.results = [1, 2]"),
        (
            "[case.expect]\nresults = [\n  1, # one\n  2, # two\n]",
            vec!["1", "2", "3"],
            "[case.expect]\nresults = [\n  1, # one\n  2, # two\n  3,\n]",
        ),
        (
            "[case.expect]\nresults = [\n  1, # one\n  2 # two\n]",
            vec!["1", "2", "3"],
            "[case.expect]\nresults = [\n  1, # one\n  2, # two\n  3,\n]",
        ),
        (
            "[case.expect]\nresults = [\n  1, # one\n  2, # two\n]",
            vec!["1"],
            "[case.expect]\nresults = [\n  1, # one # two\n]",
        ),
        (
            "[case.expect]\nresults = '''\n{\"a\":  1}\n2\n'''",
            vec!["{\"a\":1}", "{\"b\":null}"],
            "[case.expect]\nresults = '''\n{\"a\":  1}\n{\"b\":null}\n'''",
        ),
        ("", vec!["1"], "\n[case.expect]\nresults = [1]"),
        ("[case.expect] # later", vec!["1"], "[case.expect] # later\nresults = [1]"),
        ("expect = {}", vec!["1"], "expect = { results = [1] }"),
    ] {
        let before = if before.is_empty() { head.trim_end().to_owned() } else { format!("{head}{before}") };
        let after =
            if after.starts_with('\n') { format!("{}\n{after}", head.trim_end()) } else { format!("{head}{after}") };
        let new = update_with(&format!("{before}{tail}"), &results(&got));
        assert_eq!(new, format!("{after}{tail}"));
    }
}

#[test]
fn a_case_between_braces_is_updated_too() {
    let new = update_with("case = [{ name = \"a\", items = [1] }]\n", &results(&["1"]));
    assert_eq!(new, "case = [{ name = \"a\", items = [1], expect = { results = [1] } }]\n");
    let new = update_with("case = [{ name = \"a\", items = [1], expect = { results = [2] } }]\n", &results(&["1"]));
    assert_eq!(new, "case = [{ name = \"a\", items = [1], expect = { results = [1] } }]\n");
}

#[test]
fn lines_keep_their_ends_and_what_json_lacks_becomes_a_list() {
    let new = update_with("[[case]]\r\nname = \"a\"\r\nitems = [1]\r\n", &results(&["1"]));
    assert_eq!(new, "[[case]]\r\nname = \"a\"\r\nitems = [1]\r\n\r\n[case.expect]\r\nresults = [1]\r\n");
    let bytes = Outcome { results: vec![to_cbor(&ciborium::Value::Bytes(vec![1]))], ..Outcome::default() };
    let new = update_with("[[case]]\nname = \"a\"\nitems = [1]\nexpect.results = '''\n1\n'''\n", &bytes);
    assert!(new.ends_with("expect.results = [{ cbor = \"4101\" }]\n"), "{new}");
}

#[test]
fn dead_letters_are_written_with_the_keys_that_they_have() {
    let head = "[[case]]\nname = \"a\"\nitems = [1]\n";
    let dead = |dead: Vec<Died>| Outcome { dead, ..Outcome::default() };
    for (before, came, after) in [
        (
            "[[case.expect.dead]]\nstage = \"sum\" # it\nreason = \"zero\"\nattempts = 1\n",
            vec![died("sum", "negative", 3)],
            "[[case.expect.dead]]\nstage = \"sum\" # it\nreason = \"negative\"\nattempts = 3\n",
        ),
        ("[[case.expect.dead]]\nstage = \"sum\"\n", vec![], "[case.expect]\ndead = []\n"),
        (
            "[case.expect]\nresults = []\n",
            vec![died("sum", "\"a\"", 1)],
            "[case.expect]\nresults = []\n\n[[case.expect.dead]]\nstage = \"sum\"\nreason = \"\\\"a\\\"\"\n",
        ),
        (
            "expect.results = []\n",
            vec![died("sum", "a", 1)],
            "expect.results = []\nexpect.dead = [{ stage = \"sum\", reason = \"a\" }]\n",
        ),
        (
            "expect = { results = [] }\n",
            vec![died("sum", "a", 1)],
            "expect = { results = [], dead = [{ stage = \"sum\", reason = \"a\" }] }\n",
        ),
        (
            "[case.expect]\ndead = [{ stage = \"sum\", kind = \"trap\" }]\n",
            vec![died("parse", "a", 1), died("sum", "b", 1)],
            "[case.expect]\ndead = [{ stage = \"sum\", kind = \"error\" }, { stage = \"parse\", reason = \"a\" }]\n",
        ),
    ] {
        assert_eq!(update_with(&format!("{head}{before}"), &dead(came)), format!("{head}{after}"));
    }
}

#[test]
fn whatever_comes_passes_after_an_update_and_a_second_one_changes_nothing() {
    let shapes = [
        "[case.expect]\nresults = RESULTS # c\nstage.parse = STAGE\n[[case.expect.dead]] # d\nstage = \"sum\"\nreason = \"x\"\n",
        "expect.results = RESULTS\n",
        "expect = { stage.parse = STAGE, dead = [] }\n",
        "[case.expect.stage]\nparse = STAGE\n",
        "[[case.expect.dead]]\nstage = \"sum\"\n[[case.expect.dead]]\nstage = \"parse\"\nattempts = 2\n# end\n",
        "",
    ];
    let mut random = Random::new(3);
    for round in 0..400 {
        let mut list = |most: u64| -> Vec<bytes::Bytes> {
            let length = random.below(most);
            (0..length).map(|_| to_cbor(&random.value(2))).collect()
        };
        let (one, two, three) = (list(5), list(5), list(4));
        let mut written: Vec<String> = one.iter().map(|item| crate::cases::value::write(item)).collect();
        if round % 3 == 0 && !written.is_empty() {
            written = vec![format!("\n  {} # note\n", written.join(", # note\n  "))];
        }
        let shape = shapes[round % shapes.len()];
        let text = shape
            .replace("RESULTS", &format!("[{}]", written.join(", ")))
            .replace("STAGE", &items::fresh(&three, "\n"));
        let unordered = if round % 2 == 0 { "unordered = true\n" } else { "" };
        let text =
            format!("[[case]]\nname = \"a\"\nitems = [1]\n{unordered}{text}\n[[case]]\nname = \"b\"\nitems = [1]\n");
        if shape.contains("= { stage")
            && text.lines().any(|line| line.trim_start().starts_with("expect = {") && !line.ends_with('}'))
        {
            continue;
        }
        let mut outcome = Outcome { results: two, ..Outcome::default() };
        // Some of what was expected comes, too.
        outcome.results.extend(one.into_iter().step_by(2));
        outcome.stages.insert(
            "parse".parse().expect("a name"),
            three.into_iter().skip(1).chain(outcome.results.clone()).collect(),
        );
        for _ in 0..random.below(4) {
            let stage = if random.below(2) == 0 { "sum" } else { "parse" };
            outcome.dead.push(died(stage, &random.text(), 1 + random.below(3)));
        }
        update_with(&text, &outcome);
    }
}

#[test]
fn a_file_that_changed_meanwhile_is_not_written() {
    let text = "[[case]]\nname = \"a\"\nitems = [1]\n";
    let case = &read(text)[0];
    let moved = updated(Path::new(PATH), "[[case]]\nname = \"b\"\nitems = [1]\n", &[(case, &results(&[]))]);
    let said = moved.expect_err("another case").to_string();
    assert_eq!(said, "cannot update `cases/a.toml`: it has changed since the case `a` was read; run the command again");
    assert!(matches!(case.expect, Expect { results: None, .. }));
}
