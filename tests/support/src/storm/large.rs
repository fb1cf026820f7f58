//! Large items in a storm: their stages, how they are fed, and what may be left of them at the end.

use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use ciborium::Value;

use super::servers::Cluster;
use super::{Chance, PATIENCE, Plan, Report};
use crate::{NatsClient, Run};

/// Items above this size are large.
const THRESHOLD: &str = "2KiB";
/// The smallest item, as a power of two: it holds its number.
const SMALLEST: u64 = 3;
/// The largest item, as a power of two.
const LARGEST: u64 = 22;
/// Hands an item on with a byte more. Some items fail at their first attempt. What a kill has cut off is a failure.
const APPEND: &str = "case $PCLUSTER_ITEM_ID$PCLUSTER_ATTEMPT in *71) exit 3;; esac; cat || exit 4; printf x";
/// The arguments of a node that make it sweep often.
pub(super) const SWEEPS: [&str; 2] = ["--sweep-every", "2s"];
/// The bucket of the chain.
const BUCKET: &str = "pcluster_large_storm";
/// The most time until nothing is left: a lease, the time that an upload has for its message, and two sweeps.
const SWEPT: Duration = Duration::from_mins(6);

/// Returns what the queue of the chain is set to, beside the rest.
pub(super) fn queue() -> String {
    format!("large = \"{THRESHOLD}\"\n")
}

/// Returns the stages of the chain: one that hands items on, a program that changes them, and one that hands them on.
pub(super) fn stages(probe: &str, concurrency: u64) -> String {
    let retry = "retry = { attempts = 1000, backoff = [\"100ms\"] }";
    let echo = |name: &str, isolation: &str| {
        format!(
            "[[stage]]\nname = \"{name}\"\nplugin = \"{probe}\"\ntask = \"echo\"\nisolation = \"{isolation}\"\n\
             concurrency = {concurrency}\n{retry}\n"
        )
    };
    format!(
        "{}[[stage]]\nname = \"append\"\nexec = [\"sh\", \"-c\", {APPEND:?}]\ninput = \"bytes\"\noutput = \"bytes\"\n{retry}\n{}",
        echo("first", "item"),
        echo("last", "frame"),
    )
}

/// Returns the content of an item: its number, and bytes that no other has. The seed gives its size.
fn content(seed: u64, number: u64) -> Vec<u8> {
    let mut chance = Chance(seed ^ number.wrapping_mul(0x9e37_79b9));
    let power = SMALLEST + chance.next(LARGEST - SMALLEST);
    let size = usize::try_from((1 << power) + chance.next(1 << power)).unwrap();
    let mut content = number.to_le_bytes().to_vec();
    while content.len() < size {
        content.extend_from_slice(&chance.next(u64::MAX).to_le_bytes());
    }
    content.truncate(size);
    content
}

/// Feeds items with one `pcluster feed`. Returns the number of items, and 0 for that of messages, which is not known.
pub(super) fn feed(mut command: Command, plan: &Plan) -> (u64, u64) {
    let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = BufWriter::new(process.stdin.take().unwrap());
    let (started, mut items) = (Instant::now(), 0);
    while items < plan.items && started.elapsed() < plan.duration {
        ciborium::into_writer(&Value::Bytes(content(plan.seed, items)), &mut input).unwrap();
        items += 1;
    }
    input.flush().unwrap();
    drop(input);
    assert!(process.wait().unwrap().success(), "the feeder has failed");
    (items, 0)
}

/// Returns the command that feeds the items from its standard input.
pub(super) fn feeder(cluster: &Cluster) -> Command {
    cluster.command(&["feed", "storm", "--file", "-", "--format", "cbor", "--quiet"])
}

/// Returns the numbers of the items in a message of results. `None` in place of one that is not as it must be.
pub(super) async fn numbers(
    jetstream: &jetstream::Context,
    plan: &Plan,
    message: &async_nats::Message,
) -> Vec<Option<u64>> {
    let headers = message.headers.as_ref().unwrap();
    let large: Vec<usize> = headers.get("Pcluster-Large").map(|large| positions(large.as_str())).unwrap_or_default();
    let (mut rest, mut numbers) = (&message.payload[..], Vec::new());
    while !rest.is_empty() {
        let value: Value = ciborium::from_reader(&mut rest).unwrap();
        let content =
            if large.contains(&numbers.len()) { read(jetstream, &value).await } else { value.into_bytes().ok() };
        numbers.push(content.and_then(|content| number(plan.seed, &content)));
    }
    numbers
}

/// Returns the number of the item that a result is of. `None` if it is of none.
fn number(seed: u64, result: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(result.first_chunk().copied()?);
    let mut expected = content(seed, number);
    expected.push(b'x');
    (expected == result).then_some(number)
}

/// Reads the object that a reference names, without a consumer: the server has a limit for the consumers of readers.
async fn read(jetstream: &jetstream::Context, reference: &Value) -> Option<Vec<u8>> {
    let fields = reference.as_map()?;
    let name = fields.iter().find(|(key, _)| key.as_text() == Some("name"))?.1.as_text()?;
    let read = tokio::time::timeout(PATIENCE, read_chunks(jetstream, name)).await.map_err(Into::into).flatten();
    read.inspect_err(|error| eprintln!("the object {name} cannot be read: {error}")).ok()
}

async fn read_chunks(jetstream: &jetstream::Context, name: &str) -> Result<Vec<u8>, async_nats::Error> {
    let stream = jetstream.get_stream(format!("OBJ_{BUCKET}")).await?;
    let subject = format!("$O.{BUCKET}.M.{}", URL_SAFE.encode(name));
    let description = stream.get_last_raw_message_by_subject(&subject).await?;
    let description: serde_json::Value = serde_json::from_slice(&description.payload)?;
    let chunks = format!("$O.{BUCKET}.C.{}", description["nuid"].as_str().unwrap_or(name));
    let (mut content, mut next) = (Vec::new(), 1);
    for _ in 0..description["chunks"].as_u64().unwrap_or(0) {
        let chunk = stream.direct_get_next_for_subject(chunks.as_str(), Some(next)).await?;
        content.extend_from_slice(&chunk.payload);
        next = chunk.sequence + 1;
    }
    Ok(content)
}

/// Returns the positions in a header such as `0-2,5`.
fn positions(header: &str) -> Vec<usize> {
    let number = |text: &str| -> usize { text.parse().unwrap() };
    let run = |run: &str| match run.split_once('-') {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => vec![number(run)],
    };
    header.split(',').flat_map(run).collect()
}

/// Takes all results, and waits until nothing of the large items is left. Tells what is.
pub(super) fn take(cluster: &Cluster, client: &NatsClient, report: &mut Report) {
    let mut pull = cluster.command(&["pull", "storm", "--all", "--raw"]);
    pull.stdout(Stdio::null());
    let pulled = Run::of(pull, b"");
    report.tell(format_args!("all results are taken. {}", pulled.stderr));
    pulled.succeeded();
    let deadline = Instant::now() + SWEPT;
    loop {
        let left = left(client);
        (report.objects, report.records) = (of(&left, ".C.") + of(&left, ".M."), of(&left, ".R."));
        if report.objects + report.records == 0 {
            return report.tell("nothing of the large items is left");
        }
        if Instant::now() > deadline {
            report.story.extend(left.iter().map(|subject| format!("left: {subject}")));
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Returns the subjects of the bucket that hold something.
fn left(client: &NatsClient) -> Vec<String> {
    client.by_subject(&format!("OBJ_{BUCKET}")).into_keys().collect()
}

fn of(subjects: &[String], kind: &str) -> u64 {
    let prefix = format!("$O.{BUCKET}{kind}");
    subjects.iter().filter(|subject| subject.starts_with(&prefix)).count() as u64
}
