//! Whether longer queues, more chains or larger items cost more per item.
//!
//! The instances are reused, so that their constant cost does not hide the growth.

use crate::chain::Chain;
use crate::drain::Load;
use crate::relay::Relay;
use crate::relays::{self, BYTES, PACK, PACKED, SINGLE};
use crate::report::Row;
use crate::series::{Place, Series, Settings, Variant};
use crate::stand::Stand;

/// Measures all three.
pub fn run(settings: Settings) -> Vec<Row> {
    [queues(settings), chains(settings), sizes(settings)].concat()
}

fn echo() -> Chain {
    Chain::of(&["echo"]).isolated("worker")
}

fn queues(settings: Settings) -> Vec<Row> {
    let (single, packed) = (relays::single(settings), relays::packed(settings));
    let mut series = Series::new("growth: longer queues");
    let one = series.add(Variant::new(SINGLE, || Ok(Relay::BASELINE.sample(&single))));
    let many = series.add(Variant::new(PACKED, || Ok(Relay::BASELINE.sample(&packed))).to(one));
    let lengths: &[usize] = settings.either(&[1_000, 100_000, 1_000_000], &[1_000, 5_000]);
    for (pack, frames, to) in [(1, "single-item", one), (PACK, "256-item", many)] {
        let places = lengths.iter().map(|length| {
            let load = Load::of_texts(*length, BYTES, pack);
            let chain = Chain { top: "[queue]\nlimit = 2_000_000".to_owned(), ..echo() };
            // A short queue is drained several times, so that the measurement is long enough.
            let times = (settings.either(20_000, 2_000) / length).max(1);
            let sample = move || chain.sample_on(&Stand::start(), &load, times);
            series.add(Variant::new(format!("{frames} frames, a queue of {length} items"), sample).to(to))
        });
        let places: Vec<Place> = places.collect();
        let (first, last) = (places[0], places[places.len() - 1]);
        series.compare(format!("{frames} frames, the longest queue to the shortest"), last, first, None);
    }
    series.run(settings)
}

fn chains(settings: Settings) -> Vec<Row> {
    let single = relays::single(settings);
    let mut series = Series::new("growth: more chains");
    let one = series.add(Variant::new(SINGLE, || Ok(Relay::BASELINE.sample(&single))));
    let numbers: &[usize] = settings.either(&[1, 20, 200], &[1, 20]);
    let places = numbers.iter().map(|number| {
        let (chain, single) = (Chain { idle: number - 1, ..echo() }, &single);
        series.add(Variant::new(format!("single-item frames, {number} chains"), move || chain.sample(single)).to(one))
    });
    let places: Vec<Place> = places.collect();
    series.compare("single-item frames, the most chains to one", places[places.len() - 1], places[0], None);
    series.run(settings)
}

fn sizes(settings: Settings) -> Vec<Row> {
    let mut series = Series::new("growth: larger items");
    for (bytes, name, items, pack) in [
        (64, "64 B", settings.either(30_000, 1_000), 1),
        (64, "64 B", settings.either(300_000, 10_000), PACK),
        (4 << 10, "4 KiB", settings.either(20_000, 1_000), 1),
        (4 << 10, "4 KiB", settings.either(50_000, 1_000), 16),
        (512 << 10, "512 KiB", settings.either(800, 20), 1),
    ] {
        let load = std::rc::Rc::new(Load::of_texts(items, bytes, pack));
        let relayed = std::rc::Rc::clone(&load);
        let name = |what| format!("{what}, items of {name}, {pack} to a message");
        let relay = Variant::new(name("raw relay"), move || Ok(Relay::BASELINE.sample(&relayed))).in_megabytes();
        let relay = series.add(relay);
        series.add(Variant::new(name("echo"), move || echo().sample(&load)).in_megabytes().to(relay));
    }
    series.run(settings)
}
