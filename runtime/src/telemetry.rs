//! What pcluster says of itself: log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::broker::CLIENT_LIBRARY;

/// Starts logging. `filter` is a level, or `target=level` pairs separated by commas.
///
/// # Errors
///
/// If the filter cannot be understood.
pub fn start(filter: &str, with_time: bool) -> Result<(), String> {
    let wrong = |part: &str| {
        format!("the log filter `{part}` is not known; write a level like \"info\" or pairs like \"pcluster=debug\"")
    };
    // A word by itself could be a target too, and then a mistyped level would silence everything.
    if let Some(word) = filter.split(',').find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err()) {
        return Err(wrong(word));
    }
    let targets: Targets = filter.parse().map_err(|_| wrong(filter))?;
    // The client library repeats what `broker` says in its own words; only who asks for it by name gets it.
    let asked = filter.contains(CLIENT_LIBRARY);
    let targets = if asked { targets } else { targets.with_target(CLIENT_LIBRARY, LevelFilter::OFF) };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(targets);
    // Only fails if logging was started before, as when the library is used twice in one process.
    let _ = if with_time { registry.with(layer).try_init() } else { registry.with(layer.without_time()).try_init() };
    Ok(())
}
