//! Large items of a chain as clients see them: references in messages, and their bytes in the chain's object store.

use std::collections::VecDeque;
use std::fs::File;

use bytes::Bytes;
use ciborium::Value;

use super::{Client, ClientError, Items, ResultItem};
use crate::broker::BrokerError;
use crate::broker::large::{LargeError, LargeSettings, LargeStore};
use crate::broker::scan::Scan;
use crate::broker::stream::Stream;
use crate::broker::streams::ChainStreams;
use crate::frame::cbor;
use crate::frame::format::Format;
use crate::frame::large::{Form, MAX_WHOLE, Positions, Reference};
use crate::frame::{Headers, header};
use crate::name::{ChainName, Topic};
use crate::subject;

/// What a client knows of the large items of a chain.
#[derive(Debug, Clone)]
pub(crate) struct LargeItems {
    chain: ChainName,
    /// Where their bytes are.
    pub(crate) store: LargeStore,
    /// The bytes above which an item is a large one. `None` if only the size of messages decides.
    pub(crate) threshold: Option<u64>,
    /// The most bytes of all large items. `None` if there is no limit.
    pub(crate) limit: Option<u64>,
}

impl LargeItems {
    /// Reads from the manifest of the active revision how a chain keeps large items.
    pub(crate) async fn of(client: &Client, chain: &ChainName) -> Result<Self, ClientError> {
        let (registry, marked) = client.chain(chain).await?;
        let (settings, threshold) = match Client::revision(&registry, chain, marked.state.active).await {
            Ok((_, manifest)) => (LargeSettings::of(&manifest), manifest.queue.large),
            // A later pcluster may have deployed what this one cannot read. The store has its settings already.
            Err(ClientError::Registry { .. }) => (LargeSettings::default(), None),
            Err(error) => return Err(error),
        };
        let limit = settings.max_bytes;
        let store = LargeStore::of(&client.broker, chain, settings);
        Ok(Self { chain: chain.clone(), store, threshold, limit })
    }
}

impl LargeItems {
    /// Reads an item of at most 64 MiB. Something must hold it.
    pub(crate) async fn read(&self, reference: &Reference) -> Result<Value, ClientError> {
        let content = self.content(reference).await?;
        let no_item = || {
            let reason = format!("its bytes are no {}", reference.form.name());
            ClientError::LargeDamaged { chain: self.chain.clone(), name: reference.name.clone(), reason }
        };
        match reference.form {
            Form::Bytes => Ok(Value::Bytes(content.into())),
            Form::Text => String::from_utf8(content.into()).map(Value::Text).map_err(|_| no_item()),
            Form::Cbor => cbor::value(&content).ok_or_else(no_item),
        }
    }

    /// Fetches the content of an item into a file. Something must hold it.
    pub(crate) async fn fetch(&self, reference: &Reference, file: &mut File) -> Result<(), ClientError> {
        Ok(Box::pin(self.store.fetch(reference, file)).await?)
    }

    async fn content(&self, reference: &Reference) -> Result<Bytes, ClientError> {
        if reference.size > MAX_WHOLE {
            let why = " of an item that is read as a whole";
            return Err(ClientError::Oversized { size: reference.size, max: MAX_WHOLE, why });
        }
        Ok(Box::pin(self.store.read(reference)).await?)
    }

    /// Holds an item while `act` reads it.
    pub(crate) async fn held<T>(
        &self,
        reference: &Reference,
        act: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let lease = self.store.lease();
        lease.hold(&reference.name).await?;
        let read = act.await;
        lease.end().await?;
        read
    }
}

/// Returns the references in a message with their positions.
pub(crate) fn references(headers: &Headers, payload: &Bytes) -> Vec<(usize, Reference)> {
    let Some(header) = headers.get(header::LARGE) else { return Vec::new() };
    let items = Format::Cbor.items(payload).unwrap_or_default();
    let positions = Positions::parse(header, items.len()).unwrap_or_default();
    positions.iter().filter_map(|position| Some((position, Reference::parse(&items[position]).ok()?))).collect()
}

impl Client {
    /// Fetches the content of a large item into a file, from its position on. What is written counts only after `Ok`.
    ///
    /// For a byte string or a text that is the content without a head, for all others the item as CBOR; see [`Reference::form`].
    /// The bytes are checked, and never in memory as a whole. While this reads, the item stays, whoever takes the result.
    ///
    /// ```no_run
    /// # async fn example(client: &pcluster::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let chain = "scans".parse()?;
    /// let taken = client.puller(&chain).await?.next().await?;
    /// if let Some(large) = &taken.result.large {
    ///     client.fetch_large(&chain, large, &mut std::fs::File::create_new("scan.tiff")?).await?;
    /// }
    /// taken.ack().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClientError::LargeMissing`] or [`ClientError::LargeDamaged`] if the chain does not have these bytes, or if the file cannot
    /// be written.
    pub async fn fetch_large(
        &self,
        chain: &ChainName,
        reference: &Reference,
        file: &mut File,
    ) -> Result<(), ClientError> {
        let items = LargeItems::of(self, chain).await?;
        items.held(reference, items.fetch(reference, file)).await
    }

    /// Reads a large item of at most 64 MiB.
    ///
    /// # Errors
    ///
    /// As for [`Client::fetch_large`], or if the item is larger ([`ClientError::Oversized`]).
    pub async fn read_large(&self, chain: &ChainName, reference: &Reference) -> Result<Value, ClientError> {
        let items = LargeItems::of(self, chain).await?;
        items.held(reference, items.read(reference)).await
    }

    /// Returns the reference to the large item with this name.
    ///
    /// # Errors
    ///
    /// If the chain has no large item of this name, or does not exist.
    pub async fn find_large(&self, chain: &ChainName, name: &str) -> Result<Reference, ClientError> {
        let LargeItems { store, .. } = LargeItems::of(self, chain).await?;
        Ok(store.named(name).await?)
    }

    /// Returns the large results that are still to be taken, and takes none. With a topic, those that its pullers wait for.
    ///
    /// They are references: [`ResultItem::large`] is set. The list ends with the newest of them.
    ///
    /// # Errors
    ///
    /// If there is no such chain, or the server does not answer.
    pub async fn large_results(
        &self,
        chain: &ChainName,
        topic: Option<&Topic>,
    ) -> Result<Items<ResultItem>, ClientError> {
        self.chain(chain).await?;
        let name = subject::results_stream(chain);
        let (patterns, consumer) = match topic {
            None => (subject::results_all(chain), subject::PULL_CONSUMER.to_owned()),
            Some(topic) => {
                let again = subject::results_again(chain, topic.as_str());
                (vec![subject::results_of(chain, topic), again], subject::topic_consumer(topic))
            }
        };
        let taken = match ChainStreams::of(&self.broker, chain).taken(&name, &consumer).await {
            // Nobody has pulled the topic yet.
            Err(BrokerError::Gone { .. }) if topic.is_some() => 0,
            taken => taken?,
        };
        let stream = Stream::of(&self.broker, &name);
        let mut scans = VecDeque::new();
        for pattern in patterns {
            scans.push_back(stream.scan(pattern, None).await?.behind(taken));
        }
        Ok(Items::of((scans, VecDeque::new()), |(mut scans, mut found): (VecDeque<Scan>, VecDeque<_>)| async move {
            loop {
                if let Some(result) = found.pop_front() {
                    return Ok(Some((result, (scans, found))));
                }
                let Some(scan) = scans.front_mut() else { return Ok(None) };
                match scan.next().await? {
                    None => drop(scans.pop_front()),
                    Some(message) if message.headers.get(header::LARGE).is_some() => {
                        let results = ResultItem::all(&message.headers, &message.payload, || None);
                        found.extend(results.into_iter().filter(|result| result.large.is_some()));
                    }
                    Some(_) => {}
                }
            }
        }))
    }

    /// Reads a large item as CBOR, as a message would hold it.
    pub(crate) async fn large_as_item(&self, chain: &ChainName, reference: &Reference) -> Result<Bytes, ClientError> {
        let items = LargeItems::of(self, chain).await?;
        let content = items.held(reference, items.content(reference)).await?;
        if reference.form == Form::Cbor {
            return Ok(content);
        }
        Ok([&reference.form.head(reference.size), &content[..]].concat().into())
    }
}

impl From<LargeError> for ClientError {
    fn from(error: LargeError) -> Self {
        match error {
            LargeError::Missing { chain, name, reason } => Self::LargeMissing { chain, name, reason },
            LargeError::Damaged { chain, name, reason } => Self::LargeDamaged { chain, name, reason },
            LargeError::TooLarge { size, max, why } => Self::Oversized { size, max, why },
            LargeError::File { what, error } => Self::ItemFile { what, error },
            LargeError::NoRoom { .. } => Self::Broker(BrokerError::other("store a large item".to_owned(), &error)),
            LargeError::Broker(error) => Self::Broker(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_header_names_is_a_reference() {
        let digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned();
        let reference = Reference { name: "01J".to_owned(), size: 7, digest, form: Form::Bytes };
        let item = reference.to_cbor();
        let payload = Bytes::from([&item[..], &[1], &item].concat());
        let with = |positions: Option<&str>| {
            let mut headers = Headers::new();
            headers.extend(positions.map(|positions| (header::LARGE, positions.to_owned())));
            references(&headers, &payload)
        };
        assert_eq!(with(Some("2")), [(2, reference.clone())]);
        assert_eq!(with(Some("0,2")), [(0, reference.clone()), (2, reference)]);
        for none in [None, Some("1"), Some("3"), Some("x")] {
            assert_eq!(with(none), [], "{none:?}");
        }
    }
}
