//! The tasks of the benchmarks: one multiplies records, one computes, one drops.

use pcluster_sdk::task;
use serde::{Deserialize, Serialize};

/// The item and output of these tasks.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Record {
    id: u64,
    text: String,
    /// The number of words in the text, once they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    words: Option<u64>,
}

/// Splits a record into two with half of the text each. Their ids are twice the record's id, and one more.
#[task(generator)]
fn halve(record: Record) -> [Record; 2] {
    let mut left = record.text;
    let right = left.split_off(left.floor_char_boundary(left.len() / 2));
    let half = |text, odd| Record { id: record.id.wrapping_mul(2) + odd, text, words: None };
    [half(left, 0), half(right, 1)]
}

/// Puts the text in upper case and counts its words.
#[task]
fn count_words(record: Record) -> Record {
    let words = record.text.split_whitespace().count() as u64;
    Record { text: record.text.to_uppercase(), words: Some(words), ..record }
}

/// Keeps the records whose id is even.
#[task]
fn keep_even(record: Record) -> Option<Record> {
    record.id.is_multiple_of(2).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, text: &str, words: Option<u64>) -> Record {
        Record { id, text: text.to_owned(), words }
    }

    #[test]
    fn the_halves_have_all_of_the_text() {
        assert_eq!(halve(record(3, "one two", None)), [record(6, "one", None), record(7, " two", None)]);
        assert_eq!(halve(record(0, "ß", None)), [record(0, "", None), record(1, "ß", None)]);
        assert_eq!(halve(record(1 << 63, "", None)), [record(0, "", None), record(1, "", None)]);
    }

    #[test]
    fn words_are_counted() {
        assert_eq!(count_words(record(5, " größe  two", None)), record(5, " GRÖSSE  TWO", Some(2)));
        assert_eq!(count_words(record(5, "", Some(9))), record(5, "", Some(0)));
    }

    #[test]
    fn every_other_record_is_kept() {
        assert_eq!(keep_even(record(4, "a", Some(1))), Some(record(4, "a", Some(1))));
        assert_eq!(keep_even(record(5, "a", None)), None);
    }
}
