use pcluster_sdk::{Context, task};
use serde::{Deserialize, Serialize};

/// What the `config` of the stage can set.
#[derive(Debug, Default, Deserialize)]
struct Config {
    /// The least letters of a word.
    least: Option<usize>,
}

/// An item.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Word {
    word: String,
}

/// Keeps long words, and drops the others.
#[task]
fn task_name(item: Word, cx: &Context<Config>) -> Option<Word> {
    let least = cx.config().least.unwrap_or(1);
    (item.word.chars().count() >= least).then_some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(word: &str) -> Word {
        let word = word.to_owned();
        Word { word }
    }

    #[test]
    fn long_words_are_kept() {
        let context = Context::for_test(Config { least: Some(5) });
        let kept = task_name(word("größe"), &context);
        assert_eq!(kept, Some(word("größe")));
        assert_eq!(task_name(word("maß"), &context), None);
    }
}
