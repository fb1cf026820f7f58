//! Calls of tasks, beside the same calls in plain Rust: an entry of a bucket, and an HTTP request to a server of this machine.

use std::time::Instant;

use async_nats::jetstream::kv::Store;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use support::{Reply, World};

use crate::chain::Chain;
use crate::drain::{Load, Sample};
use crate::report::Row;
use crate::series::{Measured, Series, Settings, Variant};
use crate::stand::Stand;
use crate::usage::{Machine, Used};

/// Calls that an item makes, one after the other.
const TIMES: usize = 50;
/// Bytes of an answer.
const BYTES: usize = 256;

/// What is called.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Kv,
    Http,
}

/// Measures calls one after the other, and many at once.
pub fn run(settings: Settings) -> Vec<Row> {
    let mut series = Series::new("calls");
    for (kind, name) in [(Kind::Kv, "kv.get"), (Kind::Http, "http")] {
        for (at_once, items) in [(1, 100), (32, 1_600)] {
            let items = items / settings.either(1, 20);
            let plain = Variant::new(format!("{name} in plain Rust, {at_once} at once"), move || {
                Ok(plain(kind, at_once, items.max(at_once)))
            });
            let plain = series.add(plain);
            let task = Variant::new(format!("{name} in a task, {at_once} at once"), move || {
                task(kind, at_once, items.max(at_once))
            });
            series.add(task.to(plain));
        }
    }
    series.run(settings)
}

/// Starts the servers. The bucket has an entry, and the HTTP server answers with as many bytes.
fn start() -> (Stand, World) {
    let stand = Stand::start();
    let world = World::start(&stand.cluster, |_| Reply::new(200, vec![b'x'; BYTES]));
    stand.run(async { bucket(&stand).await.put("key", vec![b'x'; BYTES].into()).await.unwrap() });
    (stand, world)
}

async fn bucket(stand: &Stand) -> Store {
    stand.jetstream.get_key_value("cache").await.unwrap()
}

/// Runs items whose task makes the calls.
fn task(kind: Kind, at_once: usize, items: usize) -> Measured {
    let (stand, world) = start();
    let call = match kind {
        Kind::Kv => "call = \"kv.get\", request = { bucket = \"cache\", key = \"key\" }".to_owned(),
        Kind::Http => format!("call = \"http\", request = {{ url = \"{}/\" }}", world.api.url()),
    };
    let stage = format!("concurrency = {at_once}\nconfig = {{ times = {TIMES}, {call} }}\n{}", world.grants());
    let chain = Chain { stage, node: world.allowed(), ..Chain::of(&["call_often"]) };
    let sample = chain.sample_on(&stand, &Load::of_texts(items, 8, 1), 1)?;
    Ok(Sample { items: (items * TIMES) as f64, ..sample })
}

/// Makes the same calls from this program, which is the HTTP server too.
fn plain(kind: Kind, at_once: usize, items: usize) -> Sample {
    let (stand, world) = start();
    let own = [std::process::id()];
    let calls = items / at_once * TIMES;
    let (machine, server, worker) = (Machine::now(), Used::by(&stand.servers()), Used::by(&own));
    let started = Instant::now();
    let ended = match kind {
        Kind::Kv => stand.run(async {
            let bucket = bucket(&stand).await;
            join_all((0..at_once).map(|_| tokio::spawn(get_entries(bucket.clone(), calls)))).await
        }),
        Kind::Http => stand.run(async {
            let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
            let uri: Uri = format!("{}/", world.api.url()).parse().unwrap();
            join_all((0..at_once).map(|_| tokio::spawn(get_pages(client.clone(), uri.clone(), calls)))).await
        }),
    };
    assert!(ended.iter().all(Result::is_ok), "a call failed");
    let seconds = started.elapsed().as_secs_f64();
    let (server, worker) = (Used::by(&stand.servers()).since(server), Used::by(&own).since(worker));
    Sample {
        items: (calls * at_once) as f64,
        bytes: 0.0,
        seconds,
        server,
        worker,
        foreign: Machine::now().foreign_since(machine, server.seconds + worker.seconds),
    }
}

async fn get_entries(bucket: Store, calls: usize) {
    for _ in 0..calls {
        assert_eq!(bucket.get("key").await.unwrap().unwrap().len(), BYTES);
    }
}

async fn get_pages(client: Client<HttpConnector, Empty<Bytes>>, uri: Uri, calls: usize) {
    for _ in 0..calls {
        let response = client.get(uri.clone()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), BYTES);
    }
}
