//! Places within a document, as JSON Pointers (RFC 6901).

use std::borrow::Cow;

use crate::contract::datum::Datum;

/// Returns the part of a document that a pointer leads to. The pointer is what follows `#` in a reference.
pub(super) fn find<'a>(document: &'a Datum<'static>, pointer: &str) -> Option<&'a Datum<'static>> {
    if pointer.is_empty() {
        return Some(document);
    }
    pointer.strip_prefix('/')?.split('/').try_fold(document, |part, step| {
        let step = unescaped(step)?;
        match part {
            Datum::Object(entries) => entries.get(step.as_ref()),
            Datum::List(values) => values.get(step.parse::<usize>().ok()?),
            _ => None,
        }
    })
}

/// Returns a pointer to a part of the part at this place.
pub(in crate::contract) fn below(place: &str, step: &str) -> String {
    format!("{place}/{}", step.replace('~', "~0").replace('/', "~1"))
}

/// Returns a step without the escapes of URLs and of JSON Pointers. `None` if it is not UTF-8.
fn unescaped(step: &str) -> Option<Cow<'_, str>> {
    if !step.contains(['%', '~']) {
        return Some(step.into());
    }
    let mut bytes = Vec::with_capacity(step.len());
    let mut rest = step.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    let text = String::from_utf8(bytes).ok()?;
    Some(text.replace("~1", "/").replace("~0", "~").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_behind_its_escapes() {
        let inner =
            [("a/b".into(), Datum::List(vec![Datum::Null, Datum::Bool(true)])), ("~".into(), Datum::Bool(false))];
        let document = Datum::Object(inner.into());
        for (pointer, found) in [
            ("", Some(&document)),
            ("/a~1b/1", Some(&Datum::Bool(true))),
            ("/a%7E1b/1", Some(&Datum::Bool(true))),
            ("/~0", Some(&Datum::Bool(false))),
            ("/a~1b/2", None),
            ("/a~1b/x", None),
            ("/c", None),
            ("a", None),
        ] {
            assert_eq!(find(&document, pointer), found, "{pointer}");
        }
        assert_eq!(below("#", "a/~"), "#/a~1~0");
    }
}
