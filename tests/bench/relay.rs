//! The baseline: a relay written by hand with the client library alone. It fetches a message, publishes it with an id, waits
//! for the server's word, and acknowledges. No WebAssembly, and nothing of pcluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::Semaphore;

/// Messages in hand at once; more makes it no faster.
const IN_HAND: usize = 256;

/// Messages per second through a relay between two streams with the settings of a chain's.
pub async fn rate(url: &str, messages: usize, payload: &Bytes) -> f64 {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let work = Config {
        name: "RELAY".to_owned(),
        subjects: vec!["relay.work".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1_000_000,
        duplicate_window: Duration::from_mins(2),
        allow_atomic_publish: true,
        allow_direct: true,
        ..Config::default()
    };
    let results = Config {
        name: "RELAY_OUT".to_owned(),
        subjects: vec!["relay.out".to_owned()],
        duplicate_window: Duration::from_mins(2),
        allow_atomic_publish: true,
        allow_direct: true,
        ..Config::default()
    };
    let stream = context.create_stream(work).await.unwrap();
    context.create_stream(results).await.unwrap();
    load(&context, messages, payload).await;
    let config = pull::Config { durable_name: Some("relay".to_owned()), max_ack_pending: 10_000, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut incoming = consumer.stream().max_messages_per_batch(IN_HAND).messages().await.unwrap();
    let in_hand = Arc::new(Semaphore::new(IN_HAND));
    let started = Instant::now();
    for number in 0..messages {
        let message = incoming.next().await.unwrap().unwrap();
        let permit = Arc::clone(&in_hand).acquire_owned().await.unwrap();
        let context = context.clone();
        tokio::spawn(async move {
            publish(&context, "relay.out", format!("r{number}"), message.payload.clone()).await.await.unwrap();
            message.ack().await.unwrap();
            drop(permit);
        });
    }
    let _all = in_hand.acquire_many(u32::try_from(IN_HAND).unwrap()).await.unwrap();
    let rate = messages as f64 / started.elapsed().as_secs_f64();
    context.delete_stream("RELAY").await.unwrap();
    context.delete_stream("RELAY_OUT").await.unwrap();
    rate
}

async fn load(context: &Context, messages: usize, payload: &Bytes) {
    let mut answers = Vec::with_capacity(messages);
    for number in 0..messages {
        answers.push(publish(context, "relay.work", format!("w{number}"), payload.clone()).await.into_future());
        if answers.len() == IN_HAND {
            futures_util::future::try_join_all(answers.drain(..)).await.unwrap();
        }
    }
    futures_util::future::try_join_all(answers).await.unwrap();
}

async fn publish(
    context: &Context,
    subject: &'static str,
    id: String,
    payload: Bytes,
) -> async_nats::jetstream::context::PublishAckFuture {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    context.publish_with_headers(subject, headers, payload).await.unwrap()
}
