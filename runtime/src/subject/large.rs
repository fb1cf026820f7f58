//! The names of large items: the object store of each chain (NATS ADR-20), and the records of who refers to an object.
//!
//! | for | subject |
//! |---|---|
//! | chunks | `$O.pcluster_large_<chain>.C.<name>` |
//! | descriptions | `$O.pcluster_large_<chain>.M.<name in base64>` |
//! | records | `$O.pcluster_large_<chain>.R.<name>.<holder>` |
//! | the turn to sweep | `$O.pcluster_large_<chain>.S` |

use std::fmt;
use std::str::FromStr;

use ulid::Ulid;

use super::stores;
use crate::name::ChainName;

/// The beginning of the names of these object stores. The name of the chain follows.
const PREFIX: &str = "pcluster_large_";

/// Returns the name of the object store of a chain's large items.
pub(crate) fn bucket(chain: &ChainName) -> String {
    format!("{PREFIX}{chain}")
}

/// Returns the chain of such an object store. `None` for others.
pub(crate) fn parse_bucket(bucket: &str) -> Option<&str> {
    let chain = bucket.strip_prefix(PREFIX)?;
    chain.parse::<ChainName>().ok().map(|_| chain)
}

/// Returns the stream of that object store.
pub(crate) fn stream(chain: &ChainName) -> String {
    stores::object_stream(&bucket(chain))
}

/// Returns the subjects of that stream.
pub(crate) fn subjects(chain: &ChainName) -> [String; 4] {
    let bucket = bucket(chain);
    [format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>"), format!("$O.{bucket}.R.>"), turn(chain)]
}

/// Returns the subject of the turn to sweep. Its message says which node sweeps now.
pub(crate) fn turn(chain: &ChainName) -> String {
    format!("$O.{}.S", bucket(chain))
}

/// Returns the subject of the chunks of an upload. Its id is a name that [`Reference`](crate::frame::large::Reference) allows.
pub(crate) fn chunks(chain: &ChainName, upload: &str) -> String {
    format!("$O.{}.C.{upload}", bucket(chain))
}

/// Returns the subject of the description of an object.
pub(crate) fn head(chain: &ChainName, name: &str) -> String {
    stores::object_head(&bucket(chain), name)
}

/// Returns the pattern of the descriptions of all objects.
pub(crate) fn heads(chain: &ChainName) -> String {
    stores::object_heads(&bucket(chain))
}

/// Returns the subject of the record that a holder refers to an object.
pub(crate) fn record(chain: &ChainName, name: &str, holder: &Holder) -> String {
    format!("$O.{}.R.{name}.{holder}", bucket(chain))
}

/// Returns the pattern of the records of an object.
pub(crate) fn records(chain: &ChainName, name: &str) -> String {
    format!("$O.{}.R.{name}.*", bucket(chain))
}

/// What a subject of an object store of large items is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Chunks of the upload with this id.
    Chunks(String),
    /// The description of the object with this name.
    Head(String),
    /// The record of a holder of the object with this name. `None` if the holder is of a kind that this program does not know.
    Record(String, Option<Holder>),
}

/// Parses a subject of the object store of any chain. `None` for others.
pub(crate) fn parse(subject: &str) -> Option<Part> {
    let mut tokens = subject.strip_prefix("$O.")?.strip_prefix(PREFIX)?.split('.').skip(1);
    let (kind, name) = (tokens.next()?, tokens.next()?);
    match (kind, tokens.next(), tokens.next()) {
        ("C", None, None) => Some(Part::Chunks(name.to_owned())),
        ("M", None, None) => stores::parse_object_head(subject).map(Part::Head),
        ("R", Some(holder), None) => Some(Part::Record(name.to_owned(), holder.parse().ok())),
        _ => None,
    }
}

/// What refers to an object: the last part of the subject of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// A node that handles the message at this place of the work stream, and makes the object.
    Making(u64),
    /// The message at this place of the work stream.
    Work(u64),
    /// The message at this place of the stream of results.
    Result(u64),
    /// The message at this place of the stream of dead letters.
    Dead(u64),
    /// A living client. The server forgets it soon after the client stops renewing it.
    Lease(Ulid),
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Making(place) => write!(formatter, "making-{place}"),
            Self::Work(place) => write!(formatter, "work-{place}"),
            Self::Result(place) => write!(formatter, "out-{place}"),
            Self::Dead(place) => write!(formatter, "dead-{place}"),
            Self::Lease(id) => write!(formatter, "lease-{id}"),
        }
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, rest) = text.split_once('-').ok_or(())?;
        let place = || rest.parse().map_err(drop);
        match kind {
            "making" => place().map(Self::Making),
            "work" => place().map(Self::Work),
            "out" => place().map(Self::Result),
            "dead" => place().map(Self::Dead),
            "lease" => Ulid::from_string(rest).map(Self::Lease).map_err(drop),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_formatted_can_be_parsed() {
        let chain: ChainName = "orders".parse().expect("valid");
        let id = Ulid::from_parts(7, 9);
        for holder in [Holder::Making(1), Holder::Work(2), Holder::Result(3), Holder::Dead(4), Holder::Lease(id)] {
            let subject = record(&chain, "01J", &holder);
            assert_eq!(parse(&subject), Some(Part::Record("01J".to_owned(), Some(holder))), "{subject}");
        }
        assert_eq!(parse(&chunks(&chain, "01J")), Some(Part::Chunks("01J".to_owned())));
        assert_eq!(parse(&head(&chain, "a.b")), Some(Part::Head("a.b".to_owned())));
        let other = "$O.pcluster_large_orders.R.01J.later-7";
        assert_eq!(parse(other), Some(Part::Record("01J".to_owned(), None)));
        for foreign in ["$O.models.C.x", "$O.pcluster_large_orders.S", "$O.pcluster_large_orders.R.x", "orders.C.x"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
