//! The only writer to standard output and standard error. Data goes to standard output, everything else to standard
//! error.
//!
//! Guests and feeders wrote much of what is printed. Their control characters are shown, not obeyed ([`crate::text`]).

pub(super) mod progress;
pub(super) mod table;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::hint;
use crate::text::visible;
pub use crate::text::{one_line, time};

/// How often something was printed.
static PRINTED: AtomicU64 = AtomicU64::new(0);

/// Prints data and messages.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
}

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(io::Error);

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl OutputError {
    /// Returns `true` if the reader closed the pipe, as `head` does. That is not a failure.
    pub fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

#[expect(clippy::unused_self, reason = "only who has an `Output` may print")]
impl Output {
    /// Creates an output, which prints data as JSON if `json` is `true`.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Returns `true` if commands must print data as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns how often this process has printed something.
    pub fn lines(&self) -> u64 {
        PRINTED.load(Relaxed)
    }

    /// Prints a line of data.
    pub fn data(&self, line: &str) -> Result<(), OutputError> {
        self.bytes(format!("{}\n", visible(line)).as_bytes())
    }

    /// Prints bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), OutputError> {
        PRINTED.fetch_add(1, Relaxed);
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Prints a value as indented JSON.
    pub fn document(&self, value: &impl Serialize) -> Result<(), OutputError> {
        self.data(&serde_json::to_string_pretty(value).map_err(io::Error::from)?)
    }

    /// Prints a value as JSON on one line.
    pub fn line(&self, value: &impl Serialize) -> Result<(), OutputError> {
        self.data(&serde_json::to_string(value).map_err(io::Error::from)?)
    }

    /// Prints rows in aligned columns, no wider than the terminal. A column is aligned to the right if its heading starts with
    /// `>`.
    pub fn table(&self, headings: &[&str], rows: &[Vec<String>]) -> Result<(), OutputError> {
        table::lines(headings, rows, self.width()).iter().try_for_each(|line| self.data(line))
    }

    /// Returns the terminal's width in characters; `None` if standard output is not a terminal.
    pub fn width(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// Waits until the reader of standard output has gone. It need not write anything to notice.
    pub async fn closed(&self) {
        let (sender, closed) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            if await_closed() {
                // The command may have ended.
                let _ = sender.send(());
            }
        });
        if closed.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Prints a message to standard error.
    pub fn note(&self, message: &str) {
        PRINTED.fetch_add(1, Relaxed);
        // A closed standard error is no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{}", visible(message));
    }

    /// Prints a diagnostic to standard error. Its parts are made visible already; it may have colors.
    pub fn told(&self, diagnostic: &str) {
        // A closed standard error is no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{diagnostic}");
    }

    /// Prints an error to standard error.
    pub fn error(&self, error: &anyhow::Error) {
        // The text of a library's error includes the text of its source.
        let add = |text: String, cause: String| if text.contains(&cause) { text } else { format!("{text}: {cause}") };
        let text = error.chain().map(ToString::to_string).reduce(add).unwrap_or_default();
        self.note(&format!("error: {text}{}", hint::of(error).unwrap_or_default()));
    }
}

/// Waits until the other end of standard output is closed. Returns `false` if that cannot be watched.
fn await_closed() -> bool {
    let stdout = io::stdout();
    loop {
        // `poll` reports errors even if no event is asked for.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(_) => return watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Formats a duration in seconds, as in `1.50 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Formats a number with its noun, as in `1 item` and `2 items`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
