//! What the tests of other languages share: their compilers, and the cases that say what values mean in each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use ciborium::Value;
use support::{Cluster, NatsClient, Run, json_lines, lines, repository};

/// Provides a compiler with a script of `.make`. It is downloaded once.
pub fn provide(script: &str) {
    Run::of(Command::new(repository().join(".make").join(script)), b"").succeeded();
}

/// Returns a command in a folder of the repository.
pub fn command_in(folder: &str, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).current_dir(repository().join(folder));
    command
}

/// Runs `make` in a folder of the repository.
pub fn make(folder: &str, arguments: &[&str]) -> String {
    Run::of(command_in(folder, "make", &[&["--silent"], arguments].concat()), b"").succeeded()
}

/// Returns the path of a program that a script of `.make` provides.
pub fn tool(name: &str) -> PathBuf {
    repository().join(".tools/bin").join(name)
}

/// A value, and what an SDK makes of it.
pub struct Case {
    /// What the case is about.
    pub name: String,
    /// The bytes of the item.
    pub item: Vec<u8>,
    /// The item with the same meaning that a task returns. `None` if the item is refused.
    pub returned: Option<Vec<u8>>,
}

/// Returns the cases that all SDKs share, and those of this one.
pub fn cases(language: &str) -> Vec<Case> {
    let cases = ["values", language].into_iter().flat_map(|file| {
        let text = std::fs::read_to_string(repository().join(format!("sdk/cases/{file}.json"))).unwrap();
        serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap()
    });
    let text = |case: &serde_json::Value, key: &str| case[key].as_str().map(ToOwned::to_owned);
    let cases: Vec<Case> = cases
        .map(|case| {
            let returned = text(&case, "out").map(|out| bytes(&out));
            Case { name: text(&case, "name").unwrap(), item: bytes(&text(&case, "in").unwrap()), returned }
        })
        .collect();
    assert!(cases.len() > 20, "{} cases", cases.len());
    cases
}

/// Returns the bytes of a text in hexadecimal.
pub fn bytes(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Returns the one form of all items with the same meaning.
pub fn meaning(item: &[u8]) -> Vec<u8> {
    let value: Value = ciborium::from_reader(item).unwrap();
    let mut written = Vec::new();
    ciborium::into_writer(&plain(value), &mut written).unwrap();
    written
}

/// Sorts maps, of whose equal keys the last counts. Makes one number of all that are not one.
fn plain(value: Value) -> Value {
    match value {
        Value::Float(float) if float.is_nan() => Value::Float(f64::NAN),
        Value::Array(values) => Value::Array(values.into_iter().map(plain).collect()),
        Value::Tag(tag, content) => Value::Tag(tag, Box::new(plain(*content))),
        Value::Map(entries) => {
            let sorted: BTreeMap<Vec<u8>, (Value, Value)> = entries
                .into_iter()
                .map(|(key, value)| {
                    let key = plain(key);
                    let mut order = Vec::new();
                    ciborium::into_writer(&key, &mut order).unwrap();
                    (order, (key, plain(value)))
                })
                .collect();
            Value::Map(sorted.into_values().collect())
        }
        other => other,
    }
}

/// Returns the one form of all items with the same meaning in a language. In JavaScript 1.0 is 1.
fn meaning_in(language: &str, item: &[u8]) -> Vec<u8> {
    if language != "javascript" {
        return meaning(item);
    }
    let mut written = Vec::new();
    ciborium::into_writer(&whole(ciborium::from_reader(item).unwrap()), &mut written).unwrap();
    meaning(&written)
}

/// Makes integers of the floats that are equal to one.
fn whole(value: Value) -> Value {
    /// 2^53.
    const SAFE: f64 = 9_007_199_254_740_992.0;
    match value {
        #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is small")]
        Value::Float(float)
            if float.fract() == 0.0 && float.abs() < SAFE && (float != 0.0 || float.is_sign_positive()) =>
        {
            Value::from(float as i64)
        }
        Value::Array(values) => Value::Array(values.into_iter().map(whole).collect()),
        Value::Tag(tag, content) => Value::Tag(tag, Box::new(whole(*content))),
        Value::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| (whole(key), whole(value))).collect()),
        other => other,
    }
}

/// Runs the cases through the task `echo` of a plugin on a node, and checks what comes back.
pub fn check_cases(cluster: &Cluster, language: &str, plugin: &Path) {
    cluster.deploy(&chain("cases", plugin, &["echo"], ""));
    let _node = cluster.node("cases");
    let client = NatsClient::connect(cluster);
    let cases: Vec<Case> = cases(language).into_iter().filter(|case| !is_frame(case)).collect();
    for case in &cases {
        client.publish("pcluster.cases.in", &[], case.item.clone()).unwrap();
    }
    cluster.ok(&["wait", "cases"]);
    let refused = cases.iter().filter(|case| case.returned.is_none()).count();
    let mut expected: Vec<Vec<u8>> =
        cases.iter().flat_map(|case| &case.returned).map(|item| meaning_in(language, item)).collect();
    let mut returned: Vec<Vec<u8>> =
        client.all_items("PCLUSTER_cases_OUT").iter().map(|message| meaning_in(language, &message.payload)).collect();
    expected.sort();
    returned.sort();
    let missing = cases
        .iter()
        .filter(|case| case.returned.as_ref().is_some_and(|item| !returned.contains(&meaning_in(language, item))));
    let missing: Vec<&str> = missing.map(|case| case.name.as_str()).collect();
    assert!(missing.is_empty(), "{missing:?} did not come back: {}", cluster.ok(&["dead", "ls", "cases"]));
    assert_eq!(returned, expected);
    assert_eq!(cluster.status("cases")["dead"], refused);
}

/// Returns `true` if a node takes the bytes of a case for no item, or for several, as no task can be given them.
fn is_frame(case: &Case) -> bool {
    let mut rest = &case.item[..];
    while !rest.is_empty() {
        if ciborium::from_reader::<Value, _>(&mut rest).is_err() {
            return false;
        }
    }
    case.returned.is_none()
}

/// Returns a manifest with a stage for each task of a plugin.
pub fn chain(name: &str, plugin: &Path, tasks: &[&str], rest: &str) -> String {
    tasks.iter().fold(format!("name = \"{name}\"\nversion = \"1.0\"\n"), |manifest, task| {
        manifest + &format!("[[stage]]\nname = \"{task}\"\nplugin = \"{}\"\n{rest}\n", plugin.display())
    })
}

/// Runs a task in each isolation: 20 items in instances from a snapshot, which take 3 at most. Returns all
/// outputs, and the milliseconds since 1970 before the first item.
pub fn draw(cluster: &Cluster, plugin: &Path, task: &str) -> (Vec<serde_json::Value>, u128) {
    let chains = [("item", ""), ("frame", "reuse = 3"), ("worker", "reuse = 3")].map(|(isolation, reuse)| {
        let name = format!("{task}-{isolation}");
        cluster.deploy(&chain(&name, plugin, &[task], &format!("isolation = \"{isolation}\"\n{reuse}")));
        name
    });
    let _node = cluster.node("a");
    let fed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    for name in &chains {
        cluster.run_with_input(&["feed", name, "--pack-items", "5"], lines(0..20)).succeeded();
    }
    let outputs = chains.iter().flat_map(|name| {
        cluster.ok(&["wait", name]);
        cluster.pull_all(name)
    });
    let outputs: Vec<serde_json::Value> = outputs.collect();
    assert_eq!(outputs.len(), 60, "{outputs:?}");
    (outputs, fed)
}

/// Returns how many values there are at a key or position of the outputs.
pub fn distinct(outputs: &[serde_json::Value], at: impl serde_json::value::Index + Copy) -> usize {
    outputs.iter().map(|output| output[at].to_string()).collect::<BTreeSet<_>>().len()
}

/// Feeds texts to a chain of one task, one after the other. Returns what became of each: its result, the reason of its failure, or
/// nothing.
pub fn each(cluster: &Cluster, chain: &str, items: &[&str]) -> Vec<String> {
    let handle = |item: &&str| {
        cluster.ok(&["feed", chain, &format!("\"{item}\"")]);
        cluster.ok(&["wait", chain]);
        let result = cluster.ok(&["pull", chain, "--all"]);
        if !result.is_empty() {
            return result.trim().to_owned();
        }
        let letters = json_lines(&cluster.ok(&["dead", "show", chain, "--all", "--json"]));
        cluster.ok(&["dead", "drop", chain, "--all"]);
        letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect()
    };
    items.iter().map(handle).collect()
}
