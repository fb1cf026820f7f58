//! Reads a document of JSON Schema, of drafts 4 to 2020-12. Nothing is fetched: a reference leads to a place of the document.

mod format;
mod keywords;
mod place;

use std::collections::HashMap;

use super::datum::Datum;
use super::kinds::Kinds;
use super::node::{Id, Logic, Node};
use crate::frame::json::error::JsonError;
use keywords::Keywords;
pub(super) use place::below;

/// The most bytes of a document.
const MAX_BYTES: usize = 1 << 20;
/// The most nodes of a document.
const MAX_NODES: usize = 20_000;

/// Why a document is no schema.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The document is not JSON.
    #[error("not JSON: {0}")]
    Json(JsonError),
    /// A part of the document breaks the rules of JSON Schema.
    #[error("at `{place}`: {what}")]
    Invalid {
        /// Where the part is, as a JSON Pointer behind `#`.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The document is too large.
    #[error("it is larger than {} KiB, or has more than {MAX_NODES} parts", MAX_BYTES >> 10)]
    TooLarge,
}

/// Reads a document. Its first node is its root.
pub(super) fn read(json: &[u8]) -> Result<Vec<Node>, SchemaError> {
    if json.len() > MAX_BYTES {
        return Err(SchemaError::TooLarge);
    }
    let item = crate::frame::json::read::document(json, 1).map_err(SchemaError::Json)?;
    let value = crate::frame::cbor::value(&item).unwrap_or(ciborium::Value::Null);
    let document = Datum::of(&value).into_owned();
    let mut reader = Reader::of(&document);
    reader.id_of(&document, "#", false);
    while let Some(due) = reader.due.pop() {
        let mut node = reader.node(due.schema, &due.place, due.is_embedded)?;
        if let Some(place) = due.place.strip_prefix("#").filter(|place| !place.is_empty()) {
            node.unknown.iter_mut().for_each(|(_, why)| *why += &format!(", at `{place}` of its schema"));
        }
        reader.nodes[due.id] = node;
        if reader.nodes.len() > MAX_NODES {
            return Err(SchemaError::TooLarge);
        }
    }
    let mut nodes = reader.nodes;
    mark_circles(&mut nodes);
    skip_references(&mut nodes);
    // What is not understood may mean something else elsewhere, even if it is written the same.
    for (id, node) in nodes.iter_mut().enumerate().filter(|(_, node)| !node.unknown.is_empty()) {
        node.mark.push(id);
    }
    Ok(nodes)
}

/// Lets nodes name those that are referred to, in place of the references. The root stays the first.
fn skip_references(nodes: &mut [Node]) {
    let target = |node: &Node| {
        let [only] = node.logic.all.as_slice() else { return None };
        let logic = Logic { all: vec![*only], ..Logic::default() };
        (*node == Node { logic, ..Node::default() }).then_some(*only)
    };
    let mut targets: Vec<Id> = nodes.iter().enumerate().map(|(id, node)| target(node).unwrap_or(id)).collect();
    // References to references do not lead in circles: those were marked.
    for id in 0..targets.len() {
        let mut end = targets[id];
        while targets[end] != end {
            end = targets[end];
        }
        let mut at = id;
        while targets[at] != end {
            at = std::mem::replace(&mut targets[at], end);
        }
    }
    for node in nodes.iter_mut() {
        node.renumber(|id| targets[id]);
    }
    if targets[0] != 0 {
        nodes[0] = nodes[targets[0]].clone();
    }
}

/// A part of the document that has a node and is not read yet.
struct Due<'a> {
    id: Id,
    schema: &'a Datum<'static>,
    place: String,
    is_embedded: bool,
}

/// Reads the parts of a document.
struct Reader<'a> {
    document: &'a Datum<'static>,
    /// `true` if whatever stands beside `$ref` is ignored, as up to draft 7.
    is_ref_alone: bool,
    /// The nodes by the address of their part of the document.
    ids: HashMap<*const Datum<'static>, Id>,
    /// The nodes of references, by their text.
    references: HashMap<String, Id>,
    nodes: Vec<Node>,
    due: Vec<Due<'a>>,
}

impl<'a> Reader<'a> {
    fn of(document: &'a Datum<'static>) -> Self {
        let draft = match document {
            Datum::Object(entries) => match entries.get("$schema") {
                Some(Datum::Text(draft)) => draft.clone(),
                _ => "".into(),
            },
            _ => "".into(),
        };
        let is_ref_alone = ["draft-04", "draft-06", "draft-07"].iter().any(|old| draft.contains(old));
        Self {
            document,
            is_ref_alone,
            ids: HashMap::new(),
            references: HashMap::new(),
            nodes: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Returns the node of a part of the document, which is read later if it is new.
    fn id_of(&mut self, schema: &'a Datum<'static>, place: &str, is_embedded: bool) -> Id {
        let next = self.nodes.len();
        let id = *self.ids.entry(std::ptr::from_ref(schema)).or_insert(next);
        if id == next {
            self.nodes.push(Node::default());
            self.due.push(Due { id, schema, place: place.to_owned(), is_embedded });
        }
        id
    }

    fn node(&mut self, schema: &'a Datum<'static>, place: &str, is_embedded: bool) -> Result<Node, SchemaError> {
        match schema {
            Datum::Bool(true) => Ok(Node::default()),
            Datum::Bool(false) => Ok(Node::nothing()),
            Datum::Object(entries) => {
                // Below another `$id`, references are relative to it.
                let has_id = entries.get("$id").is_some_and(|id| !matches!(id, Datum::Text(id) if id.starts_with('#')));
                let is_embedded = is_embedded || (has_id && place != "#");
                Keywords { reader: self, entries, place, is_embedded }.node()
            }
            _ => Err(SchemaError::Invalid {
                place: place.to_owned(),
                what: "a schema is an object, `true` or `false`".to_owned(),
            }),
        }
    }
}

/// Marks the nodes that hold a value against themselves, directly or by others: they say nothing.
fn mark_circles(nodes: &mut [Node]) {
    let mut waiting: Vec<usize> = nodes.iter().map(|node| node.in_place().count()).collect();
    let mut users: Vec<Vec<Id>> = vec![Vec::new(); nodes.len()];
    for (id, node) in nodes.iter().enumerate() {
        node.in_place().for_each(|used| users[used].push(id));
    }
    let mut done: Vec<Id> = (0..nodes.len()).filter(|id| waiting[*id] == 0).collect();
    while let Some(id) = done.pop() {
        for user in &users[id] {
            waiting[*user] -= 1;
            if waiting[*user] == 0 {
                done.push(*user);
            }
        }
    }
    for (node, _) in nodes.iter_mut().zip(waiting).filter(|(_, waiting)| *waiting > 0) {
        *node = Node { unknown: vec![(Kinds::ALL, "a schema that refers to itself".to_owned())], ..Node::default() };
    }
}

/// Reads `x-untold`, by which an SDK says that a type of its language tells less than all about a value.
fn untold(keyword: &str, value: &Datum<'static>, node: &mut Node) -> bool {
    let (true, Datum::Text(why)) = (keyword == "x-untold", value) else { return false };
    node.unknown.push((Kinds::ALL, format!("its type says no more ({why})")));
    true
}
