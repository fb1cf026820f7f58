//! The object store of a chain's large items, as a client sees and changes it that knows only the wire.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use async_nats::jetstream::object_store::ObjectStore;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{Message, NatsClient};

/// The object store of one chain. It need not exist yet.
pub struct Objects<'a> {
    client: &'a NatsClient,
    chain: String,
}

impl<'a> Objects<'a> {
    /// Returns the object store of a chain.
    pub fn of(client: &'a NatsClient, chain: &str) -> Self {
        Self { client, chain: chain.to_owned() }
    }

    fn bucket(&self) -> String {
        format!("pcluster_large_{}", self.chain)
    }

    /// Returns what follows the name of the store in the subjects that hold something. The turn to sweep is left out.
    pub fn subjects(&self) -> BTreeSet<String> {
        let (stream, prefix) = (format!("OBJ_{}", self.bucket()), format!("$O.{}.", self.bucket()));
        let subjects = self.client.read(&async |jetstream| {
            use async_nats::jetstream::context::GetStreamErrorKind::JetStream;
            use futures_util::TryStreamExt as _;

            let stream = match jetstream.get_stream(&stream).await {
                // Nothing has been stored yet.
                Err(error) if matches!(error.kind(), JetStream(_)) => return Ok(Vec::new()),
                stream => stream?,
            };
            let subjects: Vec<(String, usize)> = stream.info_with_subjects(">").await?.try_collect().await?;
            Ok(subjects)
        });
        let subjects = subjects.into_iter().filter_map(|(subject, _)| subject.strip_prefix(&prefix).map(str::to_owned));
        subjects.filter(|subject| subject != "S").collect()
    }

    /// Returns how many objects have a description, and are whole.
    pub fn described(&self) -> usize {
        self.subjects().iter().filter(|subject| subject.starts_with("M.")).count()
    }

    /// Returns the names of the objects and uploads of pcluster that have chunks.
    pub fn names(&self) -> BTreeSet<String> {
        self.subjects().iter().filter_map(|subject| subject.strip_prefix("C.").map(str::to_owned)).collect()
    }

    /// Returns the holders of all records.
    pub fn holders(&self) -> BTreeSet<String> {
        let subjects = self.subjects();
        let records = subjects.iter().filter_map(|subject| subject.strip_prefix("R."));
        records.filter_map(|record| record.rsplit_once('.')).map(|(_, holder)| holder.to_owned()).collect()
    }

    /// Writes the record of a holder. With a `time` such as `2s`, the server removes it then.
    pub fn record(&self, name: &str, holder: &str, time: Option<&str>) {
        let subject = format!("$O.{}.R.{name}.{holder}", self.bucket());
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        if let Some(time) = time {
            headers.insert("Nats-TTL", time);
        }
        self.client.with(async |jetstream| {
            jetstream.publish_with_headers(subject, headers, "".into()).await.unwrap().await.unwrap();
        });
    }

    /// Stores an object with the client library alone. Returns the reference to it. The store must exist.
    pub fn put(&self, name: &str, form: &str, content: &[u8]) -> Value {
        let digest = self.with_store(async |store| store.put(name, &mut &content[..]).await.unwrap().digest.unwrap());
        json!({ "name": name, "size": content.len(), "digest": digest, "form": form })
    }

    /// Returns the content of an object.
    pub fn content(&self, name: &str) -> Vec<u8> {
        self.with_store(async |store| {
            let mut content = Vec::new();
            store.get(name).await.unwrap().read_to_end(&mut content).await.unwrap();
            content
        })
    }

    fn with_store<T>(&self, act: impl AsyncFnOnce(&ObjectStore) -> T) -> T {
        let bucket = self.bucket();
        self.client.with(async |jetstream| act(&jetstream.get_object_store(&bucket).await.unwrap()).await)
    }

    /// Returns the names in the references of a message.
    pub fn named_by(message: &Message) -> Vec<String> {
        message
            .split()
            .iter()
            .filter_map(|item| {
                let item: Value = ciborium::from_reader(&item.payload[..]).unwrap();
                item["name"].as_str().map(str::to_owned)
            })
            .collect()
    }
}
