//! Measures what the items of a stage take, for the record of steps.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::chain::Records;
use crate::lock::lock;
use crate::node::frame::reason::cut;
use crate::node::frame::steps::{Measure, More};

/// The most lines of the log that are kept of an item.
const LINES_MAX: usize = 5;
/// The most bytes of such a line.
const LINE_MAX: usize = 200;

/// Measures the items of a frame, or of an inline stage.
#[derive(Debug)]
pub(crate) struct Gauge {
    items: Mutex<Vec<Gauged>>,
    /// `true` if sizes, calls and lines are recorded too.
    is_full: bool,
    /// `true` if a program runs for each item, whose exit status is 0 when it ended well.
    exits: bool,
}

/// What is known of an item.
#[derive(Debug, Clone, Default)]
struct Gauged {
    began: Option<Instant>,
    /// The bytes of its outputs that are in files.
    filed: u64,
    /// `None` until it has ended.
    ended: Option<(Instant, u64)>,
    /// How long its calls took, in microseconds. `None` before the first.
    spent: Option<Arc<AtomicU64>>,
    lines: VecDeque<String>,
}

impl Gauge {
    /// Creates the gauge of so many items. `None` if the chain keeps no records.
    pub(crate) fn new(records: Records, items: usize, exits: bool) -> Option<Self> {
        let gauge =
            || Self { items: Mutex::new(vec![Gauged::default(); items]), is_full: records == Records::All, exits };
        records.are_on().then(gauge)
    }

    fn at(&self, number: usize, act: impl FnOnce(&mut Gauged)) {
        if let Some(item) = lock(&self.items).get_mut(number) {
            act(item);
        }
    }

    /// Takes note that an item begins.
    pub(crate) fn began(&self, number: usize, now: Instant) {
        self.at(number, |item| item.began = Some(now));
    }

    /// Takes note that an item has given `bytes` in a file.
    pub(crate) fn filed(&self, number: usize, bytes: u64) {
        self.at(number, |item| item.filed += bytes);
    }

    /// Takes note that an item has ended well, with outputs of so many `bytes` in memory.
    pub(crate) fn ended(&self, number: usize, bytes: u64, began: Instant, now: Instant) {
        self.at(number, |item| (item.began, item.ended) = (Some(began), Some((now, bytes + item.filed))));
    }

    /// Returns what counts the time of an item's calls. `None` if that is not recorded.
    pub(crate) fn spent(&self, number: usize) -> Option<Arc<AtomicU64>> {
        let mut spent = None;
        if self.is_full {
            self.at(number, |item| spent = Some(Arc::clone(item.spent.get_or_insert_default())));
        }
        spent
    }

    /// Takes note of a line that an item has logged.
    pub(crate) fn line(&self, number: usize, line: &str) {
        if !self.is_full {
            return;
        }
        self.at(number, |item| {
            if item.lines.len() == LINES_MAX {
                item.lines.pop_front();
            }
            item.lines.push_back(cut(line, LINE_MAX));
        });
    }

    /// Removes and returns the lines of an item.
    pub(crate) fn take_lines(&self, number: usize) -> Vec<String> {
        let mut lines = VecDeque::new();
        self.at(number, |item| lines = std::mem::take(&mut item.lines));
        lines.into()
    }

    /// Returns what an item of `received` bytes has taken. If it has not ended, that is until now, and `exit` is the status of its
    /// program.
    pub(crate) fn measure(&self, number: usize, received: u64, exit: Option<i32>) -> Measure {
        let now = Instant::now();
        let item = lock(&self.items).get(number).cloned().unwrap_or_default();
        let more = || More {
            received,
            sent: item.ended.map(|(_, bytes)| bytes),
            calls: Duration::from_micros(item.spent.as_ref().map_or(0, |spent| spent.load(Relaxed))),
            exit: exit.or_else(|| (self.exits && item.ended.is_some()).then_some(0)),
        };
        Measure {
            started: item.began.unwrap_or(now),
            ended: item.ended.map_or(now, |(ended, _)| ended),
            more: self.is_full.then(more),
        }
    }
}
