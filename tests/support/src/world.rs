//! What the tasks of a test may reach.

use async_nats::jetstream::{self, kv, object_store};
use serde_json::{Value, json};

use crate::{Api, Asked, Cluster, NatsClient, Process, Reply, probe_chain};

/// The value of the secret of each world.
pub const SECRET: &str = "hidden-0123456789-hidden";

/// What the tasks of a test may reach: an HTTP server, the bucket `cache`, the object store `models`, the stream `ALERTS` and the
/// secret `api_token`.
pub struct World {
    /// The HTTP server.
    pub api: Api,
    /// The folder of the secrets.
    secrets: String,
}

impl World {
    /// Creates all of it. The HTTP server answers so.
    pub fn start(cluster: &Cluster, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        NatsClient::connect(cluster).with(async |jetstream| {
            let bucket = kv::Config { bucket: "cache".to_owned(), history: 3, ..Default::default() };
            jetstream.create_key_value(bucket).await.unwrap();
            let store = object_store::Config { bucket: "models".to_owned(), ..Default::default() };
            jetstream.create_object_store(store).await.unwrap();
            let subjects = vec!["alerts.>".to_owned()];
            let stream = jetstream::stream::Config { name: "ALERTS".to_owned(), subjects, ..Default::default() };
            jetstream.create_stream(stream).await.unwrap();
        });
        std::fs::create_dir(cluster.path("secrets")).unwrap();
        let secrets = cluster.path("secrets").display().to_string();
        cluster.file("secrets/api_token", format!("{SECRET}\n"));
        Self { api: Api::start(answer), secrets }
    }

    /// Returns the manifest of a chain of one stage that is granted all of it.
    pub fn chain(&self, name: &str, task: &str, stage: &str) -> String {
        probe_chain(name, &[task], &format!("{stage}\n{}", self.grants()))
    }

    /// Returns the grants of the stage of such a chain.
    pub fn grants(&self) -> String {
        let url = self.api.url();
        format!(
            "[stage.allow]\nhttp = [\"{url}\"]\nkv = {{ cache = \"read-write\" }}\nobjects = {{ models = \"read-write\" }}\n\
             publish = [\"alerts.>\"]\nsecrets = {{ api_token = \"{url}\" }}\n"
        )
    }

    /// Returns the arguments of a node that allows all of it.
    pub fn allowed(&self) -> Vec<String> {
        let url = self.api.url();
        let host = "127.0.0.1=127.0.0.0/8";
        let flags = [
            ("--allow-http", url.as_str()),
            ("--allow-networks", host),
            ("--allow-kv", "cache"),
            ("--allow-objects", "models"),
            ("--allow-publish", "alerts.>"),
            ("--allow-secrets", &self.secrets),
        ];
        flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
    }

    /// Starts a node that allows all of it. Waits until it is ready.
    pub fn node(&self, cluster: &Cluster, name: &str) -> Process {
        let node = self.node_of(cluster, name);
        node.said("ready: serving");
        node
    }

    /// Starts a node that allows all of it, and may have nothing to serve.
    pub fn node_of(&self, cluster: &Cluster, name: &str) -> Process {
        let allowed = self.allowed();
        let arguments = ["node", "--name", name].into_iter().chain(allowed.iter().map(String::as_str));
        cluster.spawn(&arguments.collect::<Vec<_>>())
    }

    /// Returns the call of a POST with this body to a path of the server.
    pub fn post(&self, path: &str, body: &str) -> Value {
        let url = format!("{}{path}", self.api.url());
        json!({ "call": "http", "request": { "method": "POST", "url": url, "body": body } })
    }

    /// Returns the call of a GET of a path of the server.
    pub fn get(&self, path: &str) -> Value {
        json!({ "call": "http", "request": { "url": format!("{}{path}", self.api.url()) } })
    }

    /// Returns the header of this name of each request so far. `None` for a request without it.
    pub fn headers(&self, name: &str) -> Vec<Option<String>> {
        self.api.requests().iter().map(|asked| asked.header(name).map(str::to_owned)).collect()
    }
}
