//! Grants: what a stage may reach outside of its sandbox. The manifest asks for them, and an operator's [`Ceiling`] bounds them.

mod ceiling;
mod host;
mod http;
mod network;
mod path;
mod secret;

use std::collections::BTreeMap;
use std::fmt;

use pcluster_abi::call::GROUPS;
use serde_json::json;

use super::http::target::Target;
use super::message::quoted;
use super::names::{BucketName, StoreName, SubjectPattern};
use crate::name::nearest;
pub(crate) use ceiling::{Ceiling, SecretsFrom};
pub(crate) use http::HttpGrant;
pub(crate) use network::{Network, Networks};
pub(crate) use secret::{SecretName, SecretUse};

/// What a stage may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    /// The targets of HTTP requests.
    pub(crate) http: Vec<HttpGrant>,
    /// The key-value buckets.
    pub(crate) kv: BTreeMap<BucketName, Access>,
    /// The object stores.
    pub(crate) objects: BTreeMap<StoreName, Access>,
    /// The subjects of messages.
    pub(crate) publish: Vec<SubjectPattern>,
    /// The secrets.
    pub(crate) secrets: BTreeMap<SecretName, SecretUse>,
    /// The limits of the calls of one item.
    pub(crate) limits: CallLimits,
    /// `true` if records of calls have their bodies.
    pub(crate) records_bodies: bool,
}

/// What a stage may do with a bucket or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// It may read.
    Read,
    /// It may read and write.
    ReadWrite,
}

/// The text is no access.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessProblem {
    /// It is like one.
    #[error("`{0}` is not known; did you mean `{1}`?")]
    Near(String, &'static str),
    /// It is like none.
    #[error("`{0}` is not known; write \"read\" or \"read-write\"")]
    Unknown(String),
}

impl Access {
    /// Parses `read` or `read-write`.
    pub(crate) fn parse(text: &str) -> Result<Self, AccessProblem> {
        let all = [Self::Read, Self::ReadWrite];
        if let Some(access) = all.into_iter().find(|access| access.name() == text) {
            return Ok(access);
        }
        let near = nearest(text, all.map(Self::name)).and_then(|near| all.into_iter().find(|each| each.name() == near));
        Err(match near {
            Some(near) => AccessProblem::Near(quoted(text), near.name()),
            None => AccessProblem::Unknown(quoted(text)),
        })
    }

    /// Returns its word in a manifest.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadWrite => "read-write",
        }
    }
}

/// The limits of the calls of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallLimits {
    /// The most calls.
    pub(crate) calls: u32,
    /// The most bytes sent.
    pub(crate) sent: u64,
    /// The most bytes received.
    pub(crate) received: u64,
    /// The most bytes of one response body after it is decompressed. At most `received`.
    pub(crate) body: u64,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { calls: 1_000, sent: 64 << 20, received: 64 << 20, body: 8 << 20 }
    }
}

/// Why a request is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpRefusal {
    /// No grant covers the target.
    #[error("the stage is not granted `{0}`; add `\"{0}\"` to `http` of its `[stage.allow]`")]
    NotGranted(String),
    /// The path may mean another one to the server.
    #[error("`{0}` has a path that a server may read as another one: {1}; where a path is granted, that is refused")]
    Path(String, &'static str),
}

impl Grants {
    /// Returns `true` if nothing is granted.
    pub(crate) fn is_empty(&self) -> bool {
        !GROUPS.into_iter().any(|group| self.has(group))
    }

    /// Returns `true` if something of a group is granted, as `http` or `kv`.
    pub(crate) fn has(&self, group: &str) -> bool {
        match group {
            "http" => !self.http.is_empty(),
            "kv" => !self.kv.is_empty(),
            "objects" => !self.objects.is_empty(),
            "publish" => !self.publish.is_empty(),
            "secrets" => !self.secrets.is_empty(),
            _ => false,
        }
    }

    /// Returns the groups of which something is granted.
    pub(crate) fn groups(&self) -> Vec<&'static str> {
        GROUPS.into_iter().filter(|group| self.has(group)).collect()
    }

    /// Returns `true` if a request may go to a target.
    pub(crate) fn http_allows(&self, target: &Target) -> bool {
        self.http.iter().any(|grant| grant.allows(target))
    }

    /// Returns why a request may not go to a target. `None` if it may.
    pub(crate) fn http_refusal(&self, target: &Target) -> Option<HttpRefusal> {
        if self.http_allows(target) {
            return None;
        }
        let is_near = self.http.iter().any(|grant| grant.allows_origin(target.origin()));
        Some(match path::ambiguity(target.path()).filter(|_| is_near) {
            Some(problem) => HttpRefusal::Path(format!("{}{}", target.origin(), quoted(target.path())), problem),
            None if is_near => HttpRefusal::NotGranted(format!("{}{}", target.origin(), quoted(target.path()))),
            None => HttpRefusal::NotGranted(target.origin().to_string()),
        })
    }

    /// Returns the grants, one a line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let http = self.http.iter().map(|grant| format!("http {grant}"));
        let kv = self.kv.iter().map(|(bucket, access)| format!("kv {bucket} {}", access.name()));
        let objects = self.objects.iter().map(|(store, access)| format!("objects {store} {}", access.name()));
        let publish = self.publish.iter().map(|pattern| format!("publish {pattern}"));
        let secrets = self.secrets.iter().map(|(name, way)| format!("secret {name} {way}"));
        http.chain(kv).chain(objects).chain(publish).chain(secrets).collect()
    }

    /// Returns the grants in JSON, with the keys of a manifest.
    pub(crate) fn document(&self) -> serde_json::Value {
        fn table<K: ToString, V: ToString>(entries: impl Iterator<Item = (K, V)>) -> serde_json::Value {
            entries
                .map(|(key, value)| (key.to_string(), json!(value.to_string())))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        let texts = |texts: Vec<String>| json!(texts);
        let all = [
            ("http", texts(self.http.iter().map(HttpGrant::to_string).collect())),
            ("kv", table(self.kv.iter().map(|(bucket, access)| (bucket, access.name())))),
            ("objects", table(self.objects.iter().map(|(store, access)| (store, access.name())))),
            ("publish", texts(self.publish.iter().map(SubjectPattern::to_string).collect())),
            ("secrets", table(self.secrets.iter().map(|(name, way)| (name, way.word())))),
        ];
        all.into_iter().filter(|(group, _)| self.has(group)).map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.lines().join("\n"))
    }
}

#[cfg(test)]
mod tests;
