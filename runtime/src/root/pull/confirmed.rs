//! Confirming results, so that no other puller gets them.

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
pub(super) struct Confirmed {
    confirmer: Confirmer,
    places: Mutex<(HashSet<Place>, VecDeque<Place>)>,
}

/// A message that was taken.
#[derive(Debug, Clone)]
pub(super) struct Message {
    place: Place,
    acker: Acker,
    confirmed: Arc<Confirmed>,
}

impl Confirmed {
    pub(super) fn new(confirmer: Confirmer) -> Self {
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

impl Message {
    pub(super) fn new(confirmed: &Arc<Confirmed>, delivery: &Delivery) -> Self {
        let place = (delivery.sequence, delivery.stored_millis);
        Self { place, acker: delivery.acker.clone(), confirmed: Arc::clone(confirmed) }
    }

    /// Whether it was confirmed before.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed.contains(self.place)
    }

    pub(super) async fn confirm(self) {
        self.confirmed.add(self.place);
        self.confirmed.confirmer.ack(self.acker).await;
    }

    pub(super) async fn give_back(self) {
        self.acker.nak(Duration::ZERO).await;
    }
}
