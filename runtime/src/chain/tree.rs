//! The parsed text of a manifest, and places in it.

use std::ops::Range;

use toml_edit::{Array, ArrayOfTables, ImDocument, Item, Table, TableLike, Value};

/// One step of the way from the root of a manifest to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an element of a list.
    Index(usize),
}

impl Step {
    /// Returns the key. `None` for an element of a list.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Index(_) => None,
        }
    }
}

/// Returns the path to a value of a stage.
pub(crate) fn of_stage(stage: usize, keys: &[&str]) -> Vec<Step> {
    let keys = keys.iter().map(|key| Step::Key((*key).to_owned()));
    [Step::Key("stage".to_owned()), Step::Index(stage)].into_iter().chain(keys).collect()
}

/// A mistake in the shape of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The code of its diagnostic.
    pub(super) code: &'static str,
    /// The bytes of the text that are wrong.
    pub(super) span: Range<usize>,
    /// The path to what is wrong. Empty for the root.
    pub(super) path: Vec<Step>,
    /// The mistake, and what to do.
    pub(super) message: String,
}

/// Parses a text.
pub(super) fn parse(text: &str) -> Result<Table, Fault> {
    let document = ImDocument::parse(text.to_owned()).map_err(|error| Fault {
        code: "toml",
        span: error.span().unwrap_or_default(),
        path: Vec::new(),
        message: error.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    // The clone keeps the places.
    Ok(document.as_table().clone())
}

/// A value, in whichever of its two forms.
#[derive(Clone, Copy)]
enum Node<'a> {
    Item(&'a Item),
    Value(&'a Value),
    Table(&'a Table),
}

impl<'a> Node<'a> {
    fn span(self) -> Option<Range<usize>> {
        match self {
            Self::Item(item) => item.span(),
            Self::Value(value) => value.span(),
            Self::Table(table) => table.span(),
        }
    }

    fn table(self) -> Option<&'a dyn TableLike> {
        match self {
            Self::Item(item) => item.as_table_like(),
            Self::Value(value) => value.as_inline_table().map(|table| table as &dyn TableLike),
            Self::Table(table) => Some(table),
        }
    }

    /// Returns the elements of a list. Empty if it is none.
    fn elements(self) -> Vec<Self> {
        let of_array =
            |array: Option<&'a Array>| array.map(|array| array.iter().map(Node::Value).collect()).unwrap_or_default();
        match self {
            Self::Item(Item::ArrayOfTables(tables)) => tables.iter().map(Node::Table).collect(),
            Self::Item(item) => of_array(item.as_array()),
            Self::Value(value) => of_array(value.as_array()),
            Self::Table(_) => Vec::new(),
        }
    }

    fn text(self) -> Option<&'a str> {
        match self {
            Self::Item(item) => item.as_str(),
            Self::Value(value) => value.as_str(),
            Self::Table(_) => None,
        }
    }
}

/// Returns the path to what has this span: a key or a value. If none has, the innermost value around its start.
pub(super) fn path_of(table: &Table, span: &Range<usize>) -> Vec<Step> {
    let mut path = Vec::new();
    let mut around = Vec::new();
    if search(table, span, &mut path, &mut around) { path } else { around }
}

fn search(table: &dyn TableLike, span: &Range<usize>, path: &mut Vec<Step>, around: &mut Vec<Step>) -> bool {
    for (key, item) in table.iter() {
        path.push(Step::Key(key.to_owned()));
        let is_key = table.key(key).and_then(toml_edit::Key::span).as_ref() == Some(span);
        if is_key || search_in(Node::Item(item), span, path, around) {
            return true;
        }
        path.pop();
    }
    false
}

fn search_in(node: Node<'_>, span: &Range<usize>, path: &mut Vec<Step>, around: &mut Vec<Step>) -> bool {
    let own = node.span();
    if own.as_ref() == Some(span) {
        return true;
    }
    if own.is_some_and(|own| own.contains(&span.start)) && path.len() > around.len() {
        around.clone_from(path);
    }
    if let Some(table) = node.table() {
        return search(table, span, path, around);
    }
    for (index, element) in node.elements().into_iter().enumerate() {
        path.push(Step::Index(index));
        if search_in(element, span, path, around) {
            return true;
        }
        path.pop();
    }
    false
}

/// Returns the value at a path, with the span of its key.
fn find<'a>(table: &'a Table, path: &[Step]) -> Option<(Node<'a>, Option<Range<usize>>)> {
    let mut found = (Node::Table(table), None);
    for step in path {
        found = match step {
            Step::Key(key) => {
                let table = found.0.table()?;
                let item = table.get(key)?;
                (Node::Item(item), table.key(key).and_then(toml_edit::Key::span))
            }
            Step::Index(index) => (found.0.elements().into_iter().nth(*index)?, None),
        };
    }
    Some(found)
}

/// Returns `true` if the manifest has something at a path.
pub(super) fn has(table: &Table, path: &[Step]) -> bool {
    find(table, path).is_some()
}

/// Returns the text at a path. `None` if there is none.
pub(super) fn text_at(table: &Table, path: &[Step]) -> Option<String> {
    find(table, path)?.0.text().map(str::to_owned)
}

/// Returns the bytes of what stands at a path: the value, or the key of a table. If nothing is there, what is around it.
pub(crate) fn span_of(table: &Table, path: &[Step]) -> Range<usize> {
    let Some((node, key)) = find(table, path) else {
        return path.split_last().map_or(0..0, |(_, around)| span_of(table, around));
    };
    let is_block = matches!(node, Node::Item(Item::Table(_) | Item::ArrayOfTables(_)));
    let span = node.span();
    if is_block { span.or(key) } else { span }.unwrap_or(0..0)
}

/// Returns the path to the part of a value that a message quotes. That is the value itself if it quotes none.
pub(super) fn quoted(table: &Table, path: &[Step], message: &str) -> Vec<Step> {
    let mut whole = path.to_vec();
    let Some((node, _)) = find(table, path) else { return whole };
    for name in message.split('`').skip(1).step_by(2) {
        if let Some(part) = node.table()
            && part.contains_key(name)
        {
            whole.push(Step::Key(name.to_owned()));
            return whole;
        }
        if let Some(index) = node.elements().into_iter().position(|element| element.text() == Some(name)) {
            whole.push(Step::Index(index));
            return whole;
        }
    }
    whole
}

/// What holds the last step of a path.
enum Holder<'a> {
    Table(&'a mut dyn TableLike),
    Tables(&'a mut ArrayOfTables),
    Array(&'a mut Array),
}

fn holder<'a>(table: &'a mut dyn TableLike, path: &[Step]) -> Option<Holder<'a>> {
    match path {
        [Step::Key(_)] => Some(Holder::Table(table)),
        [Step::Key(key), rest @ ..] => match table.get_mut(key)? {
            Item::Table(table) => holder(table, rest),
            Item::Value(value) => holder_in(value, rest),
            Item::ArrayOfTables(tables) => match rest {
                [Step::Index(_)] => Some(Holder::Tables(tables)),
                [Step::Index(index), rest @ ..] => holder(tables.get_mut(*index)?, rest),
                _ => None,
            },
            Item::None => None,
        },
        _ => None,
    }
}

fn holder_in<'a>(value: &'a mut Value, path: &[Step]) -> Option<Holder<'a>> {
    match (value, path) {
        (Value::InlineTable(table), path) => holder(table, path),
        (Value::Array(array), [Step::Index(_)]) => Some(Holder::Array(array)),
        (Value::Array(array), [Step::Index(index), rest @ ..]) => holder_in(array.get_mut(*index)?, rest),
        _ => None,
    }
}

/// Takes out what stands at a path. Returns `false` if nothing is there.
pub(super) fn remove(table: &mut Table, path: &[Step]) -> bool {
    match (holder(table, path), path.last()) {
        (Some(Holder::Table(table)), Some(Step::Key(key))) => table.remove(key).is_some(),
        (Some(Holder::Tables(tables)), Some(Step::Index(index))) if *index < tables.len() => {
            tables.remove(*index);
            true
        }
        (Some(Holder::Array(array)), Some(Step::Index(index))) if *index < array.len() => {
            array.remove(*index);
            true
        }
        _ => false,
    }
}

/// Puts a value in place of what stands at a path, if anything. Returns `false` if there is no table for it.
pub(super) fn put(table: &mut Table, path: &[Step], value: Value) -> bool {
    match (holder(table, path), path.last()) {
        (Some(Holder::Table(table)), Some(Step::Key(key))) => {
            table.insert(key, Item::Value(value));
            true
        }
        _ => false,
    }
}
