//! The baseline: an object store and its client, nothing of pcluster.

use async_nats::jetstream::object_store::{Config, ObjectStore};
use futures_util::{StreamExt, stream};
use tokio::io::AsyncReadExt;

use super::{Items, content};
use crate::drain::Sample;
use crate::large::watch::Measuring;
use crate::stand::Stand;

/// How much is read at once.
const PIECE: usize = 1 << 20;

/// Puts items into an object store, and gets and deletes each once it is there.
pub fn sample(items: Items, at_once: usize) -> Sample {
    let stand = Stand::start();
    let content = content(items);
    let measuring = Measuring::start(stand.servers(), vec![std::process::id()]);
    stand.run(async {
        let config = Config { bucket: "bare".to_owned(), ..Default::default() };
        let store = &stand.jetstream.create_object_store(config).await.unwrap();
        let content = content.as_slice();
        stream::iter(0..items.number).for_each_concurrent(at_once, |number| through(store, number, content)).await;
    });
    measuring.end(items)
}

async fn through(store: &ObjectStore, number: usize, mut content: &[u8]) {
    let (name, all) = (number.to_string(), content.len());
    store.put(name.as_str(), &mut content).await.unwrap();
    let (mut object, mut piece, mut read) = (store.get(&name).await.unwrap(), vec![0; PIECE], 0);
    loop {
        match object.read(&mut piece).await.unwrap() {
            0 => break,
            bytes => read += bytes,
        }
    }
    assert_eq!(read, all);
    store.delete(&name).await.unwrap();
}
