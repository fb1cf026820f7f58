//! Three typical stages: one splits records in two, one counts words, one drops every other record. As many records come out as
//! were fed, and each has passed the queues of three stages.

use bytes::Bytes;
use pcluster::internal::to_cbor;
use serde::Serialize;

use crate::chain::Chain;
use crate::drain::Load;
use crate::relay::Relay;
use crate::relays::{self, PACK, SINGLE};
use crate::report::{Aim, Row};
use crate::series::{Place, Series, Settings, Variant};

/// The item and output of the plugin's tasks.
#[derive(Serialize)]
struct Record {
    id: u64,
    text: String,
}

/// The words of which a record's text is a part.
const WORDS: &str = "a chain is a named list of stages and a stage is a place in it where a task runs on one item after the other \
                     while the items wait in a queue that the server keeps for all the nodes which share the work between them \
                     however many there are and whichever of them comes or goes in the meantime";

/// The tasks of the stages.
pub const STAGES: [&str; 3] = ["halve", "count_words", "keep_even"];

/// Returns the records of a run with single-item messages.
pub fn single(settings: Settings) -> Load {
    records(settings.either(15_000, 1_000), 1)
}

/// Returns the records of a run with packed messages.
pub fn packed(settings: Settings) -> Load {
    packed_in(settings.either(600, 20))
}

/// Returns the records of this many packed messages.
pub fn packed_in(packs: usize) -> Load {
    records(packs * PACK, PACK)
}

/// Measures small and large frames, with and without queues between the stages. It does so on one node and on several.
pub fn run(settings: Settings) -> Vec<Row> {
    let plain = relays::single(settings);
    let (single, packed) = (&single(settings), &packed(settings));
    let mut series = Series::new("w1");
    let one = series.add(Variant::new(SINGLE, || Ok(Relay::BASELINE.sample(&plain))));
    let mut add = |name: &str, chain: Chain, load, aim: Option<f64>| -> Place {
        let name = format!("{name}, isolation {}", chain.isolation);
        let variant = Variant::new(name, move || chain.sample(load)).to(one);
        series.add(match aim {
            Some(bound) => variant.aim(Aim::RatioAtLeast(bound)),
            None => variant,
        })
    };
    let chain = |isolation| Chain::of(&STAGES).isolated(isolation);
    let [_, queued] = [("item", 0.8), ("worker", 3.0)].map(|(isolation, aim)| {
        add("single-item frames, queued", chain(isolation), single, None);
        add("256-item frames, queued", chain(isolation), packed, Some(aim))
    });
    let [_, inline] = ["item", "worker"].map(|isolation| {
        let chain = Chain { inline: true, ..chain(isolation) };
        add("256-item frames, inline", chain, packed, None)
    });
    for nodes in [2, 4] {
        for isolation in ["item", "worker"] {
            let chain = Chain { nodes, ..chain(isolation) };
            add(&format!("256-item frames, queued, {nodes} nodes"), chain, packed, None);
        }
    }
    series.compare("inline to queued, isolation worker", inline, queued, Some(Aim::RatioAtLeast(2.0)));
    series.run(settings)
}

/// Returns records of 200 to 300 bytes.
fn records(number: usize, pack: usize) -> Load {
    let record = |id: u64| -> Bytes {
        let length = 190 + usize::try_from(id * 37 % 96).unwrap();
        to_cbor(&Record { id, text: WORDS[..length].to_owned() })
    };
    Load { items: (0..number as u64).map(record).collect(), pack }
}
