//! Holds and confirms the messages of a puller.
//!
//! The server gives a message to another puller if it hears nothing of it for the consumer's `ack_wait`. The puller renews each
//! hold several times within that time, even while the caller is busy. If this process was paused or cut off, a hold may have
//! expired. It is then lost for good, because another puller may have the message.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::broker::confirm::Confirmer;
use crate::broker::queue::Acker;
use crate::held::HeldSince;
use crate::lock::lock;

/// Confirmed messages to remember. The server hands out fewer before it knows that they are confirmed.
const REMEMBERED: usize = 32_768;

/// The place of a message: the index of its source, its sequence in the stream, and when it was stored.
///
/// A stream that is created anew uses the same sequences again.
pub(super) type Place = (u8, u64, u64);

/// The server's `ack_wait`, and the times that follow from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms(Duration);

impl Terms {
    pub(super) fn new(ack_wait: Duration) -> Self {
        Self(ack_wait)
    }

    /// Returns how often to renew holds. A request for messages lasts as long.
    pub(super) fn renew_every(self) -> Duration {
        self.0 / 6
    }

    /// Returns how long a hold is safe after the last renewal.
    ///
    /// This is shorter than the server's wait, so that an operation that has begun can finish before another puller gets the
    /// message.
    pub(super) fn sure_for(self) -> Duration {
        self.0 * 2 / 3
    }
}

/// A message that this puller holds.
#[derive(Debug)]
pub(in crate::client) struct Hold {
    place: Place,
    acker: Mutex<Acker>,
    since: Arc<HeldSince>,
    sure_for: Duration,
    is_lost: AtomicBool,
    /// `true` once the puller has returned the results of the message.
    is_given: AtomicBool,
    /// `true` once the server was told the outcome of the message.
    is_over: AtomicBool,
}

impl Hold {
    /// Returns `true` if no other puller can have the message.
    pub(in crate::client) fn is_sure(&self) -> bool {
        if self.since.age() >= self.sure_for {
            self.is_lost.store(true, Relaxed);
        }
        !self.is_lost.load(Relaxed)
    }

    fn acker(&self) -> Acker {
        lock(&self.acker).clone()
    }

    fn is_live(&self) -> bool {
        !self.is_over.load(Relaxed) && self.is_sure()
    }
}

/// All holds of a puller, and the messages that it confirmed last.
///
/// A server that dies may forget confirmations and hand out these messages again.
#[derive(Debug)]
pub(in crate::client) struct Holds {
    confirmer: Confirmer,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    held: HashMap<Place, Weak<Hold>>,
    /// Holds on messages that the puller has not returned yet.
    ahead: HashMap<Place, Arc<Hold>>,
    confirmed: HashSet<Place>,
    order: VecDeque<Place>,
}

/// The state of a message that arrives.
pub(super) enum Known {
    /// The message is new. It is held from now on.
    New(Arc<Hold>),
    /// This puller already holds the message. The server has handed it out to this puller again.
    Held,
    /// This puller has confirmed the message.
    Confirmed,
}

impl Holds {
    pub(super) fn new(confirmer: Confirmer) -> Self {
        Self { confirmer, book: Mutex::default() }
    }

    /// Records a message. `asked` is when it was requested.
    pub(super) fn take(&self, place: Place, acker: Acker, asked: Instant, terms: Terms) -> Known {
        let mut book = lock(&self.book);
        if book.confirmed.contains(&place) {
            return Known::Confirmed;
        }
        if let Some(held) = book.held.get(&place).and_then(Weak::upgrade).filter(|held| held.is_live()) {
            *lock(&held.acker) = acker;
            held.since.renew(asked);
            return Known::Held;
        }
        let hold = Arc::new(Hold {
            place,
            acker: Mutex::new(acker),
            since: Arc::new(HeldSince::new(asked)),
            sure_for: terms.sure_for(),
            is_lost: AtomicBool::new(false),
            is_given: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        book.held.insert(place, Arc::downgrade(&hold));
        book.ahead.insert(place, Arc::clone(&hold));
        Known::New(hold)
    }

    /// Renews all holds. Returns `false` if there are none.
    pub(super) async fn renew(&self) -> bool {
        let held: Vec<Arc<Hold>> = {
            let mut book = lock(&self.book);
            book.held.retain(|_, hold| hold.upgrade().is_some_and(|hold| !hold.is_over.load(Relaxed)));
            book.held.values().filter_map(Weak::upgrade).collect()
        };
        self.confirmer.forget_old();
        for hold in held.iter().filter(|hold| hold.is_live()) {
            self.confirmer.renew(&hold.acker(), &hold.since).await;
        }
        !held.is_empty()
    }

    /// Returns how many returned messages of a source have no outcome yet.
    pub(super) fn given(&self, source: u8) -> u64 {
        let book = lock(&self.book);
        let held = book.held.values().filter_map(Weak::upgrade);
        held.filter(|hold| hold.place.0 == source && hold.is_given.load(Relaxed) && hold.is_live()).count() as u64
    }

    /// Records that the puller returns the results of a message.
    pub(super) fn give(&self, hold: &Hold) {
        hold.is_given.store(true, Relaxed);
        lock(&self.book).ahead.remove(&hold.place);
    }

    /// Returns `true` if the puller holds messages that it has not returned.
    pub(super) fn is_ahead(&self) -> bool {
        !lock(&self.book).ahead.is_empty()
    }

    /// Gives back the messages that the puller has not returned.
    pub(super) async fn give_back_ahead(&self) {
        let ahead = std::mem::take(&mut lock(&self.book).ahead);
        for hold in ahead.values() {
            self.give_back(hold).await;
        }
    }

    /// Confirms a message, so that no other puller gets it.
    pub(in crate::client) async fn confirm(&self, hold: &Hold) {
        hold.is_over.store(true, Relaxed);
        {
            let mut book = lock(&self.book);
            if book.confirmed.insert(hold.place) {
                book.order.push_back(hold.place);
            }
            if book.order.len() > REMEMBERED
                && let Some(oldest) = book.order.pop_front()
            {
                book.confirmed.remove(&oldest);
            }
        }
        self.confirmer.ack(hold.acker()).await;
    }

    /// Confirms a message again that was confirmed before.
    pub(super) async fn confirm_again(&self, acker: Acker) {
        self.confirmer.ack(acker).await;
    }

    /// Gives a message back to the server. Does nothing if another puller may have it, because that one would lose it.
    pub(in crate::client) async fn give_back(&self, hold: &Hold) {
        if !hold.is_over.swap(true, Relaxed) && hold.is_sure() {
            hold.acker().nak(Duration::ZERO).await;
        }
    }
}
