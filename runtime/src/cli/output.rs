//! The only writer to standard output and standard error: data goes to the first, everything else to the second.
//!
//! Much of what is printed was written by guests and feeders. Their control characters are shown, not obeyed ([`crate::text`]).

pub(super) mod progress;
mod table;

use std::io::{self, Write};
use std::time::Duration;

use indicatif::ProgressBar;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;

use crate::text::visible;
pub use crate::text::{one_line, time};

/// Where commands print.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
}

/// Standard output takes nothing more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(io::Error);

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl OutputError {
    /// Whether this only says that whoever read standard output has stopped reading, as `head` does.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

#[expect(clippy::unused_self, reason = "only who has an `Output` may print")]
impl Output {
    /// Prints data as JSON if `json`.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether data shall be JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line of data.
    ///
    /// # Errors
    ///
    /// If standard output is closed or full.
    pub fn data(&self, line: &str) -> Result<(), OutputError> {
        self.bytes(format!("{}\n", visible(line)).as_bytes())
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    ///
    /// If standard output is closed or full.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Prints a value as JSON: on many lines, for one document.
    ///
    /// # Errors
    ///
    /// If standard output is closed or full.
    pub fn document(&self, value: &impl Serialize) -> Result<(), OutputError> {
        self.data(&serde_json::to_string_pretty(value).map_err(io::Error::from)?)
    }

    /// Prints a value as JSON on one line.
    ///
    /// # Errors
    ///
    /// If standard output is closed or full.
    pub fn line(&self, value: &impl Serialize) -> Result<(), OutputError> {
        self.data(&serde_json::to_string(value).map_err(io::Error::from)?)
    }

    /// Prints rows in aligned columns, no wider than the terminal. A column is aligned to the right if its heading starts with
    /// `>`.
    ///
    /// # Errors
    ///
    /// If standard output is closed or full.
    pub fn table(&self, headings: &[&str], rows: &[Vec<String>]) -> Result<(), OutputError> {
        table::lines(headings, rows, self.width()).iter().try_for_each(|line| self.data(line))
    }

    /// The width of the terminal that standard output is, in characters; `None` if it is none.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// Waits until whoever reads standard output has gone. That shows also when there is nothing to write.
    pub async fn closed(&self) {
        let (sender, closed) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            if await_closed() {
                // Nobody may be interested any more.
                let _ = sender.send(());
            }
        });
        if closed.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says something to the person at the terminal.
    pub fn note(&self, message: &str) {
        // Nobody to tell is no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{}", visible(message));
    }

    /// Says what went wrong.
    pub fn error(&self, error: &anyhow::Error) {
        self.note(&format!("error: {error:#}"));
    }

    /// A line that shows a count of `unit` as it changes if standard error is a terminal, and nothing otherwise.
    #[must_use]
    pub fn progress(&self, what: &'static str, unit: &'static str) -> ProgressBar {
        progress::counting(what, unit)
    }
}

/// Whether standard output was closed at its other end; waits for that. `false` if it is nothing that can be closed.
fn await_closed() -> bool {
    let stdout = io::stdout();
    loop {
        // Errors are told without being asked for.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(_) => return watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A duration in seconds, as summaries have it.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// A number with its noun, as in `1 item` and `2 items`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
