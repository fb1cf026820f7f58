use std::collections::BTreeMap;

use pcluster_sdk::{Error, task};
use serde::{Deserialize, Serialize};

/// What the `config` of the stage can set.
#[derive(Debug, Default, Deserialize)]
struct Config {
    /// The meanings of words.
    meanings: BTreeMap<String, String>,
}

/// An item.
#[derive(Debug, Deserialize)]
struct Word {
    word: String,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Serialize)]
struct Explained {
    word: String,
    meaning: Option<String>,
}

/// The state: a large table in practice.
struct Meanings(BTreeMap<String, String>);

/// Makes the state, once. Each item starts with a copy of it, which costs nothing.
fn load(config: Config) -> Result<Meanings, Error> {
    if config.meanings.is_empty() {
        return Err(Error::fatal("the `config` of the stage has no meanings"));
    }
    Ok(Meanings(config.meanings))
}

/// Adds the meaning of a word.
#[task(init = load)]
fn task_name(item: Word, meanings: &Meanings) -> Explained {
    let meaning = meanings.0.get(&item.word).cloned();
    let word = item.word;
    Explained { word, meaning }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_explained_from_the_state() {
        let meanings = BTreeMap::from([("eg".to_owned(), "for example".to_owned())]);
        let meanings = load(Config { meanings }).unwrap();
        for (word, meaning) in [("eg", Some("for example")), ("xy", None)] {
            let word = word.to_owned();
            let explained = task_name(Word { word }, &meanings);
            assert_eq!(explained.meaning.as_deref(), meaning);
        }
    }

    #[test]
    fn a_state_needs_meanings() {
        assert!(load(Config::default()).err().unwrap().is_fatal());
    }
}
