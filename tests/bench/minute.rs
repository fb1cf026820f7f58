//! From nothing to a result: `new`, `build`, `check`, `test`, `deploy`, `feed` and `pull` in each language, each step timed.
//!
//! The compilers are there, and what they build once, as a C library. The folder is empty, and the node has compiled nothing. A second
//! plugin of the language then finds what the first has left.

use std::process::Command;
use std::time::Instant;

use support::{Cluster, Process};

use crate::authors::{Author, LANGUAGES, Language};
use crate::beside::said;
use crate::report::{Row, Spread, markdown};
use crate::series::Settings;

/// The steps.
const STEPS: [&str; 7] = ["new", "build", "check", "test", "deploy", "feed", "pull"];
/// How many of the steps lead to a chain that is deployed.
const DEPLOYED: usize = 5;
/// What is fed.
const ITEM: &str = r#"{"word": "example"}"#;
/// What comes of it.
const RESULT: &str = r#"{"word":"example","letters":7}"#;

/// The seconds of each step.
type Seconds = [f64; STEPS.len()];

/// What a language took.
struct Timed {
    first: Seconds,
    second: Seconds,
}

/// Times each step in each language, and prints a table.
pub fn run(settings: Settings) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut lines = Vec::new();
    for language in &LANGUAGES {
        let timed = match (0..settings.rounds).map(|_| timed(language)).collect::<Result<Vec<Timed>, String>>() {
            Ok(timed) => timed,
            Err(why) => {
                lines.push(vec![language.title.to_owned(), format!("not available: {why}")]);
                rows.push(Row::new("minute", language.title, None, "s").missing(why));
                continue;
            }
        };
        let spread = |figure: &dyn Fn(&Timed) -> f64| Spread::of(timed.iter().map(figure));
        let sum = |seconds: &Seconds| seconds.iter().sum::<f64>();
        let mut figures: Vec<(&str, Option<Spread>)> =
            STEPS.iter().enumerate().map(|(index, step)| (*step, spread(&|timed| timed.first[index]))).collect();
        figures.push(("in all", spread(&|timed| sum(&timed.first))));
        figures.push(("a second plugin, in all", spread(&|timed| sum(&timed.second))));
        let cells = figures.iter().map(|(_, spread)| spread.map_or_else(String::new, Spread::shown));
        lines.push([language.title.to_owned()].into_iter().chain(cells).collect());
        let row = |(step, spread)| Row::new("minute", format!("{}: {step}", language.title), spread, "s");
        rows.extend(figures.into_iter().map(row));
    }
    let steps = STEPS.map(|step| format!("`{step}`"));
    let steps = steps.iter().map(String::as_str);
    let head: Vec<&str> = ["seconds"].into_iter().chain(steps).chain(["in all", "a second plugin, in all"]).collect();
    println!("{}", markdown(&head, &lines));
    rows
}

/// Returns the seconds from nothing to a chain that is deployed, in one language.
pub fn until_deployed(language: &Language) -> Result<f64, String> {
    let cluster = Cluster::start();
    let author = Author::new(&cluster);
    author.install(language)?;
    let seconds = steps(&cluster, &author, language, "first", DEPLOYED)?;
    Ok(seconds.iter().sum())
}

/// Times two plugins, one after the other, on a node that has compiled nothing.
fn timed(language: &Language) -> Result<Timed, String> {
    let cluster = Cluster::start();
    let author = Author::new(&cluster);
    author.install(language)?;
    let mut node = cluster.command(&["node", "--name", "a"]);
    node.env("PCLUSTER_CACHE", cluster.path("cache-of-the-node"));
    let node = Process::start(node);
    node.said("ready: serving");
    let [first, second] = ["first", "second"].map(|name| steps(&cluster, &author, language, name, STEPS.len()));
    Ok(Timed { first: first?, second: second? })
}

/// Times the first steps of one plugin: this many.
fn steps(
    cluster: &Cluster,
    author: &Author<'_>,
    language: &Language,
    name: &str,
    number: usize,
) -> Result<Seconds, String> {
    let commands: [(&str, &[&str]); STEPS.len()] = [
        ("", &["new", name, "--lang", language.name]),
        (name, &["build", "--offline"]),
        (name, &["check"]),
        (name, &["test", "--offline"]),
        (name, &["deploy", "--offline"]),
        (name, &["feed", name, ITEM]),
        (name, &["pull", name, "-n", "1"]),
    ];
    let mut seconds = Seconds::default();
    let mut printed = String::new();
    for ((folder, arguments), seconds) in commands.into_iter().zip(&mut seconds).take(number) {
        let mut command: Command = author.command(folder, arguments);
        let started = Instant::now();
        printed = said(&mut command)?;
        *seconds = started.elapsed().as_secs_f64();
        if arguments[0] == "new" {
            // Not what earlier runs have built.
            cluster.file(&format!("{name}/notes.md"), cluster.path("").display().to_string());
        }
    }
    let result = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    if number == STEPS.len() && result(&printed) != result(RESULT) {
        return Err(format!("the result is {}", printed.trim()));
    }
    Ok(seconds)
}
