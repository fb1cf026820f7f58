//! Progress lines.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// How often a line is drawn.
const REDRAW: Duration = Duration::from_millis(100);
/// The period over which the pace is measured.
const WINDOW: Duration = Duration::from_secs(20);
/// How often a sample of the pace is kept.
const SAMPLE: Duration = Duration::from_millis(250);
/// How long the pace is measured before the time left is shown.
const SETTLED: Duration = Duration::from_secs(1);

/// Returns a line that counts `unit`, as in `items`, and shows the rate. It is hidden if standard error is not a
/// terminal.
pub fn counting(what: &'static str, unit: &'static str) -> ProgressBar {
    // The library's own rate has four decimals.
    let rate = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        // A field that cannot be written is left out.
        let _ = write!(out, "{}", per_second(state.per_sec(), unit));
    };
    let bar = line("{spinner} {prefix} {human_pos}, {rate} {msg}", |style| style.with_key("rate", rate));
    bar.set_prefix(what);
    bar
}

/// Returns a line that shows its message. It is hidden if standard error is not a terminal.
pub fn telling() -> ProgressBar {
    line("{spinner} {msg}", |style| style)
}

fn line(template: &str, with: impl FnOnce(ProgressStyle) -> ProgressStyle) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template(template);
    bar.set_style(with(style.unwrap_or_else(|_| ProgressStyle::default_spinner())));
    bar.enable_steady_tick(REDRAW);
    bar
}

/// Formats a rate with its unit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative and far below the limit"
)]
pub fn per_second(rate: f64, unit: &str) -> String {
    if rate >= 10.0 { format!("{} {unit}/s", HumanCount(rate as u64)) } else { format!("{rate:.1} {unit}/s") }
}

/// Estimates how long a shrinking amount of work still takes.
#[derive(Debug, Default)]
pub struct Outlook {
    /// The largest amount that was ever left.
    most: u64,
    /// The amounts that were left, each with its time.
    samples: VecDeque<(Duration, u64)>,
}

impl Outlook {
    /// Creates an outlook on this amount of work.
    pub fn of(most: u64) -> Self {
        Self { most, samples: VecDeque::new() }
    }

    /// Returns the share that is done, in percent, and the time left at the recent pace. `elapsed` is the time since
    /// the start.
    pub fn with(&mut self, elapsed: Duration, left: u64) -> String {
        if left > self.most {
            // More work has come, so the old samples tell nothing about the end.
            (self.most, self.samples) = (left, VecDeque::new());
        }
        if self.samples.back().is_none_or(|(time, _)| elapsed.saturating_sub(*time) >= SAMPLE) {
            self.samples.push_back((elapsed, left));
        }
        while self.samples.len() > 2 && elapsed.saturating_sub(self.samples[1].0) > WINDOW {
            self.samples.pop_front();
        }
        let percent = match self.most {
            0 => 100,
            most => u128::from(most - left) * 100 / u128::from(most),
        };
        let rest = self.rest(elapsed, left).map_or_else(String::new, |rest| format!(", {} left", in_words(rest)));
        format!("{percent} %{rest}")
    }

    fn rest(&self, elapsed: Duration, left: u64) -> Option<Duration> {
        let (since, before) = *self.samples.front()?;
        let took = elapsed.checked_sub(since).filter(|took| *took >= SETTLED)?;
        let done = before.checked_sub(left).filter(|done| *done > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "shown to the second")]
        let seconds = took.as_secs_f64() * (left as f64 / done as f64);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Formats the time left in its two largest units.
fn in_words(time: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0)))
        .to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlook_tells_the_share_and_the_time_left() {
        let mut outlook = Outlook::default();
        let second = Duration::from_secs;
        for (elapsed, left, told) in [
            (0, 1000, "0 %"),
            (2, 900, "10 %, 18s left"),
            (5, 500, "50 %, 5s left"),
            // Three hours at the recent pace: earlier samples are outside the window.
            (30, 499, "50 %, 3h 27m left"),
            // More work has come.
            (31, 2000, "0 %"),
            (33, 0, "100 %, 0s left"),
        ] {
            assert_eq!(outlook.with(second(elapsed), left), told, "after {elapsed} s, {left} left");
        }
        assert_eq!(Outlook::default().with(second(1), 0), "100 %");
    }

    #[test]
    fn a_rate_has_its_unit() {
        assert_eq!(per_second(43_999.6, "items"), "43,999 items/s");
        assert_eq!(per_second(0.25, "items"), "0.2 items/s");
    }
}
