//! Lists what an object store holds.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::super::object_head::ObjectHead;
use super::super::subject::{self, Holder, Part};
use super::super::{BrokerError, LargeStore};

/// What the store holds of an object.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) has_chunks: bool,
    pub(super) has_head: bool,
    /// Who its records name. `None` for a holder of an unknown kind.
    pub(super) records: Vec<Option<Holder>>,
}

/// What a store holds.
#[derive(Debug)]
pub(super) struct Listing {
    /// By the names of the objects.
    pub(super) objects: BTreeMap<String, Listed>,
    /// The time on the server.
    pub(super) now: OffsetDateTime,
}

impl Listing {
    /// Lists a store. `None` if it is empty or does not exist.
    pub(super) async fn read(store: &LargeStore) -> Result<Option<Self>, BrokerError> {
        let (mut objects, mut now) = (BTreeMap::new(), None);
        // One list of all of them would take the server longer: it sorts a list that is too long for one answer.
        for pattern in subject::subjects(&store.0.chain) {
            let read = read(store, &pattern, &mut objects).await;
            match read {
                Err(error) if error.is_not_found() => return Ok(None),
                read => now = read?.or(now),
            }
        }
        let Some(now) = now.filter(|_| !objects.is_empty()) else { return Ok(None) };
        let uploads = uploads(store, &objects).await?;
        objects.retain(|name, listed| listed.has_head || !listed.records.is_empty() || !uploads.contains(name));
        Ok(Some(Self { objects, now }))
    }
}

/// Lists the subjects of a pattern. Returns the time on the server.
async fn read(
    store: &LargeStore,
    pattern: &str,
    objects: &mut BTreeMap<String, Listed>,
) -> Result<Option<OffsetDateTime>, BrokerError> {
    let mut seen = 0;
    loop {
        let page = store.stream().state_of_many(pattern, seen).await?;
        let now = page.ts.as_deref().and_then(|now| OffsetDateTime::parse(now, &Rfc3339).ok());
        let (subjects, total) = (page.state.subjects, page.total);
        seen += subjects.len();
        let is_last = subjects.is_empty() || seen >= total;
        for name in subjects.into_keys() {
            match subject::parse(&name) {
                Some(Part::Chunks(upload)) => objects.entry(upload).or_default().has_chunks = true,
                Some(Part::Head(object)) => objects.entry(object).or_default().has_head = true,
                Some(Part::Record(object, holder)) => objects.entry(object).or_default().records.push(holder),
                None => {}
            }
        }
        if is_last {
            return Ok(now);
        }
    }
}

/// Returns the ids of the chunks of objects whose chunks have another name: other clients have stored them.
async fn uploads(store: &LargeStore, objects: &BTreeMap<String, Listed>) -> Result<BTreeSet<String>, BrokerError> {
    let mut uploads = BTreeSet::new();
    for (name, _) in objects.iter().filter(|(_, listed)| listed.has_head && !listed.has_chunks) {
        let head = store.stored_head(name).await?.and_then(|stored| ObjectHead::read(&stored.payload));
        uploads.extend(head.and_then(|head| Some(head.upload()?.to_owned())));
    }
    Ok(uploads)
}
