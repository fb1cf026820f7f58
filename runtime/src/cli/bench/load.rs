//! The load of a run: its items, and when each is fed.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ciborium::Value;
use tokio::sync::mpsc;

use super::tally::Tally;
use crate::client::{ClientError, Feeder, Packing};
use crate::frame::format::to_cbor;

/// The most items that are due and not yet fed.
const DUE: usize = 1_024;
/// How long the pacing thread sleeps between two checks for its end.
const NAP: Duration = Duration::from_millis(100);
/// The text of generated items. It has words, for chains that search for some.
const WORDS: &str = "as many items as the chain can take go through every stage of it and ";

/// The load of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The items, each one CBOR data item. They are fed in turn, and again from the first after the last.
    pub items: Vec<Bytes>,
    /// The number of items to feed.
    pub number: u64,
    /// Items per second, evenly spaced. `None` feeds as fast as the chain takes them.
    pub rate: Option<f64>,
    /// How items are packed into messages.
    pub packing: Packing,
}

impl Load {
    /// Returns a text of this many bytes as CBOR.
    pub fn text(bytes: usize) -> Bytes {
        to_cbor(&Value::from(WORDS.chars().cycle().take(bytes).collect::<String>()))
    }

    pub(super) fn check(&self, max: usize) -> Result<(), ClientError> {
        match self.items.iter().map(Bytes::len).find(|size| *size > max) {
            Some(size) => Err(ClientError::TooLarge { size, max }),
            None => Ok(()),
        }
    }

    /// Feeds all items. `max` is the size limit of a message in bytes.
    pub(super) async fn feed(&self, feeder: &mut Feeder, tally: &Tally, max: usize) -> Result<(), ClientError> {
        let Packing { items: most, bytes, wait } = self.packing;
        let mut due = Pace::start(self.rate, self.number);
        let mut pack = Pack::default();
        for (number, item) in (0..self.number).zip(self.items.iter().cycle()) {
            let at = loop {
                let closes = pack.opened.unwrap_or_else(Instant::now) + wait;
                tokio::select! {
                    biased;
                    at = due.next() => break at,
                    () = tokio::time::sleep_until(closes.into()), if pack.items > 0 => pack.send(feeder, tally).await?,
                }
            };
            // Use the time when the item was due, not the current time. So the packing depends on the load alone.
            let is_over = pack.opened.is_some_and(|opened| opened + wait <= at);
            if pack.items > 0 && (is_over || pack.payload.len() + item.len() > bytes.min(max)) {
                pack.send(feeder, tally).await?;
            }
            tally.hand_in(at);
            pack.add(number, at, item);
            if pack.items >= most as u64 || pack.payload.len() >= bytes {
                pack.send(feeder, tally).await?;
            }
        }
        pack.send(feeder, tally).await?;
        feeder.finish().await?;
        tally.all_fed();
        Ok(())
    }
}

/// Items that will share a message.
#[derive(Default)]
struct Pack {
    payload: BytesMut,
    items: u64,
    /// The number of the first item.
    first: u64,
    /// When the first item was fed.
    opened: Option<Instant>,
}

impl Pack {
    fn add(&mut self, number: u64, at: Instant, item: &Bytes) {
        if self.items == 0 {
            (self.first, self.opened) = (number, Some(at));
        }
        self.payload.extend_from_slice(item);
        self.items += 1;
    }

    async fn send(&mut self, feeder: &mut Feeder, tally: &Tally) -> Result<(), ClientError> {
        if self.items == 0 {
            return Ok(());
        }
        let (payload, items) = (self.payload.split().freeze(), std::mem::take(&mut self.items));
        tally.send(payload.len());
        feeder.feed_packed(tally.id(self.first), payload, items).await
    }
}

/// The times when items are due.
struct Pace(Option<mpsc::Receiver<Instant>>);

impl Pace {
    fn start(rate: Option<f64>, number: u64) -> Self {
        Self(rate.map(|rate| {
            let (sender, receiver) = mpsc::channel(DUE);
            // The timers of the runtime are too coarse: they fire up to a millisecond late.
            tokio::task::spawn_blocking(move || pace(rate, number, &sender));
            receiver
        }))
    }

    /// Returns when the next item was due, as soon as it is. Can be dropped and called again without losing an item.
    async fn next(&mut self) -> Instant {
        match &mut self.0 {
            None => Instant::now(),
            Some(due) => match due.recv().await {
                Some(due) => due,
                None => std::future::pending().await,
            },
        }
    }
}

fn pace(rate: f64, number: u64, sender: &mpsc::Sender<Instant>) {
    let start = Instant::now();
    for number in 0..number {
        // A time that cannot be represented never comes.
        let Some(due) = due(start, number, rate) else { return };
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if sender.is_closed() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
        if sender.blocking_send(due).is_err() {
            return;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact for as many items as can be fed in a lifetime")]
fn due(start: Instant, number: u64, rate: f64) -> Option<Instant> {
    start.checked_add(Duration::try_from_secs_f64(number as f64 / rate).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_item_is_a_text_of_as_many_bytes_as_asked_for() {
        for bytes in [0, 1, 23, 256, 100_000] {
            let value: Value = ciborium::from_reader(&Load::text(bytes)[..]).expect("CBOR");
            assert_eq!(value.as_text().map(str::len), Some(bytes));
        }
    }

    #[test]
    fn items_are_due_at_even_distances() {
        let start = Instant::now();
        let after = |number, rate| due(start, number, rate).map(|due| due - start);
        assert_eq!(after(0, 4.0), Some(Duration::ZERO));
        assert_eq!(after(6, 4.0), Some(Duration::from_millis(1_500)));
        assert_eq!(after(1_000_000, 100_000.0), Some(Duration::from_secs(10)));
        assert_eq!(after(1, f64::MIN_POSITIVE), None);
    }

    #[test]
    fn an_item_that_does_not_fit_a_message_is_found_before_anything_is_fed() {
        let items = vec![Load::text(1), Load::text(2_000), Load::text(3_000)];
        let load = Load { items, number: 1, rate: None, packing: Packing::default() };
        assert!(load.check(3_003).is_ok());
        assert!(matches!(load.check(1_000), Err(ClientError::TooLarge { size: 2_003, max: 1_000 })));
    }
}
