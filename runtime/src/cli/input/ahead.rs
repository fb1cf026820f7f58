//! How much is read before it is wanted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that may be read ahead.
pub const ITEMS: usize = 256;
/// Bytes of items that may be read ahead; one larger item may be.
const BYTES: usize = 8 << 20;

/// Bytes of items that were read and not yet wanted.
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
    /// Waits until there is room for an item of this many bytes, and takes it.
    pub fn take(&self, bytes: usize) {
        let is_full = |state: &mut State| !state.is_closed && state.bytes > 0 && state.bytes + bytes > BYTES;
        let mut state = self.less.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        state.bytes += bytes;
    }

    /// The item of this many bytes is wanted.
    pub fn give_back(&self, bytes: usize) {
        let mut state = self.lock();
        let was_much = state.bytes > BYTES / 2;
        state.bytes = state.bytes.saturating_sub(bytes);
        if was_much {
            self.less.notify_one();
        }
    }

    /// Nothing is wanted any more, so nobody needs to wait.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.less.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_large_item_goes_and_the_next_waits_until_it_is_wanted() {
        let ahead = Arc::new(Ahead::default());
        ahead.take(BYTES * 2);
        let (sender, taken) = mpsc::channel();
        let waiting = Arc::clone(&ahead);
        std::thread::spawn(move || {
            waiting.take(1);
            sender.send(()).expect("somebody waits");
        });
        assert!(taken.recv_timeout(Duration::from_millis(20)).is_err());
        ahead.give_back(BYTES * 2);
        taken.recv_timeout(Duration::from_mins(1)).expect("there is room");
    }
}
