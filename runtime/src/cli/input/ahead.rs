//! Limits how far the reader may be ahead of the feeder.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::lock::lock;

/// Items that may be read ahead.
pub const ITEMS: usize = 256;
/// Bytes of items that may be read ahead. A single item may be larger.
const BYTES: usize = 8 << 20;

/// Counts the bytes of items that were read and not fed yet.
#[derive(Default)]
pub struct Ahead {
    state: Mutex<State>,
    less: Condvar,
}

#[derive(Default)]
struct State {
    bytes: usize,
    is_closed: bool,
}

impl Ahead {
    /// Waits until there is room for an item of this many bytes, and takes the room.
    pub fn take(&self, bytes: usize) {
        let is_full = |state: &mut State| !state.is_closed && state.bytes > 0 && state.bytes + bytes > BYTES;
        let mut state = self.less.wait_while(lock(&self.state), is_full).unwrap_or_else(PoisonError::into_inner);
        state.bytes += bytes;
    }

    /// Gives back the room of an item of this many bytes.
    pub fn give_back(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.bytes = state.bytes.saturating_sub(bytes);
        // How much room is enough depends on the item that waits.
        self.less.notify_one();
    }

    /// Ends all waiting, as no more items are fed.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
        self.less.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_item_that_finds_no_room_waits_until_the_one_before_is_wanted() {
        const MIB: usize = 1 << 20;
        for (before, next) in [(BYTES * 2, 1), (3 * MIB, 6 * MIB)] {
            let ahead = Arc::new(Ahead::default());
            ahead.take(before);
            let (sender, taken) = mpsc::channel();
            let waiting = Arc::clone(&ahead);
            std::thread::spawn(move || {
                waiting.take(next);
                sender.send(()).expect("somebody waits");
            });
            assert!(taken.recv_timeout(Duration::from_millis(20)).is_err(), "{next} after {before}");
            ahead.give_back(before);
            taken.recv_timeout(Duration::from_mins(1)).expect("there is room");
        }
    }
}
