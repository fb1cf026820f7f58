//! One stage that returns its items unchanged: the overhead of pcluster over a relay.

use crate::chain::{Chain, ISOLATIONS};
use crate::relay::Relay;
use crate::relays::{self, PACKED, SINGLE};
use crate::report::{Aim, Row};
use crate::series::{Series, Settings, Variant};

/// Measures single-item and packed frames with each isolation.
pub fn run(settings: Settings) -> Vec<Row> {
    let (single, packed) = (relays::single(settings), relays::packed(settings));
    let (single, packed) = (&single, &packed);
    let mut series = Series::new("echo");
    let one = series.add(Variant::new(SINGLE, || Ok(Relay::BASELINE.sample(single))));
    let many = series.add(Variant::new(PACKED, || Ok(Relay::BASELINE.sample(packed))).to(one));
    for isolation in ISOLATIONS {
        let chain = Chain::of(&["echo"]).isolated(isolation);
        let name = format!("single-item frames, isolation {isolation}");
        let variant = Variant::new(name, move || chain.sample(single)).to(one);
        series.add(if isolation == "frame" { variant } else { variant.aim(Aim::RatioAtLeast(0.9)) });
    }
    let packed = ISOLATIONS.map(|isolation| {
        let chain = Chain::of(&["echo"]).isolated(isolation);
        let name = format!("256-item frames, isolation {isolation}");
        let variant = Variant::new(name, move || chain.sample(packed)).to(many);
        series.add(match isolation {
            "item" => variant.aim(Aim::NodeAtMost(10.0)),
            "worker" => variant.aim(Aim::RatioAtLeast(0.8)),
            _ => variant,
        })
    });
    series.compare(
        "256-item frames, isolation worker, to the single relay",
        packed[2],
        one,
        Some(Aim::RatioAtLeast(15.0)),
    );
    series.run(settings)
}
