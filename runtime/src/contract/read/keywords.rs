//! Reads the keywords of one object of a document.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{Reader, SchemaError, format, place, untold};
use crate::contract::datum::Datum;
use crate::contract::decimal::Decimal;
use crate::contract::kinds::Kinds;
use crate::contract::node::{Bound, Count, Id, Node};

type Entries = BTreeMap<Cow<'static, str>, Datum<'static>>;

/// Keywords that say nothing about which values fit.
const NOTES: [&str; 24] = [
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "$vocabulary",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "discriminator",
    "enumNames",
    "example",
    "examples",
    "externalDocs",
    "id",
    "markdownDescription",
    "readOnly",
    "title",
    "writeOnly",
    "xml",
];

/// The keywords of one object of a document.
pub(super) struct Keywords<'r, 'a> {
    /// The reader of the whole document.
    pub reader: &'r mut Reader<'a>,
    /// The keywords.
    pub entries: &'a Entries,
    /// Where the object is.
    pub place: &'r str,
    /// `true` if references are relative to another document.
    pub is_embedded: bool,
}

impl<'a> Keywords<'_, 'a> {
    /// Reads all keywords.
    pub(super) fn node(&mut self) -> Result<Node, SchemaError> {
        let mut node = Node::default();
        if let Some(reference) = self.entries.get("$ref") {
            self.reference(reference, &mut node)?;
            if self.reader.is_ref_alone {
                return Ok(node);
            }
        }
        let mut types = None;
        for (keyword, value) in self.entries {
            let is_known = self.general(keyword, value, &mut node, &mut types)?
                || self.number(keyword, value, &mut node)?
                || self.text(keyword, value, &mut node)?
                || self.list(keyword, value, &mut node)?
                || self.object(keyword, value, &mut node)?
                || self.logic(keyword, value, &mut node)?
                || untold(keyword, value, &mut node)
                || keyword.starts_with("x-")
                || NOTES.contains(&keyword.as_ref());
            if !is_known {
                node.unknown.push((reach(keyword), format!("the keyword `{keyword}`")));
            }
        }
        if let Some(types) = types {
            node.kinds =
                node.kinds & (types | if types.meets(Kinds::TEXT) { self.foreign_texts() } else { Kinds::NONE });
        }
        Ok(node)
    }

    fn invalid(&self, keyword: &str, what: impl std::fmt::Display) -> SchemaError {
        SchemaError::Invalid { place: self.place.to_owned(), what: format!("`{keyword}` {what}") }
    }

    /// Returns the node of a schema that this keyword holds.
    fn part(&mut self, keyword: &str, schema: &'a Datum<'static>) -> Id {
        self.reader.id_of(schema, &place::below(self.place, keyword), self.is_embedded)
    }

    /// Returns the nodes of a list of schemas.
    fn parts(&mut self, keyword: &str, value: &'a Datum<'static>) -> Result<Vec<Id>, SchemaError> {
        let Datum::List(schemas) = value else { return Err(self.invalid(keyword, "is a list of schemas")) };
        let place = place::below(self.place, keyword);
        let part = |(at, schema)| self.reader.id_of(schema, &format!("{place}/{at}"), self.is_embedded);
        Ok(schemas.iter().enumerate().map(part).collect())
    }

    /// Returns the nodes of schemas by name.
    fn named_parts(&mut self, keyword: &str, value: &'a Datum<'static>) -> Result<BTreeMap<String, Id>, SchemaError> {
        let Datum::Object(schemas) = value else { return Err(self.invalid(keyword, "is an object of schemas")) };
        let place = place::below(self.place, keyword);
        let part = |(name, schema): (&Cow<'static, str>, _)| {
            (name.to_string(), self.reader.id_of(schema, &place::below(&place, name), self.is_embedded))
        };
        Ok(schemas.iter().map(part).collect())
    }

    fn texts(&self, keyword: &str, value: &Datum<'static>) -> Result<BTreeSet<String>, SchemaError> {
        let text = |value: &Datum<'static>| match value {
            Datum::Text(text) => Some(text.to_string()),
            _ => None,
        };
        let Datum::List(values) = value else { return Err(self.invalid(keyword, "is a list of texts")) };
        values.iter().map(text).collect::<Option<_>>().ok_or_else(|| self.invalid(keyword, "is a list of texts"))
    }

    fn one_text(&self, keyword: &str, value: &Datum<'static>) -> Result<String, SchemaError> {
        match value {
            Datum::Text(text) => Ok(text.to_string()),
            _ => Err(self.invalid(keyword, "is a text")),
        }
    }

    fn one_number(&self, keyword: &str, value: &Datum<'static>) -> Result<Decimal, SchemaError> {
        match value {
            Datum::Number(number) => Ok(number.clone()),
            _ => Err(self.invalid(keyword, "is a number")),
        }
    }

    fn count(&self, keyword: &str, value: &Datum<'static>) -> Result<u64, SchemaError> {
        let count = match value {
            Datum::Number(number) => number.in_units(0).and_then(|count| u64::try_from(count).ok()),
            _ => None,
        };
        count.ok_or_else(|| self.invalid(keyword, "is a whole number, and not negative"))
    }

    fn flag(&self, keyword: &str, value: &Datum<'static>) -> Result<bool, SchemaError> {
        match value {
            Datum::Bool(flag) => Ok(*flag),
            _ => Err(self.invalid(keyword, "is `true` or `false`")),
        }
    }

    fn reference(&mut self, value: &'a Datum<'static>, node: &mut Node) -> Result<(), SchemaError> {
        let reference = self.one_text("$ref", value)?;
        if let Some(id) = self.reader.references.get(&reference).filter(|_| !self.is_embedded) {
            node.logic.all.push(*id);
            return Ok(());
        }
        let own = match self.reader.document {
            Datum::Object(entries) => entries.get("$id").or_else(|| entries.get("id")),
            _ => None,
        };
        let (document, pointer) = reference.split_once('#').unwrap_or((&reference, ""));
        let is_own =
            document.is_empty() || matches!(own, Some(Datum::Text(own)) if own.trim_end_matches('#') == document);
        if self.is_embedded || !is_own || !(pointer.is_empty() || pointer.starts_with('/')) {
            node.unknown.push((Kinds::ALL, format!("the reference `{reference}`, since schemas fetch nothing")));
            return Ok(());
        }
        let Some(schema) = place::find(self.reader.document, pointer) else {
            return Err(self.invalid("$ref", format!("names `{reference}`, which is not in the document")));
        };
        let id = self.reader.id_of(schema, &format!("#{pointer}"), false);
        self.reader.references.insert(reference, id);
        node.logic.all.push(id);
        Ok(())
    }

    fn general(
        &mut self,
        keyword: &str,
        value: &'a Datum<'static>,
        node: &mut Node,
        types: &mut Option<Kinds>,
    ) -> Result<bool, SchemaError> {
        match keyword {
            "$ref" => {}
            "type" => {
                let names = match value {
                    Datum::Text(name) => BTreeSet::from([name.to_string()]),
                    _ => self.texts(keyword, value)?,
                };
                let mut kinds = Kinds::NONE;
                for name in names {
                    let known = Kinds::of_type(&name);
                    kinds = kinds
                        | known.ok_or_else(|| self.invalid(keyword, format!("names `{name}`, which is no type")))?;
                }
                *types = Some(kinds);
            }
            "enum" | "const" => {
                let values = match value {
                    _ if keyword == "const" => BTreeSet::from([value.clone()]),
                    Datum::List(values) => values.iter().cloned().collect(),
                    _ => return Err(self.invalid(keyword, "is a list of values")),
                };
                let both = |other: BTreeSet<_>| other.intersection(&values).cloned().collect();
                node.values = Some(node.values.take().map_or(values.clone(), both));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn number(&mut self, keyword: &str, value: &'a Datum<'static>, node: &mut Node) -> Result<bool, SchemaError> {
        let is_flag = |name: &str| matches!(self.entries.get(name), Some(Datum::Bool(true)));
        let number = &mut node.number;
        match (keyword, value) {
            ("minimum", _) => {
                let is_open = is_flag("exclusiveMinimum");
                number.least.push(Bound { value: self.one_number(keyword, value)?, is_open });
            }
            ("maximum", _) => {
                let is_open = is_flag("exclusiveMaximum");
                number.most.push(Bound { value: self.one_number(keyword, value)?, is_open });
            }
            // Draft 4 says whether `minimum` itself fits.
            ("exclusiveMinimum" | "exclusiveMaximum", Datum::Bool(_)) => {}
            ("exclusiveMinimum", _) => {
                number.least.push(Bound { value: self.one_number(keyword, value)?, is_open: true });
            }
            ("exclusiveMaximum", _) => {
                number.most.push(Bound { value: self.one_number(keyword, value)?, is_open: true });
            }
            ("multipleOf", _) => {
                let step = self.one_number(keyword, value)?;
                if step <= Decimal::default() {
                    return Err(self.invalid(keyword, "is a number above 0"));
                }
                number.step = Some(step);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn text(&mut self, keyword: &str, value: &'a Datum<'static>, node: &mut Node) -> Result<bool, SchemaError> {
        match keyword {
            "minLength" | "maxLength" => self.limit(keyword, value, &mut node.text.length)?,
            "pattern" => node.text.pattern = Some(self.one_text(keyword, value)?),
            "format" => {
                let name = self.one_text(keyword, value)?;
                match format::hinted(&name) {
                    Some(range) => node.number.hinted = Some(range),
                    None if !format::is_number(&name) && !format::is_bytes(&name) => node.text.format = Some(name),
                    None => {}
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the least or the most of something.
    fn limit(&self, keyword: &str, value: &Datum<'static>, count: &mut Count) -> Result<(), SchemaError> {
        let limit = self.count(keyword, value)?;
        if keyword.starts_with("min") {
            count.least = limit;
        } else {
            count.most = Some(limit);
        }
        Ok(())
    }

    fn list(&mut self, keyword: &str, value: &'a Datum<'static>, node: &mut Node) -> Result<bool, SchemaError> {
        let list = &mut node.list;
        match (keyword, value) {
            ("minItems" | "maxItems", _) => self.limit(keyword, value, &mut list.length)?,
            ("prefixItems", _) | ("items", Datum::List(_)) => list.prefix = self.parts(keyword, value)?,
            ("items", _) => list.rest = Some(self.part(keyword, value)),
            ("additionalItems", _) => {
                // It is about lists whose first items have schemas of their own, and nothing else.
                if matches!(self.entries.get("items"), Some(Datum::List(_))) {
                    list.rest = Some(self.part(keyword, value));
                }
            }
            ("uniqueItems", _) => list.is_unique = self.flag(keyword, value)?,
            ("contains", _) => {
                if !matches!(self.entries.get("minContains"), Some(Datum::Number(least)) if *least == Decimal::default())
                {
                    list.contains = Some(self.part(keyword, value));
                }
            }
            ("minContains", _) => {
                if self.entries.contains_key("contains") && self.count(keyword, value)? > 1 {
                    return Ok(false);
                }
            }
            ("maxContains", _) => return Ok(!self.entries.contains_key("contains")),
            ("unevaluatedItems", _) if self.is_alone() && !self.entries.contains_key("contains") => {
                let is_open = matches!(self.entries.get("items"), None | Some(Datum::List(_)));
                if is_open && !self.entries.contains_key("additionalItems") {
                    list.rest = Some(self.part(keyword, value));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn object(&mut self, keyword: &str, value: &'a Datum<'static>, node: &mut Node) -> Result<bool, SchemaError> {
        let object = &mut node.object;
        match keyword {
            "minProperties" | "maxProperties" => self.limit(keyword, value, &mut object.size)?,
            "required" => object.required = self.texts(keyword, value)?,
            "properties" => object.properties = self.named_parts(keyword, value)?,
            "patternProperties" => object.patterns = self.named_parts(keyword, value)?,
            "additionalProperties" => object.others = Some(self.part(keyword, value)),
            "unevaluatedProperties" if self.is_alone() => {
                if !self.entries.contains_key("additionalProperties") {
                    object.others = Some(self.part(keyword, value));
                }
            }
            "propertyNames" => object.names = Some(self.part(keyword, value)),
            "dependentSchemas" => object.schemas.extend(self.named_parts(keyword, value)?),
            "dependentRequired" | "dependencies" => {
                let Datum::Object(entries) = value else { return Err(self.invalid(keyword, "is an object")) };
                for (name, needed) in entries {
                    if keyword == "dependencies" && !matches!(needed, Datum::List(_)) {
                        let place = place::below(&place::below(self.place, keyword), name);
                        let id = self.reader.id_of(needed, &place, self.is_embedded);
                        object.schemas.insert(name.to_string(), id);
                    } else {
                        object.needs.insert(name.to_string(), self.texts(keyword, needed)?);
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns `true` if no other schema is held against the same value, so that nothing else can have looked at its parts.
    fn is_alone(&self) -> bool {
        let others = [
            "$ref",
            "$dynamicRef",
            "$recursiveRef",
            "allOf",
            "anyOf",
            "oneOf",
            "if",
            "dependentSchemas",
            "dependencies",
        ];
        !others.iter().any(|keyword| self.entries.contains_key(*keyword))
    }

    fn logic(&mut self, keyword: &str, value: &'a Datum<'static>, node: &mut Node) -> Result<bool, SchemaError> {
        match keyword {
            "allOf" => node.logic.all.extend(self.parts(keyword, value)?),
            "anyOf" => node.logic.any = Some(self.parts(keyword, value)?),
            "oneOf" => node.logic.one = Some(self.parts(keyword, value)?),
            "not" => node.logic.not = Some(self.part(keyword, value)),
            "if" => {
                let entries = self.entries;
                let mut branch = |name| entries.get(name).map(|schema| self.part(name, schema));
                let (then, other) = (branch("then"), branch("else"));
                node.logic.condition = Some((self.part(keyword, value), then, other));
            }
            "then" | "else" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the values of CBOR that stand for a text here.
    fn foreign_texts(&self) -> Kinds {
        let text = |keyword: &str| match self.entries.get(keyword) {
            Some(Datum::Text(text)) => text.as_ref(),
            _ => "",
        };
        let bytes = if matches!(text("contentEncoding"), "base64" | "base64url") { Kinds::BYTES } else { Kinds::NONE };
        bytes
            | match text("format") {
                name if format::is_bytes(name) => Kinds::BYTES,
                "date-time" => Kinds::TIME,
                "date" => Kinds::DATE,
                "uuid" => Kinds::UUID,
                _ => Kinds::NONE,
            }
    }
}

/// Returns the kinds of values that a keyword that nobody knows may be about.
fn reach(keyword: &str) -> Kinds {
    match keyword {
        "unevaluatedItems" | "minContains" | "maxContains" => Kinds::LIST,
        "unevaluatedProperties" => Kinds::OBJECT,
        _ => Kinds::ALL,
    }
}
