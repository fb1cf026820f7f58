//! From a save to its result: `dev --watch` on a new folder in each language, edited again and again.
//!
//! The compilers are there. The time is that from the write of the source until its result is printed, which has the building of the
//! plugin in it: the language's own compiler, and what `pcluster` does around it.

use std::fs;
use std::time::Instant;

use support::{Cluster, Process};

use crate::authors::{Author, LANGUAGES, Language};
use crate::report::{Aim, Row, Spread, markdown};
use crate::series::Settings;

/// The figures, each with its unit.
const FIGURES: [(&str, &str); 3] = [("save to result", "s"), ("of it the build", "s"), ("of it all else", "s")];
/// The most time for all but the build, in seconds.
const ELSE_MAX: f64 = 1.0;
/// What is fed, and a word of its result that is also in the source.
const ITEM: &str = r#"{"word": "example"}"#;
const WORD: &str = "letters";

/// Edits the folder of each language ten times, and prints a table of medians.
pub fn run(settings: Settings) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut lines = Vec::new();
    for language in &LANGUAGES {
        let saves = match saves(language, settings.either(10, 1)) {
            Ok(saves) => saves,
            Err(why) => {
                lines.push(vec![language.title.to_owned(), format!("not available: {why}")]);
                rows.push(Row::new("watch", language.title, None, "s").missing(why));
                continue;
            }
        };
        let spreads = [0, 1, 2].map(|figure| Spread::of(saves.iter().map(|save| save[figure])));
        let cells = spreads.iter().map(|spread| spread.map_or_else(String::new, Spread::shown));
        lines.push([language.title.to_owned()].into_iter().chain(cells).collect());
        rows.extend(FIGURES.iter().zip(spreads).enumerate().map(|(index, ((figure, unit), spread))| {
            let aim = (index == FIGURES.len() - 1).then_some(Aim::AtMost(ELSE_MAX));
            Row::new("watch", format!("{}: {figure}", language.title), spread, unit).with_aim(aim)
        }));
    }
    let head: Vec<&str> = ["seconds"].into_iter().chain(FIGURES.map(|(figure, _)| figure)).collect();
    println!("{}", markdown(&head, &lines));
    rows
}

/// Returns the figures of some saves, one after the other.
fn saves(language: &Language, number: usize) -> Result<Vec<[f64; FIGURES.len()]>, String> {
    let cluster = Cluster::start();
    let author = Author::new(&cluster);
    author.install(language)?;
    cluster.ok(&["new", "edited", "--lang", language.name]);
    let path = cluster.path("edited").join(language.main);
    let source = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    // Not what earlier runs have built.
    cluster.file("edited/notes.md", cluster.path("").display().to_string());
    let mut dev = author.command("", &["dev", "--watch", "edited", "--offline", "--feed", ITEM]);
    dev.env_remove("PCLUSTER_NATS");
    let dev = Process::start(dev);
    dev.printed(&result(WORD));
    dev.said("watching ");
    let mut saves = Vec::new();
    for save in 0..number {
        let word = format!("signs{save}");
        let edited = source.replace(WORD, &word);
        let started = Instant::now();
        fs::write(&path, edited).map_err(|error| error.to_string())?;
        dev.printed(&result(&word));
        let seconds = started.elapsed().as_secs_f64();
        // The first deploy has been r1.
        let told = dev.said(&format!("deployed as r{}, ", save + 2));
        let built = built(&told).ok_or_else(|| format!("no time of the build is in `{told}`"))?;
        eprintln!("watch: {}: {seconds:.2} s, of it {built:.2} s the build", language.title);
        saves.push([seconds, built, seconds - built]);
    }
    Ok(saves)
}

/// Returns the result of the item under another word.
fn result(word: &str) -> String {
    format!("\"{word}\":7")
}

/// Returns the seconds that a build took, from the line that tells of it. `None` if it does not tell.
fn built(told: &str) -> Option<f64> {
    let (_, time) = told.split_once("built in ")?;
    time.split_once(" s,")?.0.parse().ok()
}
