//! Large items through three stages, beside an object store that the same client fills and reads, and beside Colmena.
//!
//! The clock runs from the start of the feeder to the end of the puller. Each result becomes a file, which is checked and removed
//! as soon as it is there.

mod bare;
mod colmena;
mod through;
mod watch;

use std::cell::RefCell;

use crate::chain::Chain;
use crate::report::{Aim, Row, Spread};
use crate::series::{Series, Settings, Variant};
use through::Seen;

/// A stage that hands its item on as it is, so that no further item is stored.
const SAME: &str = "exec = [\"cat\"]\ninput = \"bytes\"\noutput = \"bytes\"\ntimeout = \"10m\"";
/// A stage that gives each byte its successor, so that each stage stores an item of its own.
const CHANGED: &str =
    "exec = [\"tr\", '\\000-\\377', '\\001-\\377\\000']\ninput = \"bytes\"\noutput = \"bytes\"\ntimeout = \"10m\"";
/// The most MiB of items that are fed from memory.
const SMALL: usize = 16;

/// Items of one size.
#[derive(Debug, Clone, Copy)]
struct Items {
    number: usize,
    mebibytes: usize,
    /// How many the object store or Colmena moves at once.
    at_once: usize,
    /// The most items in the chain: more wait to be fed, so the disk need not hold all of them at once.
    in_chain: usize,
}

impl Items {
    /// Returns the size of an item in bytes.
    fn size(self) -> usize {
        self.mebibytes << 20
    }
}

/// Measures items of two sizes: many, and few that are as large as they may be.
pub fn run(settings: Settings) -> Vec<Row> {
    let number = |full| settings.either(full, 4);
    let many = Items { number: number(1_000), mebibytes: 10, at_once: 8, in_chain: settings.either(200, 2) };
    let few = Items {
        number: number(20),
        mebibytes: settings.either(1_024, 80),
        at_once: 2,
        in_chain: settings.either(6, 2),
    };
    [many, few].into_iter().flat_map(|items| compare(settings, items)).collect()
}

fn compare(settings: Settings, items: Items) -> Vec<Row> {
    let Items { number, mebibytes, at_once, .. } = items;
    let shown = format!("{number} of {mebibytes} MiB");
    let seen: [RefCell<Vec<Seen>>; 3] = Default::default();
    let mut series = Series::new("large");
    let bare = Variant::new(format!("{shown}: put and get, {at_once} at once"), || Ok(bare::sample(items, at_once)));
    let bare = series.add(bare.in_megabytes());
    let single = Variant::new(format!("{shown}: put and get, one at once"), || Ok(bare::sample(items, 1)));
    series.add(single.in_megabytes().to(bare));
    let few = in_colmena(items);
    let colmena = format!("{} of {mebibytes} MiB: Colmena, changed by three tasks", few.number);
    let colmena = Variant::new(colmena, move || colmena::sample(few));
    let colmena = series.add(colmena.in_megabytes().to(bare));
    let chains = [
        ("handed on by one stage", SAME, "cat", 0),
        ("handed on by three stages", SAME, "cat", 0),
        ("changed by three stages", CHANGED, "tr", 3),
    ];
    let mut last = bare;
    for ((what, stage, program, changes), seen) in chains.into_iter().zip(&seen) {
        let stages = if what.contains("one") { 1 } else { 3 };
        let chain = Chain { tasks: vec![""; stages], ..Chain::of_program(stage.to_owned(), program) };
        let variant = Variant::new(format!("{shown}: {what}"), move || {
            let (sample, found) = through::sample(&chain, items, changes)?;
            seen.borrow_mut().push(found);
            Ok(sample)
        });
        last = series.add(variant.in_megabytes().to(bare));
    }
    series.compare(format!("{shown}: changed by three stages, to Colmena"), last, colmena, None);
    let mut rows = series.run(settings);
    for ((what, ..), seen) in chains.iter().zip(seen) {
        rows.extend(rows_of(&format!("{shown}: {what}"), &seen.into_inner()));
    }
    rows
}

/// Returns the items that Colmena moves. It has each of them in memory six times, so a few are enough if they are large.
fn in_colmena(items: Items) -> Items {
    if items.mebibytes <= SMALL { items } else { Items { number: items.number.min(3), at_once: 1, ..items } }
}

/// Returns rows about memory and the object store.
fn rows_of(shown: &str, seen: &[Seen]) -> Vec<Row> {
    let spread = |figure: &dyn Fn(&Seen) -> f64| Spread::of(seen.iter().map(figure));
    let row = |what: &str, figures, unit| Row::new("large", format!("{shown}: {what}"), figures, unit);
    let peak = |what: &str, of: fn(&Seen) -> watch::Peak| {
        let grown = spread(&|seen| of(seen).all / of(seen).quarter);
        let row = row(&format!("peak memory of the {what}"), spread(&|seen| of(seen).all), "MiB");
        row.with_ratio(grown, "the peak after a quarter of the items")
    };
    vec![
        peak("node", |seen| seen.node),
        peak("feeder", |seen| seen.feeder),
        peak("puller", |seen| seen.puller),
        row("stored for each fed chunk", spread(&|seen| seen.stored), "messages"),
        row("left in the object store", spread(&|seen| seen.left), "bytes").with_aim(Some(Aim::AtMost(0.0))),
        row("until nothing was left", spread(&|seen| seen.seconds), "s"),
    ]
}

/// Returns bytes that no compression makes less.
fn content(items: Items) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = Vec::with_capacity(items.size());
    while content.len() < items.size() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content
}
