//! One table of all languages: from `new` to deployed, the plugin, an item in the engine, a node that compiles it, and the three typical
//! stages of [`words`], beside the same stages under Celery and `BullMQ`.

mod compiled;

use std::path::PathBuf;

use support::Cluster;

use crate::authors::{Author, LANGUAGES, Language, WITH_TASKS};
use crate::beside;
use crate::chain::Chain;
use crate::drain::Load;
use crate::engine::languages::{micros, word};
use crate::minute;
use crate::report::{Aim, Row, Spread, markdown};
use crate::series::{Series, Settings, Variant};
use crate::words;

/// A figure of a language: its name, and its unit.
type Figure = (&'static str, &'static str);

const DEPLOYED: Figure = ("from `new` to deployed", "s");
const PLUGIN: Figure = ("plugin", "MB");
/// The task that `new` writes, which logs a line.
const WORD_FRESH: Figure = ("a word, fresh", "µs");
const WORD_REUSED: Figure = ("a word, reused", "µs");
/// The second of the three stages.
const RECORD_FRESH: Figure = ("a record, fresh", "µs");
const RECORD_REUSED: Figure = ("a record, reused", "µs");
const COMPILING: Figure = ("compiling", "CPU s");
const COMPILER: Figure = ("compiler's memory", "MiB");
const NODE: Figure = ("node's memory", "MiB");
const FIRST: Figure = ("first result, nothing compiled", "s");
const AGAIN: Figure = ("first result after a restart", "s");
const W1_FRESH: Figure = ("W1, fresh", "inputs/s");
const W1_REUSED: Figure = ("W1, reused", "inputs/s");

/// The columns of the table.
const FIGURES: [Figure; 13] = [
    DEPLOYED,
    PLUGIN,
    WORD_FRESH,
    WORD_REUSED,
    RECORD_FRESH,
    RECORD_REUSED,
    W1_FRESH,
    W1_REUSED,
    COMPILING,
    COMPILER,
    NODE,
    FIRST,
    AGAIN,
];

/// The languages with aims for the three stages, in inputs a second: with fresh instances, and with reused ones.
const AIMS: [(&str, f64, f64); 2] = [("Python", 10_000.0, 45_000.0), ("TypeScript", 10_000.0, 40_000.0)];

/// The systems beside which the stages are measured, and how they are run.
const CELERY: &str = "Celery, prefork";
const BULLMQ: &str = "BullMQ";

/// Measures all figures, and prints the table.
pub fn run(settings: Settings) -> Vec<Row> {
    let mut rows = stages(settings);
    for language in &LANGUAGES {
        rows.extend(by_itself(settings, language));
    }
    let titles = LANGUAGES.iter().map(|language| language.title).chain([CELERY, BULLMQ]);
    let lines: Vec<Vec<String>> = titles
        .map(|title| {
            let cells = FIGURES.iter().map(|figure| cell(&rows, &name(title, *figure)));
            [title.to_owned()].into_iter().chain(cells).collect()
        })
        .collect();
    let head = FIGURES.map(|(name, unit)| format!("{name}, {unit}"));
    let head: Vec<&str> = [""].into_iter().chain(head.iter().map(String::as_str)).collect();
    println!("{}", markdown(&head, &lines));
    rows
}

/// Measures the three stages in packed frames, through a node, in each language. Beside them, the same files run under other systems.
fn stages(settings: Settings) -> Vec<Row> {
    let load = |packs| words::packed_in(settings.either(packs, 8));
    let (of_fresh, of_reused) = (load(240), load(600));
    let cluster = Cluster::start();
    let author = Author::new(&cluster);
    let mut series = Series::new("languages");
    let celery_items = settings.either(1_500, 20);
    let celery = Variant::new(name(CELERY, W1_FRESH), move || beside::celery("celery_w1", celery_items));
    let celery = series.add(celery);
    let bullmq_items = settings.either(8_000, 100);
    series.add(Variant::new(name(BULLMQ, W1_FRESH), move || beside::bullmq(bullmq_items)).to(celery));
    for language in &WITH_TASKS {
        let aims = AIMS.iter().find(|(title, ..)| *title == language.title);
        let built = author.plugin(language, &format!("w1-{}", language.name), Some(&language.w1()));
        let kinds = [
            (W1_FRESH, "item", &of_fresh, aims.map(|(_, fresh, _)| *fresh)),
            (W1_REUSED, "worker", &of_reused, aims.map(|(.., reused)| *reused)),
        ];
        for (figure, isolation, load, aim) in kinds {
            let variant = variant(name(language.title, figure), &built, isolation, load).to(celery);
            series.add(match aim {
                Some(least) => variant.aim(Aim::AtLeast(least)),
                None => variant,
            });
        }
    }
    series.run(settings)
}

fn variant<'a>(name: String, built: &Result<PathBuf, String>, isolation: &'static str, load: &'a Load) -> Variant<'a> {
    let built = built.clone();
    Variant::new(name, move || {
        let plugin = Some(built.clone()?);
        Chain { plugin, ..Chain::of(&words::STAGES).isolated(isolation) }.sample(load)
    })
}

/// Measures what needs no other system beside it.
fn by_itself(settings: Settings, language: &Language) -> Vec<Row> {
    let mut measured: Vec<(Figure, Vec<f64>)> = Vec::new();
    for round in 1..=settings.rounds {
        let figures = match figures(language, settings) {
            Ok(figures) => figures,
            Err(why) => return vec![row(language, DEPLOYED, &[]).missing(why)],
        };
        eprintln!("languages, round {round}: {}: {figures:.2?}", language.title);
        for (figure, value) in figures {
            match measured.iter_mut().find(|(other, _)| *other == figure) {
                Some((_, values)) => values.push(value),
                None => measured.push((figure, vec![value])),
            }
        }
    }
    measured.into_iter().map(|(figure, values)| row(language, figure, &values)).collect()
}

fn figures(language: &Language, settings: Settings) -> Result<Vec<(Figure, f64)>, String> {
    let deployed = minute::until_deployed(language)?;
    let cluster = Cluster::start();
    // Its name is part of a plugin, so it stays the same.
    let author = Author::new(&cluster);
    let plugin = author.plugin(language, "hello", None)?;
    let [fresh, reused] = micros(&plugin, "hello", &word(), settings);
    let compiled = compiled::sample(&plugin, "hello")?;
    let size = std::fs::metadata(&plugin).map_err(|error| error.to_string())?.len() as f64 / 1e6;
    let mut figures = vec![
        (DEPLOYED, deployed),
        (PLUGIN, size),
        (WORD_FRESH, fresh),
        (WORD_REUSED, reused),
        (COMPILING, compiled.processor),
        (COMPILER, compiled.compiler),
        (NODE, compiled.node),
        (FIRST, compiled.first),
        (AGAIN, compiled.again),
    ];
    if WITH_TASKS.iter().any(|other| other.name == language.name) {
        let plugin = author.plugin(language, "w1", Some(&language.w1()))?;
        let [fresh, reused] = micros(&plugin, words::STAGES[1], &words::packed_in(1).items[1], settings);
        figures.extend([(RECORD_FRESH, fresh), (RECORD_REUSED, reused)]);
    }
    Ok(figures)
}

fn row(language: &Language, figure: Figure, values: &[f64]) -> Row {
    Row::new("languages", name(language.title, figure), Spread::of(values.iter().copied()), figure.1)
}

fn name(title: &str, figure: Figure) -> String {
    format!("{title}: {}", figure.0)
}

/// Returns what the table shows of a row. Empty if there is no such row.
fn cell(rows: &[Row], name: &str) -> String {
    let row = rows.iter().find(|row| row.name == name);
    match row {
        Some(Row { missing: Some(why), .. }) => format!("not available: {why}"),
        Some(Row { measured: Some(measured), .. }) => measured.shown(),
        _ => String::new(),
    }
}
