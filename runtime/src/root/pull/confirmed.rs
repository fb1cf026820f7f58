//! Confirming messages, so that no other puller gets them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::broker::confirm::Confirmer;
use crate::broker::queue::{Acker, Delivery};

/// Confirmed messages that are remembered: more than the server hands out before it knows that they are confirmed.
const REMEMBERED: usize = 32_768;

/// A message's place in the stream, and when it was stored: places are used again in a stream that was made anew.
type Place = (u64, u64);

/// The messages that were confirmed last. A server that dies may forget that they were, and hands them out again.
#[derive(Debug)]
pub(in crate::root) struct Confirmed {
    confirmer: Confirmer,
    places: Mutex<(HashSet<Place>, VecDeque<Place>)>,
}

/// A message that was handed out.
#[derive(Debug)]
pub(in crate::root) struct Handed {
    place: Place,
    acker: Acker,
    confirmed: Arc<Confirmed>,
}

impl Confirmed {
    pub(in crate::root) fn new(confirmer: Confirmer) -> Self {
        Self { confirmer, places: Mutex::default() }
    }

    fn add(&self, place: Place) {
        let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let (places, order) = &mut *all;
        if places.insert(place) {
            order.push_back(place);
        }
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            places.remove(&oldest);
        }
    }

    fn contains(&self, place: Place) -> bool {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&place)
    }
}

impl Handed {
    pub(in crate::root) fn new(confirmed: &Arc<Confirmed>, delivery: &Delivery) -> Self {
        let place = (delivery.sequence, delivery.stored_millis);
        Self { place, acker: delivery.acker.clone(), confirmed: Arc::clone(confirmed) }
    }

    /// Whether it was confirmed before.
    pub(in crate::root) fn is_confirmed(&self) -> bool {
        self.confirmed.contains(self.place)
    }

    /// Says that nobody else shall get it.
    pub(in crate::root) async fn confirm(&self) {
        self.confirmed.add(self.place);
        self.confirmed.confirmer.ack(self.acker.clone()).await;
    }

    /// Gives it to the next who asks.
    pub(in crate::root) async fn give_back(&self) {
        self.acker.nak(Duration::ZERO).await;
    }

    /// Says that it is still wanted.
    pub(in crate::root) async fn keep(&self) {
        self.acker.progress().await;
    }
}
