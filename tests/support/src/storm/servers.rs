//! The server of a storm, or its three servers.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::PeerInfo;
use futures_util::TryStreamExt;

use super::{Chance, HANDLED, Plan};
use crate::{Nats, NatsClient, Server, Servers};

/// How many changes the copies of a stream may lack when another server is killed.
pub(super) const LAG: u64 = 1_000;
/// How long a server is away that others replace.
const AWAY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// A cluster on one server or three.
pub(super) type Cluster = crate::Cluster<Ground>;

/// The server of a storm, or its three servers.
pub(crate) enum Ground {
    One(Server),
    Three(Servers),
}

impl Nats for Ground {
    fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(servers) => servers.url(),
        }
    }

    fn processes(&self) -> Vec<u32> {
        match self {
            Self::One(server) => server.processes(),
            Self::Three(servers) => servers.processes(),
        }
    }
}

/// Starts the servers of a storm.
pub(super) fn start(plan: &Plan) -> Cluster {
    match plan.servers {
        1 => crate::Cluster::start().map(Ground::One),
        3 => crate::Cluster::on(Servers::unadvertised()).map(Ground::Three),
        other => panic!("a storm has one server or three, not {other}"),
    }
}

/// Returns the address of each server.
pub(super) fn urls(cluster: &Cluster) -> Vec<String> {
    cluster.server.url().split(',').map(str::to_owned).collect()
}

/// Connects to the servers.
pub(super) async fn connect(urls: &[String]) -> async_nats::Client {
    let servers: Vec<async_nats::ServerAddr> = urls.iter().map(|url| url.parse().unwrap()).collect();
    async_nats::connect(servers).await.unwrap()
}

/// Waits until each stream has a leader, and no copy lacks more than this many changes. Calls `meanwhile` again and again.
pub(super) fn await_copies(cluster: &Cluster, most: u64, mut meanwhile: impl FnMut()) {
    if let Ground::One(_) = cluster.server {
        return;
    }
    let client = NatsClient::connect(cluster);
    let deadline = Instant::now() + HANDLED;
    while !is_whole(&client, most) {
        assert!(Instant::now() < deadline, "the servers have not come to the same state");
        meanwhile();
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_whole(client: &NatsClient, most: u64) -> bool {
    client.read(&async |jetstream| {
        let streams: Vec<_> = jetstream.streams().try_collect().await?;
        let is_near =
            |copy: &PeerInfo| !copy.offline && copy.lag.unwrap_or_default() <= most && (copy.current || most > 0);
        Ok(streams
            .iter()
            .filter_map(|stream| stream.cluster.as_ref())
            .all(|cluster| cluster.leader.is_some() && cluster.replicas.iter().all(is_near)))
    })
}

/// Kills one of three servers, and starts it again. Returns its number.
pub(super) fn kill_one(cluster: &mut Cluster, chance: &mut Chance) -> Option<u64> {
    let Ground::Three(servers) = &mut cluster.server else { return None };
    let (number, away) = (1 + chance.next(3), chance.between(AWAY[0], AWAY[1]));
    servers.named(&format!("server-{number}")).restart_after(|| std::thread::sleep(away));
    Some(number)
}
