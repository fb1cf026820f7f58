//! The defaults of a manifest. Each value is defined only here.

use std::time::Duration;

/// The number of servers that keep a copy of the chain's streams.
pub const REPLICAS: u32 = 1;
/// The most frames in the queue of each stage.
pub const QUEUE_LIMIT: u64 = 100_000;
/// How soon other nodes receive the items of a dead node.
pub const ACK_WAIT: Duration = Duration::from_secs(10);
/// How long the server remembers message ids, unless `ack_wait` needs more. This is also the default of NATS.
pub const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// The most time until nodes are connected again to a restarted server.
pub const RECOVERY: Duration = Duration::from_secs(10);
/// How long results and dead letters are kept.
pub const RESULTS_MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// The most items that run at once on one node.
pub const CONCURRENCY: u32 = 32;
/// The most time that one item may take.
pub const TIMEOUT: Duration = Duration::from_mins(5);
/// The most memory of one instance, in bytes.
pub const MEMORY: u64 = 64 << 20;
/// The exit statuses of a program after which an item fails for good: `EX_DATAERR` of `sysexits.h`.
pub const EXITS_PERMANENT: [u8; 1] = [65];
/// The most attempts of an item.
pub const ATTEMPTS: u32 = 5;
/// Waits before the second, third and every later attempt.
pub const BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];
