//! The window of a hop: how much it has on its way to the server at once.
//!
//! The server queues what comes faster than it stores. A node that sends everything at once, and again when no answer comes in
//! time, keeps that queue longer than an answer may take: then every answer comes too late, though everything is stored. So a hop
//! sends no more than the server stores in a moment, and repeats only a little at a time.
//!
//! In front of a full queue, the longest waiting goes first. If each frame tried again on its own, new frames would take the
//! room, and one could wait for minutes while thousands pass it.

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::frame::outgoing::Outgoing;

/// Messages on their way at once. The server queues a hundred thousand for a stream.
const MESSAGES: u32 = 1_024;
/// This many bytes count as another message, so that no more than 16 MiB are on their way. The server queues 128 MiB for a
/// stream.
const BYTES: usize = 16 << 10;
/// Atomic batches on their way at once. The server takes 50 for a stream, from all nodes together.
const BATCHES: usize = 8;
/// Repeated requests at once: as few as a very slow server answers in time.
const AGAIN: usize = 16;
/// Messages that try at once to get into a full queue, the longest waiting first.
const FULL: u32 = 16;
/// In front of a full queue, messages of more bytes wait until the server says that it has room. To send them again and again
/// costs more than to ask: measured, 32 waiting generators sent 14 GB in four minutes to store 165 MiB.
const LARGE: usize = 16 << 10;
/// How often the server is asked.
const ASK: Duration = Duration::from_millis(10);

/// The window of a hop.
#[derive(Debug)]
pub(crate) struct Window {
    messages: Semaphore,
    batches: Semaphore,
    again: Semaphore,
    full: Semaphore,
    room: Mutex<Room>,
}

/// The room that the next queue had when the server was asked, less what was let through since.
#[derive(Debug, Default)]
struct Room {
    messages: u64,
    asked: Option<Instant>,
}

/// The size of what is sent together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(super) messages: usize,
    bytes: usize,
}

/// A place in the line in front of a full queue. Released on drop.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

/// Permit to send something until its answer comes. Released on drop.
#[derive(Debug)]
pub(crate) struct Leave<'a> {
    _parts: [Option<SemaphorePermit<'a>>; 3],
}

impl Load {
    /// A request, or a message as small.
    pub(crate) const SMALL: Self = Self { messages: 1, bytes: 0 };

    /// Returns the load of these messages together.
    pub(crate) fn of(messages: &[Outgoing]) -> Self {
        Self { messages: messages.len(), bytes: messages.iter().map(|message| message.payload.len()).sum() }
    }

    /// Returns how many messages the load counts as. Never more than the window holds, or it would never go.
    fn weight(self) -> u32 {
        u32::try_from(self.messages.saturating_add(self.bytes / BYTES)).unwrap_or(u32::MAX).min(MESSAGES)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self {
            messages: Semaphore::new(MESSAGES as usize),
            batches: Semaphore::new(BATCHES),
            again: Semaphore::new(AGAIN),
            full: Semaphore::new(FULL as usize),
            room: Mutex::default(),
        }
    }
}

impl Window {
    /// Waits in the line in front of a full queue. A batch that needs much room has no others beside it.
    pub(crate) async fn line_up(&self, load: Load) -> Place<'_> {
        let places = u32::try_from(load.messages).unwrap_or(FULL).clamp(1, FULL);
        Place { _permit: self.full.acquire_many(places).await.ok() }
    }

    /// Returns `true` if so many wait for a full queue that another must wait behind them.
    pub(crate) fn is_lined_up(&self) -> bool {
        self.full.available_permits() == 0
    }

    /// Returns `true` if a load that found the queue full is worth another try. `ask` returns the room of the queue, if it is known.
    pub(crate) async fn has_room(&self, load: Load, now: Instant, ask: impl Future<Output = Option<u64>>) -> bool {
        if load.bytes <= LARGE {
            return true;
        }
        let mut room = self.room.lock().await;
        let messages = load.messages as u64;
        // What was known a while ago is worth nothing: other frames and nodes fill the queue too.
        if room.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK) {
            room.messages = ask.await.unwrap_or(messages);
            room.asked = Some(now);
        }
        let left = room.messages.checked_sub(messages);
        room.messages = left.unwrap_or(room.messages);
        left.is_some()
    }

    /// Waits until this load may be sent. `is_again`: it was sent before, and no answer came in time.
    pub(crate) async fn enter(&self, load: Load, is_again: bool) -> Leave<'_> {
        // Always acquired in this order, so that none waits for another in a circle.
        let again = if is_again { self.again.acquire().await.ok() } else { None };
        let batch = if load.messages > 1 { self.batches.acquire().await.ok() } else { None };
        let messages = self.messages.acquire_many(load.weight()).await.ok();
        Leave { _parts: [again, batch, messages] }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use futures_util::FutureExt;

    use super::*;

    fn entered(window: &Window, load: Load, is_again: bool) -> Option<Leave<'_>> {
        window.enter(load, is_again).now_or_never()
    }

    fn all<'a, F: Future<Output = Leave<'a>>>(mut enter: impl FnMut() -> F) -> Vec<Leave<'a>> {
        std::iter::from_fn(|| enter().now_or_never()).take(10_000).collect()
    }

    #[test]
    fn what_is_on_its_way_is_bounded_in_messages_bytes_batches_and_tries() {
        let load = |messages, bytes| Load { messages, bytes };
        for (what, load, is_again, expected) in [
            ("small messages", Load::SMALL, false, 1_024),
            ("messages of 48 KiB", load(1, 48 << 10), false, 256),
            ("what is larger than all goes by itself", load(1, 64 << 20), false, 1),
            ("a batch of as many messages as there may be", load(1_000, 0), false, 1),
            ("small batches", load(2, 0), false, 8),
            ("what was not answered", Load::SMALL, true, 16),
        ] {
            let window = Window::default();
            let inside = all(|| window.enter(load, is_again));
            assert_eq!(inside.len(), expected, "{what}");
            drop(inside);
            assert!(entered(&window, load, is_again).is_some(), "{what}: one that ends makes room");
        }
    }

    #[test]
    fn what_found_the_queue_full_first_tries_first() {
        let window = Window::default();
        let small = || window.line_up(Load::SMALL).now_or_never();
        let mut first: Vec<_> = std::iter::from_fn(small).take(10_000).collect();
        assert_eq!((first.len(), window.is_lined_up()), (16, true));
        let mut batch = std::pin::pin!(window.line_up(Load { messages: 300, bytes: 0 }));
        let mut behind = std::pin::pin!(window.line_up(Load::SMALL));
        assert!((&mut batch).now_or_never().is_none());
        first.pop();
        assert!((&mut behind).now_or_never().is_none(), "the batch is before it");
        first.clear();
        let batch = batch.now_or_never().expect("all others have gone");
        assert!((&mut behind).now_or_never().is_none() && window.is_lined_up());
        drop(batch);
        assert!(behind.now_or_never().is_some() && !window.is_lined_up());
    }

    #[test]
    fn large_messages_are_sent_again_only_into_room_that_the_server_tells() {
        let window = Window::default();
        let large = Load { messages: 2, bytes: 1 << 20 };
        let begun = Instant::now();
        let try_with = |asks, load, room: Option<u64>| {
            let asked = std::cell::Cell::new(false);
            let ask = async {
                asked.set(true);
                room
            };
            let has_room =
                window.has_room(load, begun + ASK * asks, ask).now_or_never().expect("nothing is waited for");
            (has_room, asked.get())
        };
        assert_eq!(
            try_with(0, Load { messages: 1, bytes: LARGE }, Some(0)),
            (true, false),
            "to try costs as little as to ask"
        );
        assert_eq!(try_with(0, large, Some(5)), (true, true));
        assert_eq!(try_with(1, large, Some(1)), (false, true), "what was known before counts no longer");
        assert_eq!(try_with(2, large, Some(0)), (false, true));
        assert_eq!(try_with(3, large, None), (true, true), "if the server cannot say, it is tried");
        assert_eq!(try_with(3, large, Some(9)), (false, false), "the server is asked once in a while");
    }

    #[test]
    fn what_is_sent_again_and_again_is_in_the_way_of_nothing_else() {
        let window = Window::default();
        let _again = all(|| window.enter(Load::SMALL, true));
        assert!(entered(&window, Load::SMALL, false).is_some());
        let _batches = all(|| window.enter(Load { messages: 2, bytes: 0 }, false));
        assert!(entered(&window, Load::SMALL, false).is_some());
    }
}
