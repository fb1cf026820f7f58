//! The log of the program: lines on standard error.

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
/// If the filter is not valid.
pub fn start(filter: &str, with_time: bool) -> Result<(), String> {
    let wrong = |part: &str| {
        format!("the log filter `{part}` is not known; write a level like \"info\" or pairs like \"pcluster=debug\"")
    };
    // A word alone could also be a target, and then a mistyped level would silence all lines.
    if let Some(word) = filter.split(',').find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err()) {
        return Err(wrong(word));
    }
    let targets: Targets = filter.parse().map_err(|_| wrong(filter))?;
    // The client library logs the errors that `broker` logs too. Its lines are shown only if the filter names it.
    let asked = filter.contains(CLIENT_LIBRARY);
    let targets = if asked { targets } else { targets.with_target(CLIENT_LIBRARY, LevelFilter::OFF) };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| Line)
        .with_timer(LocalTime)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(targets);
    // Fails only if logging has started before, for example if the library is used twice in one process.
    let _ = if with_time { registry.with(layer).try_init() } else { registry.with(layer.without_time()).try_init() };
    Ok(())
}

/// Writes each event to standard error as one line. So text of guests and feeders cannot pass for another line.
struct Line;

impl Write for Line {
    /// Receives a whole line at once.
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

/// Formats times as commands show them, with their zone.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&text::now())
    }
}
