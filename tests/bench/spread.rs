//! How evenly large frames spread over the permits of a node, and over nodes.

use crate::chain::Chain;
use crate::drain::{Load, Sample};
use crate::engine::Tried;
use crate::relays::PACK;
use crate::report::{Aim, Row, Spread};
use crate::series::Settings;

/// Items that run at once on a node.
const CONCURRENCY: usize = 8;

/// Measures one frame on four nodes, and many frames on one. The items of the one frame take long, and those of the many are
/// short.
pub fn run(settings: Settings) -> Vec<Row> {
    let mut rows = vec![long(settings)];
    rows.extend(short(settings));
    rows
}

fn long(settings: Settings) -> Row {
    let nodes = 4;
    let millis = settings.either(1_000, 100);
    let load = Load::of_texts(PACK, 64, PACK);
    let ideal = (PACK * millis) as f64 / 1e3 / (nodes * CONCURRENCY) as f64;
    let chain = Chain { nodes, ..sleeping(millis) };
    let samples: Vec<Sample> = (1..=settings.rounds).map(|round| sample(&chain, &load, round)).collect();
    row(&format!("one frame of 256 items of {millis} ms on {nodes} nodes"), &samples, ideal)
        .with_aim(Some(Aim::RatioAtMost(1.3)))
}

fn short(settings: Settings) -> Vec<Row> {
    let load = Load::of_texts(settings.either(40, 4) * PACK, 64, 1);
    let chain = sleeping(1);
    // The duration of a one-millisecond item on this machine, whose timers are no finer.
    let took = Tried::new("sleep", &config(1)).micros(settings.either(1_000, 100), 1) / 1e6;
    let ideal = load.items.len() as f64 * took / CONCURRENCY as f64;
    let packs = [PACK, 32, 1];
    let loads = packs.map(|pack| load.packed(pack));
    let mut samples = [const { Vec::<Sample>::new() }; 3];
    for round in 1..=settings.rounds {
        for (samples, load) in samples.iter_mut().zip(&loads) {
            samples.push(sample(&chain, load, round));
        }
    }
    let name = |pack| format!("items of 1 ms on one node, {pack} to a frame");
    let mut rows: Vec<Row> =
        packs.iter().zip(&samples).map(|(pack, samples)| row(&name(*pack), samples, ideal)).collect();
    let [large, small, _] = &samples;
    let loss = large.iter().zip(small).map(|(large, small)| large.seconds / small.seconds);
    let row = Row::new("spread", "256 to a frame, to 32 to a frame", None, "");
    rows.push(row.with_ratio(Spread::of(loss), name(32)).with_aim(Some(Aim::RatioAtMost(1.05))));
    rows
}

fn sleeping(millis: usize) -> Chain {
    let stage = format!("concurrency = {CONCURRENCY}\nconfig = {{ millis = {millis} }}");
    Chain { stage, ..Chain::of(&["sleep"]) }
}

/// Returns the `config` of the task, as the engine receives it.
fn config(millis: u64) -> ciborium::Value {
    ciborium::Value::Map(vec![("millis".into(), millis.into())])
}

fn sample(chain: &Chain, load: &Load, round: usize) -> Sample {
    let sample = chain.sample(load).unwrap();
    eprintln!("spread, round {round}: {} items in {:.2} s", load.items.len(), sample.seconds);
    sample
}

fn row(name: &str, samples: &[Sample], ideal: f64) -> Row {
    let spread = |figure: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
    let row = Row::new("spread", name, spread(&|sample| sample.seconds), "s");
    row.with_ratio(spread(&|sample| sample.seconds / ideal), format!("the ideal of {ideal:.2} s")).with_use_of(samples)
}
