//! The arguments of a program, with placeholders for fields of the item.
//!
//! An argument is never read by a shell. A placeholder is filled into its one argument, whatever the field holds.

use std::borrow::Cow;

use ciborium::Value;

use crate::frame::json;

/// The most bytes of an argument: Linux's `MAX_ARG_STRLEN`, 32 pages, with the byte at its end.
const ARGUMENT_MAX: usize = (128 << 10) - 1;

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
    #[error("`{0}` has a `{1}` without its other brace; write `{1}{1}` for the character itself")]
    Brace(String, char),
    /// A placeholder names no field.
    #[error("`{0}` has a placeholder without a name; name a field of the item, as in `{{steps}}`")]
    NoName(String),
    /// The text has a NUL.
    #[error("`{0}` holds a NUL character, which no argument of a program may")]
    Nul(String),
}

/// Why an item does not fit into an argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FillError {
    /// The item is no map.
    #[error("its arguments take the field `{0}`, but the item is {1}; feed records, as in {{\"{0}\": 1}}")]
    NoRecord(String, &'static str),
    /// The field is missing.
    #[error("the item lacks the field `{0}`, which its arguments take")]
    Missing(String),
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
            let end = end.ok_or_else(|| ArgumentError::Brace(text.to_owned(), brace))?;
            if end == 0 {
                return Err(ArgumentError::NoName(text.to_owned()));
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Field(rest[..end].to_owned()));
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

    /// Fills the fields of an item in. `options`: a value may make the argument an option.
    pub(crate) fn fill(&self, item: &Value, options: bool) -> Result<String, FillError> {
        let mut filled = String::new();
        for (number, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Field(name) => {
                    let value = text_of(item, name)?;
                    if number == 0 && value.starts_with('-') && !options {
                        return Err(FillError::Option(name.clone(), crate::text::cut(&value, 40)));
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

/// Returns the text of a field.
fn text_of<'a>(item: &'a Value, name: &str) -> Result<Cow<'a, str>, FillError> {
    let Value::Map(fields) = item else { return Err(FillError::NoRecord(name.to_owned(), kind(item))) };
    let field = fields.iter().find(|(key, _)| key.as_text() == Some(name));
    let (_, value) = field.ok_or_else(|| FillError::Missing(name.to_owned()))?;
    match value {
        Value::Text(text) if text.contains('\0') => Err(FillError::Nul(name.to_owned())),
        Value::Text(text) => Ok(text.into()),
        Value::Float(number) if !number.is_finite() => Err(FillError::Kind(name.to_owned(), "not a finite number")),
        // The tags are those of integers beyond 64 bits.
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Tag(2 | 3, _) => Ok(json::to_json(value).into()),
        other => Err(FillError::Kind(name.to_owned(), kind(other))),
    }
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
            ("{steps", "`{steps` has a `{` without its other brace; write `{{` for the character itself"),
            ("steps}", "`steps}` has a `}` without its other brace; write `}}` for the character itself"),
            ("{a{b}", "`{a{b}` has a `{` without its other brace; write `{{` for the character itself"),
            ("{}", "`{}` has a placeholder without a name; name a field of the item, as in `{steps}`"),
            ("a\0b", "`a\\0b` holds a NUL character, which no argument of a program may"),
        ] {
            assert_eq!(Argument::new(argument).expect_err(argument).to_string(), expected);
        }
    }

    #[test]
    fn an_item_that_does_not_fit_says_why() {
        let item = serde_json::json!({"list": [1], "map": {}, "null": null, "nul": "a\0b", "minus": "-rf", "number": -5,
            "long": "x".repeat(200_000)});
        for (argument, expected) in [
            ("{no}", "the item lacks the field `no`, which its arguments take"),
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
            "its arguments take the field `steps`, but the item is a text; feed records, as in {\"steps\": 1}"
        );
    }
}
