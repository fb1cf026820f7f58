//! The headers that a feeder gives to what it feeds.

use crate::frame::{Headers, header};

/// The most bytes of the names and values together. They travel with everything that comes of an item.
pub(super) const HEADERS_MAX: usize = 4 << 10;

/// Returns why a feeder may not give these headers. `None` if it may.
pub(super) fn problem(headers: &Headers) -> Option<String> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > HEADERS_MAX {
        return Some(format!(
            "the headers have {bytes} bytes, and {HEADERS_MAX} is the most: they go with everything that comes of an item; put \
             more into the item"
        ));
    }
    headers.iter().find_map(|(name, value)| problem_of(name, value))
}

fn problem_of(name: &str, value: &str) -> Option<String> {
    let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if name.is_empty() || !name.bytes().all(is_name) {
        return Some(format!(
            "`{}` is not the name of a header: it has 1 or more ASCII characters without spaces and colons",
            name.escape_debug()
        ));
    }
    if header::is_own(name) || name.eq_ignore_ascii_case(header::FED) {
        return Some(format!(
            "the header `{name}` is not a feeder's: `Content-Type` and names with `Nats-` or `Pcluster-` have a meaning of their own"
        ));
    }
    let is_plain = value.trim() == value && !value.is_empty() && !value.chars().any(char::is_control);
    (!is_plain).then(|| {
        format!(
            "the value of the header `{name}` is none: it has 1 or more characters, no space at its ends, and no line break or \
             other control character"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_refused_with_its_name_and_what_may_stand_there() {
        let said = |name: &str, value: &str| {
            let mut headers = Headers::new();
            headers.push(name.to_owned(), value);
            problem(&headers)
        };
        for (name, value) in [("X-Customer", "ada"), ("traceparent", "00-é=:,"), ("a=b", "c")] {
            assert_eq!(said(name, value), None, "{name}");
        }
        for (name, value, problem) in [
            ("", "a", "not the name"),
            ("X Y", "a", "not the name"),
            ("X:", "a", "not the name"),
            ("Ü", "a", "not the name"),
            ("nats-msg-id", "a", "not a feeder's"),
            ("Pcluster-Fed", "a", "not a feeder's"),
            ("content-type", "a", "not a feeder's"),
            ("X", "", "value of the header `X`"),
            ("X", "a\nb", "value of the header `X`"),
            ("X", " a", "value of the header `X`"),
        ] {
            assert!(said(name, value).is_some_and(|said| said.contains(problem)), "{name}={value}");
        }
        assert_eq!(said("X", &"a".repeat(HEADERS_MAX - 1)), None);
        assert!(said("X", &"a".repeat(HEADERS_MAX)).is_some_and(|said| said.contains("4097 bytes")));
    }
}
