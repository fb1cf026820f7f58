//! `pcluster test`: the cases of a chain, without a server and without the world.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Run, json_lines, pcluster, plugin};

/// Makes a chain in a folder: tasks that obey their items with an inline stage after them, a task that calls, and a program.
fn chain(folder: &Path) {
    let plugin = plugin("probe");
    let manifest = format!(
        "name = \"tested\"\nversion = \"1.0\"\n\
         [[stage]]\nname = \"obey\"\nplugin = \"{plugin}\"\nretry = {{ attempts = 3, backoff = [\"1h\"] }}\n\
         [[stage]]\nname = \"mark\"\nplugin = \"{plugin}\"\ninline = true\nconfig = {{ mark = \"x\", more = {{ a = 1 }} }}\n"
    );
    fs::write(folder.join("chain.toml"), manifest).unwrap();
    fs::create_dir(folder.join("cases")).unwrap();
}

/// Makes a chain of one task that makes the calls that its item names.
fn asking(folder: &Path) {
    let plugin = plugin("probe");
    let manifest = format!(
        "name = \"asking\"\nversion = \"1.0\"\n[[stage]]\nname = \"ask\"\nplugin = \"{plugin}\"\nretry = {{ attempts = 2 }}\n\
         [stage.allow]\nhttp = [\"https://api.example.com/\"]\nkv.cache = \"read-write\"\nobjects.models = \"read-write\"\n\
         publish = [\"alerts.>\"]\nsecrets = {{ token = \"https://api.example.com/\" }}\n"
    );
    fs::write(folder.join("chain.toml"), manifest).unwrap();
    fs::create_dir(folder.join("cases")).unwrap();
}

/// Runs `pcluster test` in a folder, with no server within reach.
fn test(folder: &Path, arguments: &[&str]) -> Run {
    let mut command = Command::new(pcluster());
    command.arg("test").args(arguments).current_dir(folder).env("PCLUSTER_NATS", "nats://127.0.0.1:1");
    Run::of(command, b"")
}

/// Runs these cases in a folder of their own.
fn cases(make: fn(&Path), cases: &str, arguments: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    fs::write(folder.path().join("cases/all.toml"), cases).unwrap();
    test(folder.path(), arguments)
}

/// Every item of these comes to what is expected: several outputs, none, a retry after an hour, dead letters in either stage.
const PASSING: &str = r#"
[[case]]
name = "outputs"
items = ["repeat 2", "repeat 0", "as"]
[case.expect]
results = [{ mark = "x", item = "repeat 2" }, { mark = "x", item = "repeat 2" }, { mark = "x", item = "as" }]
stage.obey = ["repeat 2", "repeat 2", "as"]

[[case]]
name = "retries"
items = ["flaky 2", "flaky 9", "fatal"]
[case.expect]
results = [{ mark = "x", item = "flaky 2" }]
[[case.expect.dead]]
stage = "obey"
kind = "error"
reason = "not yet"
attempts = 3
[[case.expect.dead]]
stage = "obey"
reason = "for good"
attempts = 1

[[case]]
name = "config"
items = ["as"]
config.mark.mark = "y"
[case.expect]
results = [{ mark = "y", item = "as" }]
"#;

#[test]
fn cases_pass_that_come_to_what_they_expect_and_say_what_they_reach() {
    let ran = cases(chain, PASSING, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("3 passed, 0 failed in "), "{}", ran.stdout);
    for told in ["stage `obey`: ", "stage `mark`: "] {
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
    let quiet = cases(chain, PASSING, &["--quiet"]);
    assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (Some(0), "", ""));
    let documents = json_lines(&cases(chain, PASSING, &["--json", "--filter", "re"]).succeeded());
    assert_eq!(documents[0]["case"], "retries");
    assert_eq!((&documents[0]["passed"], &documents[0]["line"]), (&json!(true), &json!(9)));
    let last = documents.last().unwrap();
    assert_eq!((&last["passed"], &last["failed"]), (&json!(1), &json!(0)));
    assert!(last["covered"]["obey"].as_array().unwrap().contains(&Value::from("error")), "{last}");
}

#[test]
fn a_case_that_fails_is_told_with_the_places_that_differ() {
    for (case, says) in [
        (
            "items = [\"as\"]\n[case.expect]\nresults = [{ mark = \"z\", item = \"as\" }]",
            "results[0]/mark: expected \"z\", got \"x\"",
        ),
        ("items = [\"as\"]\n[case.expect]\nstage.obey = []", "stage.obey"),
        ("items = [\"fatal\"]\n[case.expect]\nresults = []", "told to fail for good"),
        ("items = [\"as\"]\n[[case.expect.dead]]\nstage = \"obey\"", "dead"),
        ("items = [\"flaky 1\"]\n[[case.programs]]\nstage = \"run\"\noutputs = []\n[case.expect]\nresults = []", "run"),
    ] {
        let text = format!("[[case]]\nname = \"it\"\n{case}\n");
        let ran = cases(chain, &text, &[]);
        let status = if text.contains("\"run\"") { 2 } else { 1 };
        let told = ran.failed(status, "");
        assert!(told.stderr.contains(says), "{case}: {}", told.stderr);
        assert_eq!(told.stderr.contains("failed: it (cases/all.toml:1)"), status == 1, "{}", told.stderr);
    }
}

#[test]
fn calls_are_answered_by_the_case_alone() {
    let item = r#"items = [{ do = [{ call = "kv.get", request = { bucket = "cache", key = "k" } }] }]"#;
    let answer = "[[case.calls]]\nstage = \"ask\"\nkv.get = \"cache/k\"\nanswer = { value = \"v\" }\n";
    let expect = "[case.expect]\n";
    let case = |more: &str| format!("[[case]]\nname = \"it\"\n{item}\n{more}");
    let passes = cases(asking, &case(&format!("{answer}{expect}stage.ask = []")), &["--json"]);
    let wrong = json_lines(&passes.stdout)[0]["wrong"].to_string();
    assert!(wrong.contains("revision") && !wrong.contains("no answer"), "{wrong}");
    for (more, says) in [
        (format!("{expect}results = []"), "stage `ask` calls `kv.get cache/k`, and the case has no answer to it; add:"),
        (format!("{answer}{answer}{expect}results = []"), "nobody asked for the answer of line "),
    ] {
        let told = cases(asking, &case(&more), &[]).failed(1, "");
        assert!(told.stderr.contains(says), "{}", told.stderr);
    }
}

#[test]
fn update_writes_what_cases_give_and_then_they_pass() {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path());
    let file = folder.path().join("cases/all.toml");
    fs::write(&file, "# kept\n[[case]]\nname = \"it\" # too\nitems = [\"as\", \"fatal\"]\n").unwrap();
    let told = test(folder.path(), &[]).failed(2, "");
    assert!(told.stderr.contains("tests nothing"), "{}", told.stderr);
    let updated = test(folder.path(), &["--update"]);
    assert_eq!(updated.code, Some(0), "{}", updated.stderr);
    assert!(updated.stderr.contains("updated `it` in cases/all.toml: "), "{}", updated.stderr);
    let once = fs::read_to_string(&file).unwrap();
    assert!(once.starts_with("# kept\n[[case]]\nname = \"it\" # too\n") && once.contains("results = "), "{once}");
    test(folder.path(), &["--update"]).succeeded();
    assert_eq!(fs::read_to_string(&file).unwrap(), once);
    let report = folder.path().join("report.xml");
    test(folder.path(), &["--junit", report.to_str().unwrap()]).succeeded();
    assert!(fs::read_to_string(report).unwrap().contains("<testcase name=\"it\" classname=\"tested.cases.all\""));
}

#[test]
fn without_a_case_the_first_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path());
    let told = test(folder.path(), &[]).failed(4, "");
    assert!(told.stderr.contains("[[case]]\nname = \"the first\""), "{}", told.stderr);
    fs::write(folder.path().join("cases/all.toml"), PASSING).unwrap();
    let told = test(folder.path(), &["--filter", "nothing"]).failed(4, "");
    assert!(told.stderr.contains("no case has `nothing` in its name or file"), "{}", told.stderr);
}
