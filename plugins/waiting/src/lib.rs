//! Two tasks that only wait, to watch a chain at work.
//!
//! ```sh
//! cargo build --release --target wasm32-wasip1 --package waiting
//! pcluster deploy plugins/waiting/chain.toml
//! pcluster feed example "hello world!"
//! pcluster logs example
//! ```

use std::thread;
use std::time::Duration;

use pcluster_sdk::{Context, Error, log, task};
use serde::Deserialize;

/// The `config` of a stage.
#[derive(Debug, Default, Deserialize)]
struct Config {
    /// The time to wait.
    seconds: Option<f64>,
}

/// Waits 2 seconds, or as long as the stage's `seconds` says, and returns the text twice.
#[task(generator)]
fn wait(text: String, cx: &Context<Config>) -> Result<[String; 2], Error> {
    sleep(cx.config().seconds.unwrap_or(2.0), &text)?;
    Ok([text.clone(), text])
}

/// Waits 4 seconds, or as long as the stage's `seconds` says, and returns the text once.
#[task]
fn wait_more(text: String, cx: &Context<Config>) -> Result<String, Error> {
    sleep(cx.config().seconds.unwrap_or(4.0), &text)?;
    Ok(text)
}

/// Waits. An invalid time is a mistake in the manifest, so no other attempt can succeed.
fn sleep(seconds: f64, text: &str) -> Result<(), Error> {
    let duration = Duration::try_from_secs_f64(seconds).map_err(Error::fatal)?;
    log::info!("waiting {seconds} s with {text:?}");
    thread::sleep(duration);
    log::info!("waited {seconds} s with {text:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn context(seconds: f64) -> Context<Config> {
        Context::for_test(Config { seconds: Some(seconds) })
    }

    #[test]
    fn waiting_gives_the_text_twice() {
        assert_eq!(wait("hello".to_owned(), &context(0.0)).expect("two texts"), ["hello", "hello"]);
    }

    #[test]
    fn waiting_more_takes_its_time() {
        let begin = Instant::now();
        assert_eq!(wait_more("hello".to_owned(), &context(0.02)).expect("a text"), "hello");
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn nobody_waits_a_negative_time() {
        assert!(wait("hello".to_owned(), &context(-1.0)).expect_err("an error").is_fatal());
    }
}
