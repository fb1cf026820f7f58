//! Holding messages that were handed out, so that no other puller gets them while this one lives, and confirming them.
//!
//! The server gives a message to another puller if nothing is heard of it for a time, the consumer's `ack_wait`. A hold is
//! renewed several times within that, whatever the one who got the results does meanwhile. One that may have run out, because
//! this process was paused or cut off, is lost for good: another puller may have the message.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::broker::confirm::Confirmer;
use crate::broker::queue::Acker;
use crate::held::HeldSince;

/// Confirmed messages that are remembered: more than the server hands out before it knows that they are confirmed.
const REMEMBERED: usize = 32_768;

/// A message's place: its stream's place among the sources, its place in the stream, and when it was stored. Places are used
/// again in a stream that was made anew.
pub(super) type Place = (u8, u64, u64);

/// How long the server waits for an acknowledgement, and what follows from that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms(Duration);

impl Terms {
    pub(super) fn new(ack_wait: Duration) -> Self {
        Self(ack_wait)
    }

    /// How often holds are renewed, and how long a request for messages stands.
    pub(super) fn renew_every(self) -> Duration {
        self.0 / 6
    }

    /// After this long without a sign of the server, a hold is taken for lost. Before the server gives the message to others,
    /// what was begun can still be done.
    pub(super) fn sure_for(self) -> Duration {
        self.0 * 2 / 3
    }
}

/// A message that was handed out to this puller.
#[derive(Debug)]
pub(in crate::client) struct Hold {
    place: Place,
    acker: Mutex<Acker>,
    since: Arc<HeldSince>,
    sure_for: Duration,
    is_lost: AtomicBool,
    /// The puller has given it out.
    is_given: AtomicBool,
    /// The server was told what becomes of it.
    is_over: AtomicBool,
}

impl Hold {
    /// Returns `true` if no other puller can have got the message meanwhile.
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

/// All holds of a puller, and the messages that it has confirmed last. A server that dies may forget that they were, and hands
/// them out again.
#[derive(Debug)]
pub(in crate::client) struct Holds {
    confirmer: Confirmer,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    held: HashMap<Place, Weak<Hold>>,
    /// Those that the puller has not given out yet.
    ahead: HashMap<Place, Arc<Hold>>,
    confirmed: HashSet<Place>,
    order: VecDeque<Place>,
}

/// What is known of a message that comes.
pub(super) enum Known {
    /// Nothing: it is held from now on.
    New(Arc<Hold>),
    /// It is held already. The server has handed it out to this puller again.
    Held,
    /// It was confirmed.
    Confirmed,
}

impl Holds {
    pub(super) fn new(confirmer: Confirmer) -> Self {
        Self { confirmer, book: Mutex::default() }
    }

    /// Takes note of a message that was asked for at this moment.
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

    /// How many messages of a source were given out, and are held until something is said of them.
    pub(super) fn given(&self, source: u8) -> u64 {
        let book = lock(&self.book);
        let held = book.held.values().filter_map(Weak::upgrade);
        held.filter(|hold| hold.place.0 == source && hold.is_given.load(Relaxed) && hold.is_live()).count() as u64
    }

    /// Takes note that the puller gives out the results of a message.
    pub(super) fn give(&self, hold: &Hold) {
        hold.is_given.store(true, Relaxed);
        lock(&self.book).ahead.remove(&hold.place);
    }

    /// Returns `true` if the puller has messages that it has not given out.
    pub(super) fn is_ahead(&self) -> bool {
        !lock(&self.book).ahead.is_empty()
    }

    /// Gives back what the puller has not given out, and will not.
    pub(super) async fn give_back_ahead(&self) {
        let ahead = std::mem::take(&mut lock(&self.book).ahead);
        for hold in ahead.values() {
            self.give_back(hold).await;
        }
    }

    /// Confirms a message: no other puller gets it.
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

    /// Confirms again what was confirmed before.
    pub(super) async fn confirm_again(&self, acker: Acker) {
        self.confirmer.ack(acker).await;
    }

    /// Gives a message to the next who asks, unless another may have it already: then that one would lose it.
    pub(in crate::client) async fn give_back(&self, hold: &Hold) {
        if !hold.is_over.swap(true, Relaxed) && hold.is_sure() {
            hold.acker().nak(Duration::ZERO).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
