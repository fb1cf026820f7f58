//! What holds where a manifest says nothing. Each value stands here and nowhere else.

use std::time::Duration;

/// Servers that keep a copy of a chain's items and results.
pub const REPLICAS: u32 = 1;
/// Frames that may wait in front of each stage.
pub const QUEUE_LIMIT: u64 = 100_000;
/// How soon a dead node's items are given to others.
pub const ACK_WAIT: Duration = Duration::from_secs(10);
/// How long the server remembers ids, if `ack_wait` does not ask for more; NATS's own default.
pub const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// How long it may take until nodes have found a server again that was restarted.
pub const RECOVERY: Duration = Duration::from_secs(10);
/// How long results and dead letters stay.
pub const RESULTS_MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// Items that run at once on one node.
pub const CONCURRENCY: u32 = 32;
/// How long one item may take.
pub const TIMEOUT: Duration = Duration::from_mins(5);
/// Memory of one instance, in bytes.
pub const MEMORY: u64 = 64 << 20;
/// Attempts that an item gets.
pub const ATTEMPTS: u32 = 5;
/// Waits before the second, third and every later attempt.
pub const BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];
