//! The arguments of a program, with placeholders for fields of the item.
//!
//! An argument is never read by a shell. A placeholder is filled into its one argument, whatever the field holds.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use ciborium::Value;

use crate::frame::json;
use crate::text::{columns, cut, one_line};

/// The most bytes of an argument or a variable: Linux's `MAX_ARG_STRLEN`, 32 pages, with the byte at its end.
pub(super) const ARGUMENT_MAX: usize = (128 << 10) - 1;
/// The most columns of an argument that an error shows.
const SHOWN: usize = 120;
/// Characters that hardly a field's name has, but much code between braces.
const CODE: [char; 15] = ['\'', '"', '`', '$', ';', ',', '=', '(', ')', '[', ']', '<', '>', '\\', '!'];

/// An argument as its author writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

/// Why a text is not an argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// A brace has no other.
    #[error("`{0}` has a `{1}` without its other brace; {2}")]
    Brace(String, char, Remedy),
    /// A placeholder names no field.
    #[error("`{0}` has a placeholder without a name; name a field of the item, as in `{{steps}}`, or {1}")]
    NoName(String, Remedy),
    /// A placeholder looks like code.
    #[error("in `{0}`, `{1}` between single braces is read as the name of a field; {2}")]
    Code(String, String, Remedy),
    /// The text has a NUL.
    #[error("`{0}` holds a NUL character, which no argument of a program may")]
    Nul(String),
}

/// What to write for braces that are no placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remedy(String);

impl Remedy {
    /// Returns the remedy for an argument as its author has written it.
    fn of(text: &str) -> Self {
        Self(with_literal_braces(text))
    }
}

impl Display for Remedy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("`{{` and `}}` are literal braces")?;
        // A corrected text that is cut may not show what is corrected.
        if columns(&self.0) <= SHOWN && !self.0.contains('\n') {
            write!(f, ": write `{}`", self.0)?;
        }
        Ok(())
    }
}

/// Why an item does not fit into an argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FillError {
    /// The item is no map.
    #[error(
        "the argument `{2}` takes the field `{0}`, but the item is {1}; feed records, as in {{\"{0}\": 1}}, or, if no field is \
         meant, double the braces: `{3}`"
    )]
    NoRecord(String, &'static str, String, String),
    /// The field is missing.
    #[error(
        "the item lacks the field `{0}`, which the argument `{1}` takes; if no field is meant, double the braces: `{2}`"
    )]
    Missing(String, String, String),
    /// The field is no single value.
    #[error("the field `{0}` is {1}; an argument takes a text, a number or a boolean")]
    Kind(String, &'static str),
    /// The field has a NUL.
    #[error("the field `{0}` holds a NUL character, which no argument of a program may")]
    Nul(String),
    /// The argument would be too long.
    #[error("the field `{0}` makes an argument of {1} bytes; the system takes {ARGUMENT_MAX}")]
    Long(String, usize),
    /// The value would be read as an option.
    #[error(
        "the field `{0}` is `{1}`, which the program would read as an option; write `options = true` in the stage if it may, or \
         put `--` before the argument"
    )]
    Option(String, String),
}

impl Argument {
    /// Reads an argument. `{field}` is a placeholder, `{{` and `}}` are braces.
    pub(crate) fn new(text: &str) -> Result<Self, ArgumentError> {
        if text.contains('\0') {
            return Err(ArgumentError::Nul(text.replace('\0', "\\0")));
        }
        let (mut parts, mut literal) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = if rest.as_bytes()[at] == b'{' { '{' } else { '}' };
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push(brace);
                rest = after;
                continue;
            }
            let end = rest.find(['{', '}']).filter(|end| brace == '{' && rest.as_bytes()[*end] == b'}');
            let end = end.ok_or_else(|| ArgumentError::Brace(one_line(text, SHOWN), brace, Remedy::of(text)))?;
            let name = &rest[..end];
            if name.is_empty() {
                return Err(ArgumentError::NoName(one_line(text, SHOWN), Remedy::of(text)));
            }
            if is_code(name) {
                return Err(ArgumentError::Code(one_line(text, SHOWN), one_line(name, SHOWN), Remedy::of(text)));
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Field(name.to_owned()));
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// Returns an argument that is this text.
    pub(crate) fn literal(text: &str) -> Self {
        Self { parts: vec![Part::Text(text.to_owned())] }
    }

    /// Returns `true` if the argument has a placeholder.
    pub(crate) fn has_fields(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Field(_)))
    }

    /// Returns the text of an argument without placeholders.
    pub(crate) fn fixed(&self) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(name) => format!("{{{name}}}"),
        };
        self.parts.iter().map(text).collect()
    }

    /// Returns the text of a field.
    fn text_of<'a>(&self, item: &'a Value, name: &str) -> Result<Cow<'a, str>, FillError> {
        let named = name.to_owned();
        let written = || (self.written(None), self.written(Some(name)));
        let Value::Map(fields) = item else {
            let (argument, literal) = written();
            return Err(FillError::NoRecord(named, kind(item), argument, literal));
        };
        let Some((_, value)) = fields.iter().find(|(key, _)| key.as_text() == Some(name)) else {
            let (argument, literal) = written();
            return Err(FillError::Missing(named, argument, literal));
        };
        match value {
            Value::Text(text) if text.contains('\0') => Err(FillError::Nul(named)),
            Value::Text(text) => Ok(text.into()),
            Value::Float(number) if !number.is_finite() => Err(FillError::Kind(named, "not a finite number")),
            // The tags are those of integers beyond 64 bits.
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Tag(2 | 3, _) => {
                Ok(json::to_json(value).into())
            }
            other => Err(FillError::Kind(named, kind(other))),
        }
    }

    /// Returns the argument as its author writes it. This field becomes a text in braces.
    fn written(&self, literal: Option<&str>) -> String {
        let written = |part: &Part| match part {
            Part::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            Part::Field(name) if literal == Some(name) => format!("{{{{{name}}}}}"),
            Part::Field(name) => format!("{{{name}}}"),
        };
        cut(&self.parts.iter().map(written).collect::<String>(), SHOWN)
    }

    /// Fills the fields of an item in. `options`: a value may make the argument an option.
    pub(crate) fn fill(&self, item: &Value, options: bool) -> Result<String, FillError> {
        let mut filled = String::new();
        for (number, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Field(name) => {
                    let value = self.text_of(item, name)?;
                    if number == 0 && value.starts_with('-') && !options {
                        return Err(FillError::Option(name.clone(), cut(&value, 40)));
                    }
                    filled.push_str(&value);
                    if filled.len() > ARGUMENT_MAX {
                        return Err(FillError::Long(name.clone(), filled.len()));
                    }
                }
            }
        }
        Ok(filled)
    }
}

/// Returns `true` if what stands between braces is hardly the name of a field.
fn is_code(name: &str) -> bool {
    name.trim() != name || name.contains(|character: char| character.is_control() || CODE.contains(&character))
}

/// Returns an argument whose braces are literal, but for those of plain placeholders.
fn with_literal_braces(text: &str) -> String {
    let (mut written, mut rest) = (String::new(), text);
    // Its author doubles braces that are meant, unless none is doubled.
    let doubles = text.contains("{{");
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        written.push_str(before);
        let end = from[1..].find(['{', '}']).map(|end| end + 1).filter(|end| from[*end..].starts_with('}'));
        let is_plain = |name: &str| !name.is_empty() && name.chars().all(|each| each.is_alphanumeric() || each == '_');
        let is_doubled = doubles && (from.starts_with("{{") || from.starts_with("}}"));
        let taken = match end {
            _ if is_doubled => 2,
            Some(end) if from.starts_with('{') && is_plain(&from[1..end]) => end + 1,
            _ => {
                written.push_str(&from[..1]);
                1
            }
        };
        written.push_str(&from[..taken]);
        rest = &from[taken..];
    }
    written + rest
}

/// Returns what kind of value this is, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Array(_) => "a list",
        Value::Map(_) => "a map",
        Value::Bytes(_) => "a byte string",
        Value::Text(_) => "a text",
        Value::Bool(_) => "a boolean",
        Value::Integer(_) | Value::Float(_) => "a number",
        _ => "a tagged value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(argument: &str, item: &serde_json::Value, options: bool) -> Result<String, String> {
        let argument = Argument::new(argument).map_err(|error| error.to_string())?;
        let item = Value::serialized(item).expect("a value");
        argument.fill(&item, options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_field_is_filled_into_its_one_argument() {
        let item = serde_json::json!({"steps": 5, "name": "a b; rm -rf /", "half": 0.5, "on": true, "large": u64::MAX, "x": "{steps}"});
        for (argument, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("--steps={steps}", "--steps=5"),
            ("{name}", "a b; rm -rf /"),
            ("{half}{on}", "0.5true"),
            ("{large}", "18446744073709551615"),
            ("{{steps}}", "{steps}"),
            ("{{{steps}}}", "{5}"),
            ("{x}", "{steps}"),
            ("awk {{print $1}}", "awk {print $1}"),
        ] {
            assert_eq!(filled(argument, &item, false).as_deref(), Ok(expected), "{argument}");
        }
    }

    #[test]
    fn what_is_no_argument_is_told_when_the_manifest_is_read() {
        for (argument, expected) in [
            ("{steps", "`{steps` has a `{` without its other brace; `{{` and `}}` are literal braces: write `{{steps`"),
            ("steps}", "`steps}` has a `}` without its other brace; `{{` and `}}` are literal braces: write `steps}}`"),
            ("{a{b}", "`{a{b}` has a `{` without its other brace; `{{` and `}}` are literal braces: write `{{a{b}`"),
            (
                "{}",
                "`{}` has a placeholder without a name; name a field of the item, as in `{steps}`, or `{{` and `}}` are literal \
                 braces: write `{{}}`",
            ),
            (
                "print({'a': 1})",
                "in `print({'a': 1})`, `'a': 1` between single braces is read as the name of a field; `{{` and `}}` are \
                 literal braces: write `print({{'a': 1}})`",
            ),
            ("a\0b", "`a\\0b` holds a NUL character, which no argument of a program may"),
        ] {
            assert_eq!(Argument::new(argument).expect_err(argument).to_string(), expected);
        }
    }

    #[test]
    fn the_corrected_argument_has_the_braces_that_its_author_means() {
        for (argument, corrected) in [
            ("{'a': {'b': 1}}", "{{'a': {{'b': 1}}}}"),
            ("{\"steps\": {steps}}", "{{\"steps\": {steps}}}"),
            ("{{ok}} {'a': 1} {steps}", "{{ok}} {{'a': 1}} {steps}"),
            ("{ print $1 }", "{{ print $1 }}"),
            ("f() { x; }", "f() {{ x; }}"),
            ("{a", "{{a"),
        ] {
            let told = Argument::new(argument).expect_err(argument).to_string();
            assert!(told.ends_with(&format!(": write `{corrected}`")), "{told}");
            Argument::new(corrected).expect(corrected);
        }
        for name in ["{a b}", "{a-b.c}", "{größe}", "{ns:a}"] {
            assert!(Argument::new(name).expect(name).has_fields());
        }
    }

    #[test]
    fn an_item_that_does_not_fit_says_why() {
        let item = serde_json::json!({"list": [1], "map": {}, "null": null, "nul": "a\0b", "minus": "-rf", "number": -5,
            "long": "x".repeat(200_000)});
        for (argument, expected) in [
            (
                "{{}} {no}{list}",
                "the item lacks the field `no`, which the argument `{{}} {no}{list}` takes; if no field is meant, double the \
                 braces: `{{}} {{no}}{list}`",
            ),
            ("{list}", "the field `list` is a list; an argument takes a text, a number or a boolean"),
            ("{map}", "the field `map` is a map; an argument takes a text, a number or a boolean"),
            ("{null}", "the field `null` is null; an argument takes a text, a number or a boolean"),
            ("{nul}", "the field `nul` holds a NUL character, which no argument of a program may"),
            ("{long}", "the field `long` makes an argument of 200000 bytes; the system takes 131071"),
        ] {
            assert_eq!(filled(argument, &item, false).expect_err(argument), expected);
        }
        for argument in ["{minus}", "{number}"] {
            let refused = filled(argument, &item, false).expect_err(argument);
            assert!(refused.contains("which the program would read as an option"), "{refused}");
            assert!(filled(argument, &item, true).is_ok());
        }
        assert_eq!(filled("x{minus}", &item, false).as_deref(), Ok("x-rf"), "it is no option there");
        let text = filled("{steps}", &serde_json::json!("text"), false).expect_err("no record");
        assert_eq!(
            text,
            "the argument `{steps}` takes the field `steps`, but the item is a text; feed records, as in {\"steps\": 1}, or, if no \
             field is meant, double the braces: `{{steps}}`"
        );
    }
}
