//! Checks the results of the storm.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, stream};
use ciborium::Value;
use futures_util::TryStreamExt;

use super::servers::{self, Cluster};
use super::{Plan, Report, TIMES, large, steps};

/// How far from its kill a server may have forgotten what it did. This counts before and after the kill.
const FORGETS: Duration = Duration::from_secs(1);
/// The most messages to print that hold a result a second time.
const SHOWN: usize = 20;

/// Checks all results.
///
/// The results of item n are the even numbers from `n * TIMES` on, each once. Each result has the id of the item's message, with
/// its position in that message. A large item has one result, which holds its number.
pub(super) fn look(cluster: &Cluster, plan: &Plan, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut stored: Vec<(Vec<u64>, String, SystemTime)> = Vec::new();
    let (times, step) = if plan.large { (1, 1) } else { (TIMES, 2) };
    let mut seen = vec![0_u8; usize::try_from(report.items * times).unwrap()];
    let urls = servers::urls(cluster);
    runtime.block_on(async {
        let jetstream = jetstream::new(servers::connect(&urls).await);
        let info = |stream: stream::Stream| async move { stream.get_info().await.unwrap().state.messages };
        report.left = info(jetstream.get_stream("PCLUSTER_storm").await.unwrap()).await;
        let letters = info(jetstream.get_stream("PCLUSTER_storm_DEAD").await.unwrap()).await;
        report.letters = letters.abs_diff(report.spoilt);
        let stream = jetstream.get_stream("PCLUSTER_storm_OUT").await.unwrap();
        let results = OrderedConfig { filter_subject: "pcluster.storm.out".to_owned(), ..OrderedConfig::default() };
        let consumer = stream.create_consumer(results).await.unwrap();
        // Not as many as the server counts: a wrong count would look like a loss.
        let counted = consumer.cached_info().num_pending;
        let last = match stream.get_last_raw_message_by_subject("pcluster.storm.out").await {
            Ok(last) => last.sequence,
            Err(_) => 0,
        };
        let mut messages = consumer.messages().await.unwrap();
        let (mut number, mut place_now) = (0, 0);
        while place_now < last {
            let message = messages.try_next().await.unwrap().unwrap();
            place_now = message.info().unwrap().stream_sequence;
            number += 1;
            let values = if plan.large { of_large(&jetstream, plan, &message).await } else { values(&message) };
            let published = message.info().unwrap().published.into();
            if plan.records {
                steps::look(&message, plan, report);
            }
            stored.push((values.iter().map(|(value, _)| *value).collect(), place(&message), published));
            for (value, from) in values {
                report.results += 1;
                match usize::try_from(value).ok().and_then(|value| seen.get_mut(value)) {
                    Some(count) if value % step == 0 && value / times == from => *count = count.saturating_add(1),
                    _ => {
                        report.foreign += 1;
                        report.story.push(format!("foreign: {value} of item {from}, {}", place(&message)));
                    }
                }
            }
        }
        if number != counted {
            report.tell(format_args!("the server counts {counted} messages of results, and has {number}"));
        }
    });
    let twice =
        |value: &u64| usize::try_from(*value).is_ok_and(|value| seen.get(value).is_some_and(|count| *count > 1));
    let mut forgotten: BTreeSet<u64> = BTreeSet::new();
    for (values, _, published) in stored.iter().filter(|(values, ..)| values.iter().any(twice)) {
        let is_forgotten =
            report.killed.iter().any(|killed| (*killed - FORGETS..*killed + FORGETS).contains(published));
        if is_forgotten {
            forgotten.extend(values.iter().filter(|value| twice(value)));
        }
    }
    for (values, place, _) in stored.iter().filter(|(values, ..)| values.iter().any(twice)).take(SHOWN) {
        let values: Vec<_> = values.iter().filter(|value| twice(value)).collect();
        report.story.push(format!("more than once: {values:?}, {place}"));
    }
    for (value, count) in (0..).zip(&seen).step_by(usize::try_from(step).unwrap()) {
        if *count == 0 {
            report.lost += 1;
            report.story.push(format!("lost: {value}"));
        }
        let more = u64::from(count.saturating_sub(1));
        let again = u64::from(forgotten.contains(&value)).min(more);
        report.forgotten += again;
        report.doubled += more - again;
    }
}

/// Returns the place of a message of results, and its origin.
fn place(message: &jetstream::Message) -> String {
    let info = message.info().unwrap();
    let header =
        |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name)).map_or("", |value| value.as_str());
    let (id, key) = (header("Pcluster-Id"), header("Nats-Msg-Id"));
    format!("stored {} at {} as {id} under {key}", info.stream_sequence, info.published)
}

/// Returns the numbers of large items in a message, each as its own original. One that is wrong has none.
async fn of_large(jetstream: &jetstream::Context, plan: &Plan, message: &async_nats::Message) -> Vec<(u64, u64)> {
    let numbers = large::numbers(jetstream, plan, message).await;
    numbers.into_iter().map(|number| number.map_or((u64::MAX, u64::MAX), |number| (number, number))).collect()
}

/// Returns the numbers in a message, each with its original item.
fn values(message: &async_nats::Message) -> Vec<(u64, u64)> {
    let headers = message.headers.as_ref().unwrap();
    let client = headers.get("Pcluster-Id").unwrap().as_str().split(['.', '#']).next().unwrap();
    let first: u64 = client.strip_prefix('m').unwrap().parse().unwrap();
    let mut rest = &message.payload[..];
    let mut values = Vec::new();
    while !rest.is_empty() {
        let value: Value = ciborium::from_reader(&mut rest).unwrap();
        values.push(u64::try_from(value.into_integer().unwrap()).unwrap());
    }
    let descents = match headers.get("Pcluster-Index") {
        Some(index) => descents(index.as_str()),
        None => (0..values.len() as u64).collect(),
    };
    assert_eq!(descents.len(), values.len(), "{headers:?}");
    values.into_iter().zip(descents).map(|(value, item)| (value, first + item)).collect()
}

/// Returns the position in the fed message for each result. `index` is the `Pcluster-Index` of the results.
fn descents(index: &str) -> Vec<u64> {
    let number = |text: &str| -> u64 { text.parse().unwrap() };
    let run = |run: &str| match (run.split_once('x'), run.split_once('-')) {
        (Some((item, times)), _) => vec![number(item); times.parse().unwrap()],
        (_, Some((first, last))) => (number(first)..=number(last)).collect(),
        (None, None) => vec![number(run)],
    };
    index.split(',').flat_map(run).collect()
}
