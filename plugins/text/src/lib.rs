//! One task of each kind: a generator that splits a line, a filter for its words, and a map that measures them.
//!
//! ```sh
//! cargo build --release --target wasm32-wasip1 --package text
//! pcluster deploy plugins/text/chain.toml
//! pcluster feed text -f README.md
//! pcluster pull text
//! ```

use std::iter;

use pcluster_sdk::{Context, task};
use serde::{Deserialize, Serialize};

/// The `config` of `keep_long`.
#[derive(Debug, Default, Deserialize)]
struct Config {
    /// A word with no more letters than this is dropped.
    letters: Option<usize>,
}

/// A word and its length.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Measured {
    word: String,
    letters: usize,
}

/// Splits a line into its words, in lower case.
///
/// A word is a run of letters of any alphabet. Each word is published as soon as it is found, so the length of the line does not
/// matter.
#[task(generator)]
fn split(line: String) -> impl Iterator<Item = String> {
    let mut position = 0;
    iter::from_fn(move || {
        let rest = &line[position..];
        let begin = rest.find(char::is_alphabetic)?;
        let length = rest[begin..].find(|letter: char| !letter.is_alphabetic()).unwrap_or(rest.len() - begin);
        position += begin + length;
        Some(rest[begin..begin + length].to_lowercase())
    })
}

/// Keeps words of more than 6 letters, or of more than the stage's `letters` says.
#[task]
fn keep_long(word: String, cx: &Context<Config>) -> Option<String> {
    (word.chars().count() > cx.config().letters.unwrap_or(6)).then_some(word)
}

/// Counts the letters of a word.
#[task]
fn measure(word: String) -> Measured {
    Measured { letters: word.chars().count(), word }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(String::from(line)).collect()
    }

    #[test]
    fn a_line_is_split_at_everything_that_is_no_letter() {
        assert_eq!(words("  Don't panic: ÜBER-größe, 42x!"), ["don", "t", "panic", "über", "größe", "x"]);
        assert_eq!(words("one"), ["one"]);
        assert_eq!(words(" 1, 2, 3 "), Vec::<String>::new());
        assert_eq!(words(""), Vec::<String>::new());
    }

    #[test]
    fn letters_are_counted_and_not_bytes() {
        assert_eq!(measure("größe".to_owned()), Measured { word: "größe".to_owned(), letters: 5 });
    }

    #[test]
    fn long_words_stay() {
        let context = Context::default();
        assert_eq!(keep_long("größere".to_owned(), &context).as_deref(), Some("größere"));
        assert_eq!(keep_long("größen".to_owned(), &context), None);
        let context = Context::for_test(Config { letters: Some(2) });
        assert_eq!(keep_long("one".to_owned(), &context).as_deref(), Some("one"));
    }
}
