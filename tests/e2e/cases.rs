//! `pcluster test`: the cases of a chain, without a server and without the world.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Run, json_lines, pcluster, plugin};

/// What tasks of the probe that call must be granted.
const ALLOW: &str = r#"[stage.allow]
http = ["https://api.example.com/"]
kv.cache = "read-write"
objects.models = "read-write"
publish = ["alerts.>"]
secrets = { token = "https://api.example.com/" }
"#;

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
         {ALLOW}"
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

/// Makes a chain of a program and of a task whose initializer calls.
fn world(folder: &Path) {
    let plugin = plugin("probe");
    let manifest = format!(
        "name = \"world\"\nversion = \"1.0\"\n[[stage]]\nname = \"native\"\nexec = [\"no-such-program\"]\nneeds = {{ gpus = 8 }}\n\
         retry = {{ attempts = 2, backoff = [\"1h\"] }}\n\
         [[stage]]\nname = \"cached\"\nplugin = \"{plugin}\"\n\
         config = {{ do = [{{ call = \"kv.get\", request = {{ bucket = \"cache\", key = \"k\" }} }}] }}\n{ALLOW}"
    );
    fs::write(folder.join("chain.toml"), manifest).unwrap();
    fs::create_dir(folder.join("cases")).unwrap();
}

#[test]
fn no_program_starts_and_initializers_are_answered() {
    let answer = "[[case.calls]]\nstage = \"cached\"\nkv.get = \"cache/k\"\n";
    let stand_in = "[[case.programs]]\nstage = \"native\"\n";
    let case = |name: &str, more: &str| format!("[[case]]\nname = \"{name}\"\nitems = [1, 2]\n{more}\n");
    let none = format!("{answer}failure = {{ kind = \"not_found\", message = \"no\" }}\n");
    let good = [
        case(
            "outputs",
            &format!(
                "{none}{stand_in}item = 1\noutputs = [\"a\", \"b\"]\n{stand_in}item = 2\noutputs = []\n\
                 [case.expect]\nstage.native = [\"a\", \"b\"]"
            ),
        ),
        case(
            "failures",
            &format!(
                "{none}{stand_in}item = 1\nfailure = {{ kind = \"transient\", reason = \"busy\" }}\n{stand_in}outputs = []\n\
                 [[case.expect.dead]]\nstage = \"native\"\nreason = \"busy\"\nattempts = 2"
            ),
        ),
    ];
    let ran = cases(world, &good.concat(), &[]);
    assert!(ran.stdout.starts_with("2 passed, 0 failed"), "{}", ran.stderr);
    for (more, says) in [
        (format!("{none}[case.expect]\nresults = []"), "stage `native` runs a program, which a test does not start"),
        (format!("{stand_in}outputs = []\n[case.expect]\nresults = []"), "stage `cached` calls `kv.get cache/k`"),
        (
            format!("{none}{stand_in}outputs = []\n{stand_in}item = 3\noutputs = []\n[case.expect]\nresults = []"),
            "no item of stage `native` came to what stands in for its program in line ",
        ),
    ] {
        let told = cases(world, &case("it", &more), &[]).failed(1, "");
        assert!(told.stderr.contains(says), "{more}: {}", told.stderr);
    }
}

#[test]
fn cases_of_many_configurations_share_an_engine() {
    let case = |number: u32| {
        format!(
            "[[case]]\nname = \"{number}\"\nitems = [\"as\"]\nconfig.mark.mark = \"{number}\"\n\
             [case.expect]\nresults = [{{ mark = \"{number}\", item = \"as\" }}]\n"
        )
    };
    let ran = cases(chain, &(0..60).map(case).collect::<String>(), &["--quiet"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
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
