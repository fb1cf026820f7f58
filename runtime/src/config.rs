//! Settings: one figment of the defaults, the settings file, the environment and the flags. The later source wins.
//!
//! The caller hands in the environment and the flags. This module does not read those of the process.

mod allow;
mod context;
mod layer;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::value::Dict;
use serde::Deserialize;

use crate::broker::Address;
use crate::calls::grant::Ceiling;
use crate::name::nearest;
use crate::slots::capacity::{Capacity, Labels};
use allow::Allow;
use layer::Layer;

/// The name of the settings file.
pub const FILE: &str = "pcluster.toml";
/// The prefix of the environment variables that are settings.
pub const ENVIRONMENT_PREFIX: &str = "PCLUSTER_";

/// The key and the meaning of every setting, in the order in which `pcluster config` shows them.
pub const SETTINGS: [(&str, &str); 32] = [
    ("nats", "URL of the NATS server, or several URLs separated by commas"),
    ("context", "context of the `nats` program to connect with; `-` is the selected context; empty for none"),
    ("creds", "credentials file for NATS; empty for none"),
    ("nkey", "file with the seed of an nkey; empty for none"),
    ("user", "user to log in as; empty for the user in the URL, if it names one"),
    ("password", "password of the user"),
    ("token", "token to log in with; empty for none"),
    ("tlsca", "certificate of the authority that signed the server's certificate; empty for the system's authorities"),
    ("tlscert", "certificate to show to the server; empty for none"),
    ("tlskey", "private key of that certificate; empty for none"),
    ("domain", "JetStream domain; empty for the server's own"),
    ("inbox_prefix", "first part of the subjects of answers; empty for `_INBOX`"),
    ("cache", "folder for compiled plugins; empty for none"),
    ("node", "name of the node"),
    ("grace", "how long a stopping node lets items finish"),
    ("instances", "WebAssembly instances that may exist at once on a node"),
    ("memory", "memory for items on a node: prefetched items, running items and their outputs"),
    ("allow.exec", "programs that stages may run on a node, as rules separated by commas; empty for none"),
    ("allow.http", "targets of HTTP requests that stages may be granted, as in `https://*`; empty for none"),
    (
        "allow.networks",
        "addresses besides public ones, each for the host it is named with, as in `api.internal=10.0.3.0/24`; empty for none",
    ),
    ("allow.http_proxy", "proxy of all HTTP requests of stages; empty for none"),
    (
        "allow.http_ca",
        "certificates of authorities that HTTP requests of stages trust besides the system's; empty for none",
    ),
    ("allow.kv", "key-value buckets that stages may be granted, as in `cache,rates=read`; empty for none"),
    ("allow.objects", "object stores that stages may be granted, as in `reports,models=read`; empty for none"),
    ("allow.publish", "subjects that stages may be granted to publish on, as in `alerts.>`; empty for none"),
    ("allow.secrets", "folder of the secrets that stages may be granted, or `environment`; empty for none"),
    ("slots", "slots that items may use at once on a node, as in `gpu=2,cores=0-7`; empty for those of the machine"),
    ("label", "labels by which stages choose the node, as in `zone=eu`; empty for none"),
    ("nats_server", "nats-server program that `pcluster dev` starts; empty to look for it"),
    ("python", "Python with the package `pcluster`, which builds plugins in Python; empty to look for it"),
    (
        "javascript",
        "folder of the package `pcluster` for JavaScript, which builds plugins in TypeScript and JavaScript; empty to look for it",
    ),
    (
        "log",
        "level of pcluster's own log: error, warn, info, debug or trace, or target=level,…; empty for the usual level",
    ),
];

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The settings file.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The flags that were given, by key.
    pub flags: Dict,
    /// The folder of the `nats` program's configuration.
    pub nats: Option<PathBuf>,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// The default folder for compiled plugins. It need not be UTF-8.
    pub cache: Option<PathBuf>,
    /// The default name of the node.
    pub node: String,
    /// The default memory for items, in bytes.
    pub memory: u64,
}

/// One setting as `pcluster config` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Resolved {
    /// The key.
    pub key: &'static str,
    /// The value as text, with secrets masked.
    pub value: String,
    /// The source of the value.
    pub source: String,
    /// The meaning.
    pub help: &'static str,
}

/// All settings, checked. Each field is the setting of the same name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(deserialize_with = "value::urls")]
    nats: String,
    #[serde(rename = "context")]
    _context: Option<String>,
    creds: Option<PathBuf>,
    nkey: Option<PathBuf>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    tlsca: Option<PathBuf>,
    tlscert: Option<PathBuf>,
    tlskey: Option<PathBuf>,
    #[serde(deserialize_with = "value::domain")]
    domain: Option<String>,
    inbox_prefix: Option<String>,
    /// The folder for compiled plugins.
    pub cache: Option<PathBuf>,
    /// The node's name.
    #[serde(deserialize_with = "value::node")]
    pub node: String,
    /// How long a stopping node lets items finish.
    #[serde(deserialize_with = "value::duration")]
    pub grace: Duration,
    /// WebAssembly instances that may exist at once.
    #[serde(deserialize_with = "value::instances")]
    pub instances: u32,
    /// Memory for items, in bytes.
    #[serde(deserialize_with = "value::memory")]
    pub memory: u64,
    /// The slots of a node.
    #[serde(deserialize_with = "value::slots")]
    pub(crate) slots: Capacity,
    /// The labels of a node.
    #[serde(deserialize_with = "value::labels")]
    pub(crate) label: Labels,
    /// What a node allows.
    pub(crate) allow: Allow,
    /// The nats-server program that `pcluster dev` starts.
    pub nats_server: Option<PathBuf>,
    /// The Python that builds plugins.
    pub python: Option<PathBuf>,
    /// The folder of the package that builds plugins in TypeScript and JavaScript.
    pub javascript: Option<PathBuf>,
    /// The filter of pcluster's own log.
    pub log: Option<String>,
    /// What the settings were read from.
    #[serde(skip)]
    figment: Figment,
}

/// Why the settings cannot be used, with the source that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl From<figment::Error> for ConfigError {
    fn from(error: figment::Error) -> Self {
        let (key, source) = (error.path.join("."), layer::in_words(error.metadata.as_ref(), &error.path));
        let problem = match error.kind {
            Kind::UnknownField(_, known) => {
                let last = error.path.last().unwrap_or(&key);
                let hint = match nearest(last, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the settings are {}", known.join(", ")),
                };
                return Self(format!("{source}: unknown setting `{key}`; {hint}"));
            }
            Kind::InvalidType(..) if key == "allow" => {
                "must be a table; write `exec = [\"python3\"]` below `[allow]`".to_owned()
            }
            Kind::InvalidType(Actual::Seq, _) => "must be a text or a number, not an array".to_owned(),
            Kind::InvalidType(Actual::Map, _) => "must be a text or a number, not a table".to_owned(),
            kind => kind.to_string(),
        };
        Self(format!("the setting `{key}` from {source}: {problem}"))
    }
}

/// Returns the environment variables that are misspelled settings, each with the right name.
///
/// Other variables that start with the prefix are not pcluster's to judge: Kubernetes gives a service called pcluster-nats variables
/// such as `PCLUSTER_NATS_PORT`.
pub fn mistyped(environment: &BTreeMap<String, String>) -> Vec<(String, String)> {
    /// The most letters by which the lengths of the two names may differ.
    const DIFFERENCE: usize = 2;
    let known = SETTINGS.map(|(key, _)| layer::upper(key));
    let near = |name: &String| {
        let key = name.strip_prefix(ENVIRONMENT_PREFIX).filter(|key| !known.iter().any(|known| known == key))?;
        let alike = known.iter().map(String::as_str).filter(|known| known.len().abs_diff(key.len()) <= DIFFERENCE);
        Some((name.clone(), format!("{ENVIRONMENT_PREFIX}{}", nearest(key, alike)?)))
    };
    environment.keys().filter_map(near).collect()
}

impl Settings {
    /// Merges all sources and checks the result.
    pub fn resolve(sources: &Sources) -> Result<Self, ConfigError> {
        let mut layers = vec![Layer::defaults(sources)];
        if let Some(file) = &sources.file {
            layers.push(Layer::file(file)?);
        }
        layers.extend([Layer::environment(&sources.environment), Layer::flags(sources.flags.clone())]);
        layer::add_context(&mut layers, sources)?;
        let figment = layers.iter().fold(Figment::new(), Figment::merge);
        let mut settings = Self { figment: figment.clone(), ..figment.extract()? };
        for (key, other) in [("tlscert", "tlskey"), ("tlskey", "tlscert"), ("password", "user")] {
            if !layer::text(&figment, key).is_empty() && layer::text(&figment, other).is_empty() {
                return Err(layer::refusal(&figment, key, format!("set without `{other}`; they go together")));
            }
        }
        if settings.source("cache") == layer::DEFAULT {
            settings.cache.clone_from(&sources.cache);
        }
        Ok(settings)
    }

    /// Returns where NATS is and how to log in.
    pub fn address(&self) -> Address {
        Address {
            url: self.nats.clone(),
            credentials: self.creds.clone(),
            nkey: self.nkey.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            token: self.token.clone(),
            tls_ca: self.tlsca.clone(),
            tls_cert: self.tlscert.clone().zip(self.tlskey.clone()),
            domain: self.domain.clone(),
            inbox_prefix: self.inbox_prefix.clone(),
        }
    }

    /// Returns what stages may be granted on this machine. Its files and folders are there.
    pub(crate) fn ceiling(&self) -> Result<Ceiling, ConfigError> {
        match self.allow.missing() {
            None => Ok(self.allow.ceiling()),
            Some((key, problem)) => Err(layer::refusal(&self.figment, key, problem)),
        }
    }

    /// Returns the source of a setting in words, as in `flag --nats`.
    pub fn source(&self, key: &str) -> String {
        layer::in_words(self.figment.find_metadata(key), &[key])
    }

    /// Returns every setting with its value and its source, secrets masked.
    pub fn resolved(&self) -> Vec<Resolved> {
        let resolved = |(key, help)| {
            let value = layer::text(&self.figment, key);
            let value = match key {
                "nats" => Address::from(value.as_str()).shown(),
                "password" | "token" if !value.is_empty() => "***".to_owned(),
                _ => value,
            };
            Resolved { key, value, source: self.source(key), help }
        };
        SETTINGS.into_iter().map(resolved).collect()
    }
}

#[cfg(test)]
mod tests;
