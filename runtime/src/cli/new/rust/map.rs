use pcluster_sdk::{Context, Error, log, task};
use serde::{Deserialize, Serialize};

/// What the `config` of the stage can set.
#[derive(Debug, Default, Deserialize)]
struct Config {
    /// The most letters of a word.
    most: Option<usize>,
}

/// An item.
#[derive(Debug, Deserialize)]
struct Word {
    word: String,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Serialize)]
struct Measured {
    word: String,
    letters: usize,
}

/// Counts the letters of a word.
#[task]
fn task_name(item: Word, cx: &Context<Config>) -> Result<Measured, Error> {
    let letters = item.word.chars().count();
    if cx.config().most.is_some_and(|most| letters > most) {
        // No later attempt can succeed: the item becomes a dead letter at once.
        return Err(Error::fatal(format!("`{}` is too long", item.word)));
    }
    log::info!("measuring {}", item.word);
    let word = item.word;
    Ok(Measured { word, letters })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(word: &str) -> Word {
        let word = word.to_owned();
        Word { word }
    }

    #[test]
    fn letters_are_counted() {
        let measured = task_name(word("größe"), &Context::default()).unwrap();
        assert_eq!(measured.letters, 5);
    }

    #[test]
    fn a_word_that_is_too_long_fails_for_good() {
        let context = Context::for_test(Config { most: Some(4) });
        let error = task_name(word("größe"), &context).unwrap_err();
        assert!(error.is_fatal());
    }
}
