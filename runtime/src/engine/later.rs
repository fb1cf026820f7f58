//! What is done after what somebody waits for, on a thread of its own.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use crate::lock::lock;

/// A piece of work.
type Work = Box<dyn FnOnce() + Send>;

/// Does one thing after another on a thread. On drop, waits until all is done.
#[derive(Default)]
pub(super) struct Later(Mutex<Option<Worker>>);

struct Worker {
    queue: Sender<Work>,
    thread: JoinHandle<()>,
}

impl Later {
    /// Does this after what was given before. Does it now if no thread can start.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut worker = self.worker();
        let refused = match worker.as_ref() {
            Some(worker) => worker.queue.send(Box::new(work)).err().map(|refused| refused.0),
            None => Some(Box::new(work) as Work),
        };
        if let Some(work) = refused {
            *worker = None;
            drop(worker);
            work();
        }
    }

    /// Waits until all is done that was given before. Blocks the thread.
    pub(super) fn wait(&self) {
        let (done, all) = channel::<()>();
        self.run(move || drop(done));
        // The sender is gone once it is this one's turn.
        let _ = all.recv();
    }

    /// Returns the worker, started if there is none.
    fn worker(&self) -> MutexGuard<'_, Option<Worker>> {
        let mut worker = lock(&self.0);
        if worker.is_none() {
            let (queue, works) = channel::<Work>();
            let thread = thread::Builder::new()
                .name("cache".to_owned())
                .spawn(move || works.into_iter().for_each(|work| work()));
            *worker = thread.ok().map(|thread| Worker { queue, thread });
        }
        worker
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        let worker = lock(&self.0).take();
        if let Some(Worker { queue, thread }) = worker {
            drop(queue);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn work_is_done_in_its_order_and_on_drop_all_of_it_is() {
        let (later, done) = (Later::default(), Arc::new(Mutex::new(Vec::new())));
        let give = |number| {
            let done = Arc::clone(&done);
            later.run(move || lock(&done).push(number));
        };
        (0..10).for_each(give);
        later.wait();
        assert_eq!(*lock(&done), (0..10).collect::<Vec<_>>());
        (10..20).for_each(give);
        drop(later);
        assert_eq!(*lock(&done), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn work_that_panics_does_not_stop_what_comes_after() {
        let (later, done) = (Later::default(), Arc::new(Mutex::new(0)));
        later.run(|| panic!("a bad image"));
        later.wait();
        let counted = Arc::clone(&done);
        later.run(move || *lock(&counted) += 1);
        later.wait();
        assert_eq!(*lock(&done), 1);
    }
}
