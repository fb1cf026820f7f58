use pcluster_sdk::task;
use serde::{Deserialize, Serialize};

/// An item.
#[derive(Debug, Deserialize)]
struct Line {
    text: String,
}

/// One of the items that come of it.
#[derive(Debug, PartialEq, Serialize)]
struct Word {
    word: String,
}

/// Splits a text into its words.
#[task(generator)]
fn task_name(item: Line) -> Vec<Word> {
    let mut words = Vec::new();
    for part in item.text.split(|letter: char| !letter.is_alphanumeric()) {
        if !part.is_empty() {
            let word = part.to_lowercase();
            words.push(Word { word });
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let text = text.to_owned();
        let words = task_name(Line { text });
        words.into_iter().map(|word| word.word).collect()
    }

    #[test]
    fn a_text_is_split_into_its_words() {
        assert_eq!(words("An ÜBER-long text"), ["an", "über", "long", "text"]);
        assert!(words(" ").is_empty());
    }
}
