//! What is in use, by digests, so that chains with the same plugin share its code and the slots that its instances leave.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use crate::lock::lock;
use crate::name::Digest;

/// Values in use, by the digests of what they were made from.
pub(super) struct Loaded<T>(Mutex<HashMap<Digest, Arc<Place<T>>>>);

/// The place of a value. It is locked while the value is made.
type Place<T> = Mutex<Weak<T>>;

impl<T> Default for Loaded<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Loaded<T> {
    /// Returns a value, and makes it if it is not in use. Threads that want the same value wait until one of them has made it.
    pub(super) fn get_or_make<E>(&self, digest: &Digest, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let place = self.place(digest);
        let mut place = lock(&place);
        if let Some(found) = place.upgrade() {
            return Ok(found);
        }
        let value = Arc::new(make()?);
        *place = Arc::downgrade(&value);
        Ok(value)
    }

    fn place(&self, digest: &Digest) -> Arc<Place<T>> {
        let mut places = lock(&self.0);
        // A place that another thread holds may be locked for long.
        places.retain(|_, place| Arc::strong_count(place) > 1 || lock(place).strong_count() > 0);
        Arc::clone(places.entry(digest.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Barrier;

    use super::*;

    fn digest(of: &str) -> Digest {
        Digest::of(of.as_bytes())
    }

    #[test]
    fn a_value_is_made_once_as_long_as_anyone_has_it() {
        let loaded = Loaded::default();
        let get = |value: u8| loaded.get_or_make(&digest("one"), || Ok::<_, Infallible>(value)).expect("no error");
        let (one, same) = (get(1), get(2));
        assert_eq!((*one, *same), (1, 1));
        drop(one);
        assert_eq!(*get(3), 1);
        drop(same);
        assert_eq!(*get(4), 4, "nobody has the earlier one");
    }

    #[test]
    fn what_is_no_longer_in_use_leaves_nothing() {
        let loaded = Loaded::default();
        for number in 0..10 {
            loaded.get_or_make(&digest(&number.to_string()), || Ok::<_, Infallible>(number)).expect("no error");
        }
        assert_eq!(lock(&loaded.0).len(), 1);
    }

    #[test]
    fn a_value_that_cannot_be_made_is_tried_again() {
        let loaded = Loaded::default();
        assert!(loaded.get_or_make(&digest("one"), || Err::<u8, _>("no")).is_err());
        assert_eq!(loaded.get_or_make(&digest("one"), || Ok::<_, &str>(2)).as_deref(), Ok(&2));
    }

    #[test]
    fn threads_that_want_the_same_wait_for_the_first() {
        let (loaded, both) = (Loaded::default(), Barrier::new(2));
        let made = Mutex::new(0);
        std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                scope.spawn(|| {
                    both.wait();
                    loaded.get_or_make(&digest("one"), || {
                        *made.lock().expect("no panic") += 1;
                        Ok::<_, Infallible>(())
                    })
                })
            });
            let values = threads.map(|thread| thread.join().expect("no panic"));
            assert!(values.iter().all(Result::is_ok));
        });
        assert_eq!(made.into_inner().expect("no panic"), 1);
    }
}
