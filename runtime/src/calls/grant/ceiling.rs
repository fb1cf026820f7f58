//! What the operator of a node allows. Without an operator's word nothing is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::network::Networks;
use super::{Access, Grants, HttpGrant};
use crate::calls::http::target::Origin;
use crate::calls::names::{BucketName, StoreName, SubjectPattern};
use crate::contents::Contents;
use crate::name::Digest;

/// What the operator of a node allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// The targets of HTTP requests.
    pub(crate) http: Vec<HttpGrant>,
    /// The addresses that are open besides public ones.
    pub(crate) networks: Networks,
    /// The proxy of all HTTP requests.
    pub(crate) http_proxy: Option<Origin>,
    /// A file of certificate authorities that are trusted besides those of the system.
    pub(crate) http_ca: Option<PathBuf>,
    /// The key-value buckets.
    pub(crate) kv: BTreeMap<BucketName, Access>,
    /// The object stores.
    pub(crate) objects: BTreeMap<StoreName, Access>,
    /// The subjects of messages.
    pub(crate) publish: Vec<SubjectPattern>,
    /// Where the node has its secrets. `None` if no stage may use any.
    pub(crate) secrets: Option<SecretsFrom>,
    /// The revisions that may reach whatever their manifests ask for.
    pub(crate) contents: Contents,
}

/// Where a node has its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretsFrom {
    /// In files of a folder, each named as its secret.
    Folder(PathBuf),
    /// In environment variables: `PCLUSTER_SECRET_API_TOKEN` holds `api_token`.
    Environment,
}

impl Ceiling {
    /// Allows all that the revisions with this content ask for.
    pub(crate) fn allow_content(&mut self, content: Digest) {
        self.contents.add(content);
    }

    /// Returns `true` if a revision with this content may reach whatever it asks for.
    fn allows_content(&self, content: &Digest) -> bool {
        self.contents.has(content)
    }

    /// Returns why the node does not serve a stage with these grants. `None` if it does. `content` is the digest of the stage's
    /// revision.
    pub(crate) fn refusal(&self, grants: &Grants, content: &Digest) -> Option<String> {
        if self.allows_content(content) {
            return None;
        }
        let refused = self.refused(grants);
        let (what, flag) = refused.first()?;
        let more = match refused.len() - 1 {
            0 => String::new(),
            1 => ", nor another grant of the stage".to_owned(),
            more => format!(", nor {more} other grants of the stage"),
        };
        Some(format!("this node does not allow {what}{more}; its operator can, with `{flag}` or `[allow]`"))
    }

    /// Returns the grants that are not allowed, in words, each with the flag that allows it.
    fn refused(&self, grants: &Grants) -> Vec<(String, String)> {
        let mut refused = Vec::new();
        for grant in grants.http.iter().filter(|grant| !self.http.iter().any(|own| own.covers(grant))) {
            refused.push((format!("`{grant}`"), format!("--allow-http {grant}")));
        }
        let mut table = |kind: &str, flag: &str, name: &str, access: Access, allowed: Option<&Access>| {
            if allowed.is_some_and(|allowed| *allowed >= access) {
                return;
            }
            let (what, suffix) = match access {
                Access::Read => ("reading", "=read"),
                Access::ReadWrite => ("writing to", ""),
            };
            refused.push((format!("{what} the {kind} `{name}`"), format!("--allow-{flag} {name}{suffix}")));
        };
        for (bucket, access) in &grants.kv {
            table("bucket", "kv", bucket.as_str(), *access, self.kv.get(bucket));
        }
        for (store, access) in &grants.objects {
            table("object store", "objects", store.as_str(), *access, self.objects.get(store));
        }
        for pattern in grants.publish.iter().filter(|pattern| !self.publish.iter().any(|own| own.covers(pattern))) {
            refused.push((format!("publishing on `{pattern}`"), format!("--allow-publish '{pattern}'")));
        }
        if let (None, Some(name)) = (&self.secrets, grants.secrets.keys().next()) {
            refused.push((format!("the secret `{name}`"), "--allow-secrets FOLDER".to_owned()));
        }
        refused
    }

    /// Returns the networks that are open to a stage. A revision whose content is allowed reaches this machine where its grants name
    /// it, as `http://localhost:9000` does.
    pub(crate) fn networks_of(&self, grants: &Grants, content: &Digest) -> Networks {
        if self.allows_content(content) { self.networks.with_loopback(&grants.http) } else { self.networks.clone() }
    }

    /// Returns where the secrets of a stage are. Without an operator's word, revisions whose content is allowed have those of the
    /// environment.
    pub(crate) fn secrets_of(&self, content: &Digest) -> Option<SecretsFrom> {
        let own = || self.allows_content(content).then_some(SecretsFrom::Environment);
        self.secrets.clone().or_else(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::grant::{SecretName, SecretUse};

    fn http(texts: &[&str]) -> Vec<HttpGrant> {
        texts.iter().map(|text| HttpGrant::parse(text).expect("a grant")).collect()
    }

    fn grants() -> Grants {
        Grants {
            http: http(&["https://api.example.com", "http://localhost:9000"]),
            kv: [(BucketName::parse("cache").expect("a name"), Access::ReadWrite)].into(),
            objects: [(StoreName::parse("models").expect("a name"), Access::Read)].into(),
            publish: vec![SubjectPattern::parse("alerts.*").expect("a pattern")],
            secrets: [(SecretName::parse("token").expect("a name"), SecretUse::Reveal)].into(),
            ..Grants::default()
        }
    }

    fn ceiling() -> Ceiling {
        Ceiling {
            http: http(&["https://*", "http://localhost:9000"]),
            kv: grants().kv,
            objects: grants().objects,
            publish: vec![SubjectPattern::parse("alerts.>").expect("a pattern")],
            secrets: Some(SecretsFrom::Environment),
            ..Ceiling::default()
        }
    }

    #[test]
    fn a_node_refuses_what_its_operator_did_not_allow_and_says_how_to() {
        let content = Digest::of(b"other");
        let refusal = |change: fn(&mut Ceiling)| {
            let mut ceiling = ceiling();
            change(&mut ceiling);
            ceiling.refusal(&grants(), &content).unwrap_or_default()
        };
        assert_eq!(refusal(|_| {}), "");
        assert_eq!(Ceiling::default().refusal(&Grants::default(), &content), None);
        for (change, told) in [
            (
                (|ceiling| ceiling.http.truncate(1)) as fn(&mut Ceiling),
                "this node does not allow `http://localhost:9000`; its operator can, with \
                 `--allow-http http://localhost:9000` or `[allow]`",
            ),
            (
                |ceiling| ceiling.http.clear(),
                "this node does not allow `https://api.example.com`, nor another grant of the stage; its operator can, with \
                 `--allow-http https://api.example.com` or `[allow]`",
            ),
            (
                |ceiling| ceiling.kv.values_mut().for_each(|access| *access = Access::Read),
                "this node does not allow writing to the bucket `cache`; its operator can, with `--allow-kv cache` or `[allow]`",
            ),
            (
                |ceiling| ceiling.objects.clear(),
                "this node does not allow reading the object store `models`; its operator can, with \
                 `--allow-objects models=read` or `[allow]`",
            ),
            (
                |ceiling| ceiling.publish.clear(),
                "this node does not allow publishing on `alerts.*`; its operator can, with `--allow-publish 'alerts.*'` or \
                 `[allow]`",
            ),
            (
                |ceiling| ceiling.secrets = None,
                "this node does not allow the secret `token`; its operator can, with `--allow-secrets FOLDER` or `[allow]`",
            ),
            (
                |ceiling| *ceiling = Ceiling::default(),
                "this node does not allow `https://api.example.com`, nor 5 other grants of the stage; its operator can, with \
                 `--allow-http https://api.example.com` or `[allow]`",
            ),
        ] {
            assert_eq!(refusal(change), told);
        }
    }

    #[test]
    fn content_that_is_allowed_reaches_what_it_asks_for_and_nothing_else_does() {
        let (own, other) = (Digest::of(b"own"), Digest::of(b"other"));
        let mut ceiling = Ceiling::default();
        ceiling.allow_content(own.clone());
        assert_eq!(ceiling.refusal(&grants(), &own), None);
        assert!(ceiling.refusal(&grants(), &other).is_some());
        let is_open = |content| {
            let networks = ceiling.networks_of(&grants(), content);
            networks.opens("localhost", std::net::Ipv4Addr::LOCALHOST.into())
        };
        assert!(is_open(&own) && !is_open(&other));
        assert_eq!(ceiling.secrets_of(&own), Some(SecretsFrom::Environment));
        assert_eq!(ceiling.secrets_of(&other), None);
        ceiling.secrets = Some(SecretsFrom::Folder("/run/secrets".into()));
        assert_eq!(ceiling.secrets_of(&own), ceiling.secrets);
    }
}
