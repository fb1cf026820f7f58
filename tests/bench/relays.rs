//! The baselines.

use crate::drain::Load;
use crate::relay::Relay;
use crate::report::Row;
use crate::series::{Series, Settings, Variant};

/// The name of the baseline with one item a message.
pub const SINGLE: &str = "raw relay, one item a message";
/// The name of the baseline with packed messages.
pub const PACKED: &str = "raw relay, 256 items a message";
/// Items in a packed message.
pub const PACK: usize = 256;
/// Size of an item in bytes.
pub const BYTES: usize = 256;

/// Returns the items of a run with single-item messages.
pub fn single(settings: Settings) -> Load {
    Load::of_texts(settings.either(30_000, 2_000), BYTES, 1)
}

/// Returns the items of a run with packed messages.
pub fn packed(settings: Settings) -> Load {
    Load::of_texts(settings.either(2_000, 50) * PACK, BYTES, PACK)
}

/// Measures both baselines.
pub fn run(settings: Settings) -> Vec<Row> {
    let (single, packed) = (single(settings), packed(settings));
    let mut series = Series::new("relay");
    let one = series.add(Variant::new(SINGLE, || Ok(Relay::BASELINE.sample(&single))));
    series.add(Variant::new(PACKED, || Ok(Relay::BASELINE.sample(&packed))).to(one));
    series.run(settings)
}
