//! Results of topics, which go once all who wait for them have taken them.

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::{self, stream::Stream as Results};
use futures_util::StreamExt as _;

use super::*;
use crate::name::Topic;
use crate::subject as names;

/// Makes a consumer of results, or gives it other filters.
async fn consumer(results: &Results, name: &str, subjects: Vec<String>) -> jetstream::consumer::PullConsumer {
    let config = Config { durable_name: Some(name.to_owned()), filter_subjects: subjects, ..Default::default() };
    results.create_consumer(config).await.expect("made")
}

/// Takes the next result of a consumer.
async fn take(consumer: &jetstream::consumer::PullConsumer) {
    let mut messages = consumer.messages().await.expect("messages");
    let next = messages.next().await.expect("one").expect("a message");
    next.double_ack().await.expect("acknowledged");
}

#[tokio::test]
async fn a_result_waits_for_those_alone_who_read_its_subject() {
    let world = World::start().await;
    world.streams().await;
    let (chain, topic): (_, Topic) = (&world.chain, "red".parse().expect("valid"));
    let (plain, of_topic) = (names::results(chain), names::results_of(chain, &topic));
    let again = names::results_again(chain, topic.as_str());
    let reference = world.put(&pattern(1_000), 1).await;
    // At the places 1 to 3. The second is of the topic too: a plain puller has put it back.
    for subject in [&of_topic, &plain, &again] {
        let mut headers = HeaderMap::new();
        headers.insert("Pcluster-Large", "0");
        headers.insert("Pcluster-Topic", topic.as_str());
        let payload = Bytes::from(reference.to_cbor());
        world.broker.put(subject.clone(), headers, payload, || "publish".to_owned()).await.expect("stored");
    }
    let goes = async |place: u64| {
        let mut taken = world.store.taken().await.expect("told");
        taken.remove(place).await.expect("told")
    };
    let client = async_nats::connect(&world.server.url).await.expect("a connection");
    let results = jetstream::new(client).get_stream(names::results_stream(chain)).await.expect("a stream");
    let red = consumer(&results, &names::topic_consumer(&topic), vec![of_topic.clone(), again.clone()]).await;
    // As a program before topics has made it.
    let all = consumer(&results, names::PULL_CONSUMER, vec![plain.clone()]).await;
    assert!(!goes(1).await && !goes(2).await && !goes(3).await, "nothing is taken");
    take(&all).await;
    assert!(goes(2).await, "pullers of the topic never get it");
    take(&red).await;
    assert!(!goes(1).await, "plain pullers skip it");
    consumer(&results, names::PULL_CONSUMER, names::results_all(chain)).await;
    assert!(goes(1).await);
    assert!(!goes(3).await);
    take(&red).await;
    assert!(goes(3).await, "plain pullers never get it");
    world.end().await;
}
