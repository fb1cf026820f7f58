//! What pcluster says of itself: log lines on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::broker::CLIENT_LIBRARY;
use crate::text;

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
        .with_writer(|| Line)
        .with_timer(LocalTime)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(targets);
    // Only fails if logging was started before, as when the library is used twice in one process.
    let _ = if with_time { registry.with(layer).try_init() } else { registry.with(layer.without_time()).try_init() };
    Ok(())
}

/// Writes what happened to standard error, each time as one line: what guests and feeders wrote cannot pass for another.
struct Line;

impl Write for Line {
    /// Gets the whole line at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text::visible_log_line(text.trim_end_matches('\n'));
        io::stderr().lock().write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Times as commands show them, with their zone.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&text::now())
    }
}
