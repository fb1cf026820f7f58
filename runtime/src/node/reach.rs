//! What the stages of a node may reach outside of it, and the doors through which they do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use pcluster_abi::Level;

use crate::broker::Broker;
use crate::broker::stores::GrantedStores;
use crate::calls::door::{Door, Item, Notes};
use crate::calls::grant::{Ceiling, SecretsFrom};
use crate::calls::http::client::HttpClient;
use crate::calls::http::node::{HttpNode, HttpSetupError};
use crate::calls::http::resolve::SystemResolver;
use crate::calls::key::Caller;
use crate::calls::memory::Memory;
use crate::calls::secrets::{self, Secrets};
use crate::calls::stores::Stores;
use crate::chain::record::Deployed;
use crate::chain::{Chain, Stage};
use crate::engine::inspect::TaskDescription;
use crate::lock::lock;
use crate::name::{Digest, StageName};
use crate::node::frame::inbound::InboundFrame;
use crate::node::logs::StageLog;
use crate::node::shares::{Share, SharePermit, Shares};
use crate::run::call::Calls;

/// What the stages of a node may reach outside of it.
pub(crate) struct Reach {
    ceiling: Arc<Ceiling>,
    stores: Arc<dyn Stores>,
    http: Arc<HttpNode>,
    /// The secrets of the node, one entry for each place where it has some.
    secrets: Mutex<Vec<(Option<SecretsFrom>, Arc<Secrets>)>>,
    /// Bounds the executions that may wait for the world, so that others find an instance.
    waiting: Arc<Shares>,
}

impl Reach {
    /// Creates what the stages of a node share. `instances` is how many the node may have.
    ///
    /// # Errors
    ///
    /// If the operator's settings cannot be used.
    pub(crate) fn new(ceiling: Arc<Ceiling>, broker: &Broker, instances: u32) -> Result<Self, HttpSetupError> {
        Self::with_stores(ceiling, |memory| GrantedStores::of(broker, memory), instances)
    }

    /// Creates what the stages of a process share. `stores` makes the calls that reach NATS, within this memory.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub(crate) fn with_stores<S: Stores + 'static>(
        ceiling: Arc<Ceiling>,
        stores: impl FnOnce(Memory) -> Arc<S>,
        instances: u32,
    ) -> Result<Self, HttpSetupError> {
        let http = HttpNode::new(ceiling.http_proxy.clone(), ceiling.http_ca.as_deref(), Arc::new(SystemResolver))?;
        Ok(Self {
            ceiling,
            stores: stores(http.memory().share()),
            http,
            secrets: Mutex::default(),
            waiting: Arc::new(Shares::new(instances as usize + 1)),
        })
    }

    /// Returns the names of the node's secrets, as environment variables. `None` if its operator names no place for them.
    pub(crate) fn secrets(&self) -> Option<Vec<String>> {
        self.ceiling.secrets.as_ref().map(secrets::variables)
    }

    /// Returns why this node does not serve a stage. `None` if it does.
    pub(crate) async fn refusal(&self, deployed: &Deployed, stage: &Stage) -> Option<String> {
        if stage.grants.is_empty() {
            return None;
        }
        let content = match content(deployed) {
            Ok(content) => content,
            Err(problem) => return Some(problem),
        };
        if let Some(refusal) = self.ceiling.refusal(&stage.grants, &content) {
            return Some(refusal);
        }
        let secrets = self.secrets_of(&content);
        for name in stage.grants.secrets.keys() {
            if let Err(problem) = secrets.get(name).await {
                return Some(problem.to_string());
            }
        }
        None
    }

    /// Returns the door of a stage. `None` if the stage was granted nothing.
    pub(crate) fn door(
        &self,
        deployed: &Deployed,
        stage: &Stage,
        task: &TaskDescription,
    ) -> Result<Option<Arc<Door>>, String> {
        if stage.grants.is_empty() {
            return Ok(None);
        }
        let content = content(deployed)?;
        let secrets = self.secrets_of(&content);
        let networks = self.ceiling.networks_of(&stage.grants, &content);
        Ok(Some(Arc::new(Door {
            grants: Arc::clone(&stage.grants),
            lists: task.calls.iter().cloned().collect::<BTreeSet<_>>(),
            http: HttpClient::new(Arc::clone(&self.http), networks, Arc::clone(&secrets)),
            stores: Arc::clone(&self.stores),
            secrets,
        })))
    }

    /// Returns the share of a hop in the executions that may wait for the world.
    pub(crate) fn waiting(&self) -> Share {
        self.waiting.share()
    }

    /// Returns the secrets of a revision with this content. Revisions share what was read.
    fn secrets_of(&self, content: &Digest) -> Arc<Secrets> {
        let from = self.ceiling.secrets_of(content);
        let mut all = lock(&self.secrets);
        if let Some((_, secrets)) = all.iter().find(|(each, _)| *each == from) {
            return Arc::clone(secrets);
        }
        let secrets = Secrets::new(from.clone());
        all.push((from, Arc::clone(&secrets)));
        secrets
    }
}

/// Returns the digest of the content of a revision. Not the one that is written there: whoever writes it could write any.
fn content(deployed: &Deployed) -> Result<Digest, String> {
    Deployed::digest_of(&deployed.manifest).map_err(|error| error.to_string())
}

/// The doors of the stages of a hop.
#[derive(Default)]
pub(crate) struct Doors {
    /// For each stage its door. `None` if it was granted nothing.
    pub(crate) doors: Vec<Option<Arc<Door>>>,
    /// The permits of executions. `None` if no stage was granted anything.
    pub(crate) waiting: Option<Share>,
}

/// An item of a frame, as its door sees it.
struct FrameItem {
    inbound: Arc<InboundFrame>,
    logs: Arc<StageLog>,
    id: String,
}

impl Item for FrameItem {
    fn sent(&self, key: &str) -> Option<String> {
        // What was sent is known of frames of one item: an item that failed is requeued by itself.
        (self.inbound.len() == 1).then(|| self.inbound.sent.get(key).map(str::to_owned)).flatten()
    }

    fn log(&self, level: Level, line: String) {
        self.logs.log(&self.id, level, line);
    }
}

impl Doors {
    /// Waits until an execution of the hop may begin. `None` if it need not wait.
    pub(crate) async fn permit(&self) -> Option<SharePermit> {
        Some(self.waiting.as_ref()?.permit().await)
    }

    /// Opens the door of a stage for an item with this id, which descends from the frame. `None` if the stage was granted nothing.
    /// `notes` takes the calls.
    pub(crate) fn open(
        &self,
        (place, stage): (usize, &StageName),
        chain: &Chain,
        inbound: &Arc<InboundFrame>,
        logs: &Arc<StageLog>,
        (id, notes): (String, Notes),
    ) -> Option<Arc<dyn Calls>> {
        let door = self.doors.get(place)?.as_ref()?;
        let caller = Caller {
            chain: chain.name.to_string(),
            stage: stage.to_string(),
            fed: inbound.fed().map_or_else(|| format!("at.{}", inbound.origin), str::to_owned),
            item: id.clone(),
        };
        let item = FrameItem { inbound: Arc::clone(inbound), logs: Arc::clone(logs), id };
        Some(door.open(caller, Box::new(item), notes))
    }
}
