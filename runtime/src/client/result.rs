//! The results of a chain.

use bytes::Bytes;
use ciborium::Value;
use serde::Serialize;
use serde::ser::SerializeMap;

use crate::frame::cbor;
use crate::frame::format::Format;
use crate::frame::id::{FrameId, Index};
use crate::frame::json::AsJson;
use crate::frame::large::{Positions, Reference};
use crate::frame::record::Record;
use crate::frame::steps::Steps;
use crate::frame::{Frame, Headers, header};

/// A result with its origin.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ResultItem {
    /// The item. Where it is [`large`](Self::large), what stands for it in the message.
    pub item: Value,
    /// What names the bytes of the item in the chain's object store. `None` if the message holds them.
    pub large: Option<Reference>,
    /// The id under which the original item was fed.
    pub id: String,
    /// The version of the chain that finished the item.
    pub version: String,
    /// The number of the revision that finished the item.
    pub revision: u64,
    /// The node that finished the item.
    pub node: String,
    /// The topic of the result. `None` if it has none.
    pub topic: Option<String>,
    /// The headers of the fed message.
    pub headers: Headers,
    /// The steps that it went through. `None` unless the chain records them, with `[results] records`.
    pub record: Option<Record>,
}

impl ResultItem {
    /// Returns the results in a message of the stream of results.
    ///
    /// `stored` tells when it was stored, in milliseconds since the Unix epoch.
    pub(crate) fn all(headers: &Headers, payload: &Bytes, stored: impl FnOnce() -> Option<u64>) -> Vec<Self> {
        let items = Format::Cbor.items(payload).unwrap_or_else(|_| vec![payload.clone()]);
        let get = |name: &str| headers.get(name).unwrap_or_default();
        let index = headers.get(header::INDEX).and_then(|text| Index::parse(text, items.len()).ok());
        let large = headers.get(header::LARGE).and_then(|text| Positions::parse(text, items.len()));
        let frame = Frame {
            id: FrameId::from_header(get(header::ID)),
            index: index.unwrap_or_else(|| Index::in_order(items.len())),
            large: large.unwrap_or_default(),
            items,
            inherited: headers.inherited().without(&[header::TOPIC]),
        };
        let steps = headers.get(header::STEPS).and_then(|text| Steps::from_header(text, frame.items.len()));
        let steps = steps.map(|steps| (steps, frame.id.hops(), stored()));
        let record = |position| steps.as_ref().map(|(steps, hops, stored)| Record::of(steps, position, *hops, *stored));
        let result = |(position, item): (usize, &Bytes)| Self {
            large: frame.reference(position),
            item: cbor::value(item).unwrap_or_else(|| Value::Bytes(item.to_vec())),
            id: frame.fed_id(position),
            version: get(header::VERSION).to_owned(),
            revision: get(header::REVISION).parse().unwrap_or(0),
            node: get(header::NODE).to_owned(),
            topic: headers.get(header::TOPIC).map(str::to_owned),
            headers: frame.inherited.clone(),
            record: record(position),
        };
        frame.items.iter().enumerate().map(result).collect()
    }

    /// Returns the item as one line of JSON.
    pub fn to_json(&self) -> String {
        crate::frame::json::to_json(&self.item)
    }

    /// Returns the item and its origin as one JSON object. `chain` is the name of the chain.
    pub fn with_meta<'a>(&'a self, chain: &'a str) -> WithMeta<'a> {
        WithMeta { chain, result: self }
    }
}

/// A result with its origin, in its form as JSON. A large item is its reference.
pub struct WithMeta<'a> {
    chain: &'a str,
    result: &'a ResultItem,
}

impl Serialize for WithMeta<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.result.id)?;
        map.serialize_entry("chain", self.chain)?;
        map.serialize_entry("version", &self.result.version)?;
        map.serialize_entry("revision", &self.result.revision)?;
        map.serialize_entry("node", &self.result.node)?;
        if let Some(topic) = &self.result.topic {
            map.serialize_entry("topic", topic)?;
        }
        map.serialize_entry("headers", &self.result.headers)?;
        if let Some(record) = &self.result.record {
            map.serialize_entry("record", record)?;
        }
        match &self.result.large {
            Some(large) => map.serialize_entry("large", large)?,
            None => map.serialize_entry("item", &AsJson(&self.result.item))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_of_a_result_has_the_id_it_was_fed_under() {
        let mut headers = Headers::new();
        headers.push(header::ID, "batch%2E7.0.1");
        headers.push(header::INDEX, "0,3");
        headers.push(header::VERSION, "1.0");
        headers.push("X-Customer", "ada");
        let results = ResultItem::all(&headers, &Bytes::from_static(b"\x01\x02"), || None);
        assert_eq!(results.iter().map(|result| result.id.as_str()).collect::<Vec<_>>(), ["batch.7", "batch.7#3"]);
        let json = serde_json::to_string(&results[0].with_meta("c")).expect("plain");
        let expected = r#"{"id":"batch.7","chain":"c","version":"1.0","revision":0,"node":"","headers":{"X-Customer":"ada"},"item":1}"#;
        assert_eq!(json, expected);
    }
}
