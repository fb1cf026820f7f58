//! The cost of a promise: a relay that promises less or more, and a chain with copies.

use crate::chain::Chain;
use crate::relay::{Ack, Relay};
use crate::relays::{self, PACKED, SINGLE};
use crate::report::Row;
use crate::series::{Series, Settings, Variant};
use crate::stand::Stand;

/// Measures ids, acknowledgements and copies as ratios to the baseline.
pub fn run(settings: Settings) -> Vec<Row> {
    let (single, packed) = (&relays::single(settings), &relays::packed(settings));
    let mut series = Series::new("promises");
    let baseline = Relay::BASELINE;
    let one = series.add(Variant::new(SINGLE, || Ok(baseline.sample(single))));
    let many = series.add(Variant::new(PACKED, || Ok(baseline.sample(packed))).to(one));
    for (name, relay) in [
        ("relay without ids", Relay { ids: false, ..baseline }),
        ("relay that waits until each ack is confirmed", Relay { ack: Ack::Confirmed, ..baseline }),
        ("relay without acks, from a stream that keeps messages", Relay { ack: Ack::None, ..baseline }),
    ] {
        series.add(Variant::new(name, move || Ok(relay.sample(single))).to(one));
    }
    let copied = Relay { replicas: 3, ..baseline };
    for (load, name, to) in [(single, SINGLE, one), (packed, PACKED, many)] {
        let name = format!("{name}, 3 copies");
        series.add(Variant::new(name, move || Ok(copied.sample_on(&Stand::of_three_servers(), load))).to(to));
    }
    for (load, frames, to) in [(single, "single-item", one), (packed, "256-item", many)] {
        let chain = Chain::of(&["echo"]);
        series.add(Variant::new(format!("echo, {frames} frames"), move || chain.sample(load)).to(to));
        let chain = Chain { top: "replicas = 3".to_owned(), ..Chain::of(&["echo"]) };
        let sample = move || chain.sample_on(&Stand::of_three_servers(), load, 1);
        series.add(Variant::new(format!("echo, {frames} frames, replicas = 3"), sample).to(to));
    }
    series.run(settings)
}
