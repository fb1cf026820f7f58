//! Paths of URLs, compared by whole segments.

/// The segments of a granted path. Empty: every path is granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<String>);

impl Path {
    /// Takes a normalized path.
    pub(super) fn of(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() { Self::default() } else { Self(path.split('/').map(comparable).collect()) }
    }

    /// Returns `true` if every path is granted.
    pub(super) const fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if a normalized path is this one or below it. An ambiguous path is below none.
    pub(super) fn allows(&self, path: &str) -> bool {
        if self.is_any() {
            return true;
        }
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').map(comparable);
        ambiguity(path).is_none() && self.0.iter().all(|own| segments.next().is_some_and(|segment| segment == *own))
    }

    /// Returns `true` if every path that the other one allows is allowed.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|segment| write!(formatter, "/{segment}"))
    }
}

/// Returns a segment with its escapes in one spelling: `%c3` and `%C3` are the same byte.
fn comparable(segment: &str) -> String {
    let mut digits = 0;
    let upper = |character: char| {
        if character == '%' {
            digits = 2;
        } else if digits > 0 {
            digits -= 1;
            return character.to_ascii_uppercase();
        }
        character
    };
    segment.chars().map(upper).collect()
}

/// Returns why a server may read a path as another one. `None` if each server reads it alike.
///
/// Some servers decode a path before they split it, some decode it twice, and some cut what follows `;` off each segment.
pub(super) fn ambiguity(path: &str) -> Option<&'static str> {
    path.split('/').find_map(|segment| segment_ambiguity(segment.as_bytes()))
}

fn segment_ambiguity(segment: &[u8]) -> Option<&'static str> {
    let Some((decoded, escaped)) = decode(segment) else {
        return Some("it has a `%` without two hexadecimal digits");
    };
    for byte in escaped {
        match byte {
            b'/' => return Some("it has an encoded `/`"),
            b'\\' => return Some("it has an encoded `\\`"),
            b'.' => return Some("it has an encoded `.`"),
            0..0x20 | 0x7f => return Some("it has an encoded control character"),
            _ => {}
        }
    }
    if decoded.windows(3).any(|three| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit)) {
        return Some("it is encoded twice");
    }
    let name = decoded.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !name.is_empty() && name.iter().all(|byte| *byte == b'.') {
        return Some("it has a segment of dots");
    }
    if std::str::from_utf8(&decoded).is_err() { Some("it is not UTF-8 once decoded") } else { None }
}

/// Returns the decoded bytes, and those of them that were encoded. `None` if an escape is malformed.
fn decode(segment: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut decoded, mut escaped) = (Vec::with_capacity(segment.len()), Vec::new());
    let mut rest = segment;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let byte =
                u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?, 16).ok()?;
            escaped.push(byte);
            (byte, after)
        } else {
            (*first, after)
        };
        decoded.push(byte);
        rest = after;
    }
    Some((decoded, escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_whole_segments() {
        let path = Path::of("/v1/%c3%a4");
        for below in
            ["/v1/%C3%A4", "/v1/%c3%a4/", "/v1/%c3%a4/x/y", "/v1/%c3%a4//x", "/v1/%c3%a4/100%25", "/v1/%c3%a4/x.y;z=1"]
        {
            assert!(path.allows(below), "{below}");
        }
        for other in
            ["/v1", "/", "/v1/%c3%a4x", "/v1x/%c3%a4", "//v1/%c3%a4", "/V1/%c3%a4", "/v1;x/%c3%a4", "/v1/%C3%a5"]
        {
            assert!(!path.allows(other), "{other}");
        }
        assert!(Path::of("/").allows("/%2e%2e/..;/%252f"));
        assert_eq!((Path::of("/v1/").to_string(), Path::of("/").to_string()), ("/v1".to_owned(), String::new()));
    }

    #[test]
    fn a_path_that_servers_read_in_two_ways_is_below_none() {
        for (segment, problem) in [
            ("..%2fadmin", "it has an encoded `/`"),
            ("..%2Fadmin", "it has an encoded `/`"),
            ("..%5cadmin", "it has an encoded `\\`"),
            ("x%2e", "it has an encoded `.`"),
            ("%2E%2E%3b", "it has an encoded `.`"),
            ("..%252fadmin", "it is encoded twice"),
            ("%25252e", "it is encoded twice"),
            ("%%32%66", "it has a `%` without two hexadecimal digits"),
            ("%25%32%66", "it is encoded twice"),
            ("%u002e", "it has a `%` without two hexadecimal digits"),
            ("%+f", "it has a `%` without two hexadecimal digits"),
            ("x%", "it has a `%` without two hexadecimal digits"),
            ("..;", "it has a segment of dots"),
            ("..%3b", "it has a segment of dots"),
            ("..%3B.js", "it has a segment of dots"),
            ("..;a=b", "it has a segment of dots"),
            ("..%20", "it has a segment of dots"),
            ("...", "it has a segment of dots"),
            ("..%00", "it has an encoded control character"),
            ("x%0d%0a", "it has an encoded control character"),
            ("%c0%ae%c0%ae", "it is not UTF-8 once decoded"),
            ("%c0%af", "it is not UTF-8 once decoded"),
        ] {
            let path = format!("/v1/{segment}/x");
            assert_eq!(ambiguity(&path), Some(problem), "{segment}");
            assert!(!Path::of("/v1").allows(&path), "{segment}");
        }
    }
}
