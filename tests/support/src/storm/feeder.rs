//! Feeds the items of the storm. Each message has an id, so that it can be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::jetstream;

use super::servers::{self, Cluster};
use super::{Chance, PATIENCE, Plan, large};
use crate::sequence;

/// The most items in a message.
const MESSAGE_MAX: u64 = 24;

/// Feeds items during the storm.
pub(super) struct Feeder {
    thread: JoinHandle<(u64, u64)>,
    done: Arc<AtomicBool>,
}

impl Feeder {
    pub(super) fn start(cluster: &Cluster, plan: &Plan) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (urls, plan, finished) = (servers::urls(cluster), plan.clone(), Arc::clone(&done));
        let command = plan.large.then(|| large::feeder(cluster));
        let thread = std::thread::spawn(move || {
            let fed = if let Some(command) = command {
                large::feed(command, &plan)
            } else {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(feed(&urls, &plan))
            };
            finished.store(true, Relaxed);
            fed
        });
        Self { thread, done }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Relaxed) || self.thread.is_finished()
    }

    pub(super) fn finish(self) -> (u64, u64) {
        self.thread.join().unwrap()
    }
}

/// Feeds messages of some items each. The n-th has the id `m<first item>`. Returns the number of items and of messages.
async fn feed(urls: &[String], plan: &Plan) -> (u64, u64) {
    let jetstream = jetstream::new(servers::connect(urls).await);
    let mut chance = Chance(plan.seed ^ 1);
    let started = Instant::now();
    let (mut items, mut messages) = (0, 0);
    while items < plan.items && started.elapsed() < plan.duration {
        let more = (1 + chance.next(MESSAGE_MAX)).min(plan.items - items);
        let payload = sequence(items..items + more);
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("m{items}"));
        let trying = Instant::now();
        loop {
            let publish = jetstream.publish_with_headers("pcluster.storm.in", headers.clone(), payload.clone().into());
            let stored = async { publish.await?.await };
            // The queue is full, or the answer is lost: the id allows another try.
            if stored.await.is_ok() {
                break;
            }
            assert!(trying.elapsed() < PATIENCE, "the feeder is stuck at item {items}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        items += more;
        messages += 1;
    }
    (items, messages)
}
