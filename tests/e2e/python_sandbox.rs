//! Tasks in Python in their sandbox: what values mean, what a snapshot must not freeze, and how failures are told.

use std::sync::OnceLock;
use std::time::Duration;

use ciborium::Value;
use pcluster::internal::{Isolation, Plugin, to_cbor};
use pcluster_abi::Level;
use support::{Cluster, build_python, repository};

use crate::languages::{distinct, draw};
use crate::tried::{Tried, load};

/// Returns the plugin of all tasks that are tried. It is compiled once.
fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tried.wasm");
        build_python(&repository().join("tests/e2e/plugins/python"), &file).succeeded();
        load(&file)
    })
}

/// Returns a task. No value depends on the time zone.
fn tried(name: &str, config: Value, isolation: Isolation) -> Tried {
    Tried::new(plugin(), name, config, &["TZ=IST-5:30"], isolation)
}

/// Returns the number or text at a key of a map.
fn field<'a>(value: &'a Value, key: &str) -> &'a Value {
    let pairs = value.as_map().unwrap();
    &pairs.iter().find(|(name, _)| name.as_text() == Some(key)).unwrap().1
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn values_mean_in_the_sandbox_what_they_mean_everywhere() {
    let same = tried("same", Value::Null, Isolation::Worker);
    let mut wrong = Vec::new();
    for file in ["values", "python"] {
        let cases = std::fs::read(repository().join(format!("sdk/cases/{file}.json"))).unwrap();
        let cases: Vec<serde_json::Value> = serde_json::from_slice(&cases).unwrap();
        for case in cases {
            let ran = same.run(bytes_of(case["in"].as_str().unwrap()).into());
            let is_right = match (&ran, case["out"].as_str()) {
                (Ok(output), Some(out)) => **output == *bytes_of(out),
                (Err(failure), None) => failure.fatal && failure.reason.starts_with("the item cannot be read: "),
                _ => false,
            };
            if !is_right {
                wrong.push(format!("{}: {ran:x?}", case["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let large = Value::from("ß".repeat(1 << 19));
    assert_eq!(same.value(&large), large);
}

#[test]
fn instances_of_one_snapshot_differ_in_chance_and_time() {
    let chance = tried("chance", Value::Null, Isolation::Item).with_state("chance");
    let runs: Vec<Value> = (0..4).map(|_| chance.value(&Value::Null)).collect();
    for key in ["random", "uuid1", "uuid4", "secrets", "urandom"] {
        let mut values: Vec<String> = runs.iter().map(|run| format!("{:?}", field(run, key))).collect();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), runs.len(), "{key}: {runs:?}");
    }
    for key in ["made", "made_at"] {
        assert!(runs.iter().all(|run| field(run, key) == field(&runs[0], key)), "{key} is of the snapshot: {runs:?}");
    }
    let seconds = |run: &Value, key: &str| field(run, key).as_float().unwrap();
    assert!(runs.iter().all(|run| seconds(run, "now") >= seconds(run, "made_at")), "{runs:?}");
    // Several items run in one millisecond, which is the tick of their clock.
    while seconds(&chance.value(&Value::Null), "now") <= seconds(&runs[0], "now") {}
}

#[test]
fn chance_and_time_differ_under_each_isolation_in_python() {
    let cluster = Cluster::start();
    let file = cluster.path("tried.wasm");
    build_python(&repository().join("tests/e2e/plugins/python"), &file).succeeded();
    let (drawn, fed) = draw(&cluster, &file, "chance");
    let keys = ["random", "uuid1", "uuid4", "secrets", "urandom"];
    assert_eq!(keys.map(|key| distinct(&drawn, key)), [drawn.len(); 5], "{drawn:?}");
    // The clock of a task shows whole milliseconds.
    let since = Duration::from_millis(fed.try_into().unwrap()).as_secs_f64();
    assert!(drawn.iter().all(|all| all["now"].as_f64().unwrap() >= since), "since {since}: {drawn:?}");
}

#[test]
fn what_pure_code_needs_of_the_standard_library_works() {
    let library = tried("library", Value::Null, Isolation::Worker);
    for (name, expected) in [
        ("asyncio", Value::from(6)),
        ("collections", Value::Map(vec![("a".into(), 2.into()), ("b".into(), 1.into())])),
        ("decimal", Value::Tag(4, Box::new(Value::Array(vec![(-1).into(), 3.into()])))),
        ("hashlib", "2d711642".into()),
        ("json", Value::Map(vec![("a".into(), Value::Array(vec![1.5.into(), Value::Null]))])),
        ("datetime", "2026-07-01T00:00:00+00:00".into()),
        ("importlib.resources", "{\"apple\": \"fruit\"}\n".into()),
        ("re", "aNbN".into()),
        ("statistics", 2.into()),
        ("time", Value::Null),
    ] {
        assert_eq!(library.value(&name.into()), Value::Array(vec![expected]), "{name}");
    }
}

#[test]
fn lines_of_the_log_have_their_levels_and_the_context_is_that_of_the_item() {
    let config = Value::Map(vec![("word".into(), "Hi".into())]);
    let say = tried("say", config.clone(), Isolation::Item);
    assert_eq!(say.value(&1.into()), Value::Array(vec!["tried".into(), "tried".into(), 2.into(), config.clone()]));
    let lines = say.lines();
    let expected = [(Level::Debug, "by log"), (Level::Warn, "by logging"), (Level::Info, "by print")];
    assert_eq!(lines, expected.map(|(level, line)| (level, line.to_owned())));
    assert_eq!(tried("word", config, Isolation::Item).value(&1.into()), Value::from("Hi"));
}

#[test]
fn a_failure_says_what_happened_and_what_to_do() {
    let fail = tried("fail", Value::Null, Isolation::Worker);
    for (name, fatal, says) in [
        ("cause", false, &["LookupError: no price; caused by KeyError: 'price'", "File \"tried.py\"", "in price"][..]),
        ("permanent", true, &["never"]),
        ("transient", false, &["later"]),
        ("exit", false, &["SystemExit: 3"]),
        ("os_exit", false, &["exit"]),
        ("late", false, &["ValueError: no table\n  File \"tried.py\"", "\n  File \"late.py\", line 3, in <module>"]),
        ("standard", false, &["ModuleNotFoundError: No module named 'curses'", "no such part of the standard library"]),
        ("bz2", false, &["OSError: the sandbox has no bzip2", "a native worker"]),
        ("lzma", false, &["LZMAError: the sandbox has no LZMA", "a native worker"]),
        ("recursion", false, &["RecursionError: ", "nested, too deeply"]),
        ("memory", false, &["MemoryError", "the stage's `memory`"]),
        ("module", false, &["ModuleNotFoundError: No module named 'numpy'", "requirements.txt"]),
        ("thread", false, &["can't start new thread", "the sandbox has no threads"]),
        ("socket", false, &["the sandbox has no network"]),
        ("open", false, &["FileNotFoundError", "importlib.resources"]),
        ("process", false, &["the sandbox starts no processes"]),
        ("set", true, &["the output cannot be written: a value of type set cannot be an output; a set has no order"]),
        ("naive", true, &["the output cannot be written: a datetime without a time zone"]),
        ("surrogate", true, &["the output cannot be written: ", "surrogates not allowed"]),
        ("nested", true, &["the output cannot be written: nested too deeply"]),
        ("forever", false, &["RuntimeError: the task waits for what cannot come"]),
    ] {
        let failure = fail.run(to_cbor(&name)).unwrap_err();
        assert!(says.iter().all(|part| failure.reason.contains(part)), "{name}: {}", failure.reason);
        assert!(!failure.reason.contains("engine.py"), "{name}: {}", failure.reason);
        assert_eq!(failure.fatal, fatal, "{name}: {}", failure.reason);
        let delay = (name == "transient").then_some(Duration::from_secs(2));
        assert_eq!(failure.retry_after, delay, "{name}");
    }
    let lines = fail.lines();
    assert!(lines.iter().all(|(_, line)| line == "half a line"), "{lines:?}");
    let misfit = tried("typed", Value::Null, Isolation::Item).run(to_cbor(&"7")).unwrap_err();
    assert_eq!((&*misfit.reason, misfit.fatal), ("the item is not of type `int`: str instead of int", true));
    let word = tried("word", Value::Null, Isolation::Item).run(to_cbor(&1)).unwrap_err();
    assert_eq!((&*word.reason, word.fatal), ("no word to give", true));
}
