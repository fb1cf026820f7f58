//! The time of an item from feed to pull.
//!
//! The item passes three stages or three relays. Both are fed and pulled by the same plain client.

use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull;
use bytes::Bytes;
use futures_util::StreamExt;
use pcluster::internal::{intake, results, results_stream};

use crate::chain::{self, Chain, ISOLATIONS};
use crate::drain::{Load, text};
use crate::relay::{self, Relay};
use crate::relays::BYTES;
use crate::report::{Aim, Row, Spread};
use crate::series::Settings;
use crate::stand::Stand;

/// The number of stages or relays on the path of an item.
const HOPS: usize = 3;
/// A slow rate: the chain idles between two items. The unit is items per second.
const SLOW: u32 = 20;
/// How often the feeder checks whether the next item is due.
const TICK: Duration = Duration::from_millis(1);
/// The names of the figures, and the percentage of faster items.
const QUANTILES: [(&str, usize); 2] = [("p50", 50), ("p99", 99)];

/// The path of items.
enum Path {
    Relays,
    Stages(Chain),
}

/// Measures at a slow rate, and at half of the chain's throughput.
pub fn run(settings: Settings) -> Vec<Row> {
    let chain = |isolation| Chain::of(&["echo"; HOPS]).isolated(isolation);
    let most = {
        let items = settings.either(15_000, 1_000);
        let sample = chain("item").sample(&Load::of_texts(items, BYTES, 1)).unwrap();
        let millis = Duration::from_secs_f64(sample.seconds).as_millis();
        u32::try_from(items as u128 * 1_000 / millis).unwrap()
    };
    let mut paths = vec![("three raw relays in a row".to_owned(), Path::Relays)];
    for isolation in ISOLATIONS.into_iter().filter(|isolation| *isolation != "frame") {
        paths.push((format!("three echo stages, isolation {isolation}"), Path::Stages(chain(isolation))));
    }
    let seconds = settings.either(5, 1);
    let rates = [SLOW, most / 2];
    let mut rows = Vec::new();
    for rate in rates {
        let mut measured: Vec<Result<Vec<[f64; 2]>, String>> = paths.iter().map(|_| Ok(Vec::new())).collect();
        for round in 1..=settings.rounds {
            for ((name, path), measured) in paths.iter().zip(&mut measured) {
                let Ok(rounds) = measured else { continue };
                match path.millis(rate, seconds) {
                    Ok(millis) => {
                        eprintln!("latency, round {round}: {name}, {rate} items/s: {millis:.2?} ms");
                        rounds.push(millis);
                    }
                    Err(why) => *measured = Err(why),
                }
            }
        }
        for (number, (quantile, _)) in QUANTILES.iter().enumerate() {
            rows.extend(paths.iter().zip(&measured).map(|((name, _), rounds)| {
                row(format!("{name}, {rate} items/s, {quantile}"), rounds, measured[0].as_ref().unwrap(), number)
            }));
        }
    }
    rows
}

fn row(name: String, rounds: &Result<Vec<[f64; 2]>, String>, relays: &[[f64; 2]], number: usize) -> Row {
    let row = Row::new("latency", name, None, "ms");
    let rounds = match rounds {
        Ok(rounds) => rounds,
        Err(why) => return row.missing(why),
    };
    let row = Row { measured: Spread::of(rounds.iter().map(|round| round[number])), ..row };
    if rounds.as_ptr() == relays.as_ptr() {
        return row;
    }
    let ratio = rounds.iter().zip(relays).map(|(round, relay)| round[number] / relay[number]);
    let aim = (number == 0).then_some(Aim::RatioAtMost(1.5));
    row.with_ratio(Spread::of(ratio), "three raw relays in a row").with_aim(aim)
}

impl Path {
    /// Returns the quantiles of latencies in milliseconds. Runs at a rate, on a server of its own.
    fn millis(&self, rate: u32, seconds: u32) -> Result<[f64; 2], String> {
        let stand = Stand::start();
        let (mut relays, mut nodes) = (None, Vec::new());
        let (subject, results, result) = match self {
            Self::Relays => {
                relays = Some(Relay { hops: HOPS, ..Relay::BASELINE }.start(&stand));
                (relay::subject(0), relay::OUT.to_owned(), relay::OUT_SUBJECT.to_owned())
            }
            Self::Stages(chain) => {
                chain.deploy(&stand)?;
                nodes = chain.start_nodes(&stand);
                let name = chain::name();
                (intake(&name), results_stream(&name), results(&name))
            }
        };
        let items = (rate * seconds) as usize;
        let millis = stand.run(async {
            let pulling = tokio::spawn(pull(stand.jetstream.clone(), results, result, items));
            let sent = feed(&stand.jetstream, subject, items, rate).await;
            let mut millis: Vec<f64> = (pulling.await.unwrap().into_iter())
                .map(|(number, came)| (came - sent[number]).as_secs_f64() * 1e3)
                .collect();
            millis.sort_by(f64::total_cmp);
            millis
        });
        drop((relays, nodes));
        Ok(QUANTILES.map(|(_, faster)| millis[(millis.len() - 1) * faster / 100]))
    }
}

/// Feeds at this rate. Returns when each item was sent.
async fn feed(jetstream: &Context, subject: String, items: usize, rate: u32) -> Vec<Instant> {
    let client = jetstream.client();
    let started = Instant::now();
    let mut sent = Vec::with_capacity(items);
    while sent.len() < items {
        let due = started.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        while sent.len() < items && (sent.len() as u128) < due {
            let item = numbered(sent.len());
            sent.push(Instant::now());
            client.publish(subject.clone(), item).await.unwrap();
        }
        tokio::time::sleep(TICK).await;
    }
    sent
}

/// Pulls so many items. Returns the number of each and when it arrived.
async fn pull(jetstream: Context, stream: String, subject: String, items: usize) -> Vec<(usize, Instant)> {
    let stream = jetstream.get_stream(stream).await.unwrap();
    let config = pull::Config { filter_subject: subject, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut came = Vec::with_capacity(items);
    while came.len() < items {
        let message = messages.next().await.unwrap().unwrap();
        came.push((number(&message.payload), Instant::now()));
        message.ack().await.unwrap();
    }
    came
}

/// Returns an item with a number.
fn numbered(number: usize) -> Bytes {
    let mut item = text(BYTES).to_vec();
    item[HEAD..HEAD + DIGITS].copy_from_slice(format!("{number:0DIGITS$}").as_bytes());
    item.into()
}

/// The size of a CBOR head in bytes.
const HEAD: usize = 2;
/// The number of digits in an item.
const DIGITS: usize = 8;

fn number(item: &[u8]) -> usize {
    std::str::from_utf8(&item[HEAD..HEAD + DIGITS]).unwrap().parse().unwrap()
}
