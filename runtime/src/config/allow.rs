//! `[allow]`: what the operator of a node allows stages.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use figment::value::{Dict, Value};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::value;
use crate::calls::grant::{Access, Ceiling, HttpGrant, Network, Networks, SecretsFrom};
use crate::calls::http::target::{Origin, Scheme, TargetProblem};
use crate::calls::names::{BucketName, NameProblem, StoreName, SubjectPattern};
use crate::name::nearest;
use crate::program::allow::Allowed;

/// The word for secrets that are environment variables.
const ENVIRONMENT: &str = "environment";
/// The key of the place of secrets.
const FROM: &str = "from";

/// `[allow]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allow {
    /// The programs that stages may run.
    #[serde(deserialize_with = "programs")]
    pub(crate) exec: Allowed,
    #[serde(deserialize_with = "http")]
    http: Vec<HttpGrant>,
    #[serde(deserialize_with = "networks")]
    networks: Networks,
    #[serde(deserialize_with = "http_proxy")]
    http_proxy: Option<Origin>,
    http_ca: Option<PathBuf>,
    #[serde(deserialize_with = "kv")]
    kv: BTreeMap<BucketName, Access>,
    #[serde(deserialize_with = "objects")]
    objects: BTreeMap<StoreName, Access>,
    #[serde(deserialize_with = "publish")]
    publish: Vec<SubjectPattern>,
    #[serde(deserialize_with = "secrets")]
    secrets: Option<SecretsFrom>,
}

impl Allow {
    /// Returns what stages may be granted.
    pub(super) fn ceiling(&self) -> Ceiling {
        Ceiling {
            http: self.http.clone(),
            networks: self.networks.clone(),
            http_proxy: self.http_proxy.clone(),
            http_ca: self.http_ca.clone(),
            kv: self.kv.clone(),
            objects: self.objects.clone(),
            publish: self.publish.clone(),
            secrets: self.secrets.clone(),
            ..Ceiling::default()
        }
    }

    /// Returns the setting whose file or folder is not there, with the problem.
    pub(super) fn missing(&self) -> Option<(&'static str, String)> {
        if let Some(SecretsFrom::Folder(folder)) = &self.secrets
            && !folder.is_dir()
        {
            return Some(("allow.secrets", format!("there is no folder `{}`", folder.display())));
        }
        let file = self.http_ca.as_ref().filter(|file| !file.is_file())?;
        Some(("allow.http_ca", format!("there is no file `{}`", file.display())))
    }
}

fn programs<'de, D: Deserializer<'de>>(from: D) -> Result<Allowed, D::Error> {
    let rules = texts(from, "`[\"python3\", \"/opt/sim/bin/*\"]`")?;
    Allowed::new(rules.iter().map(String::as_str)).map_err(D::Error::custom)
}

fn http<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HttpGrant>, D::Error> {
    parsed(&texts(from, "`[\"https://*\"]`")?, HttpGrant::parse)
}

fn publish<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SubjectPattern>, D::Error> {
    parsed(&texts(from, "`[\"alerts.>\"]`")?, SubjectPattern::parse)
}

fn kv<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<BucketName, Access>, D::Error> {
    accesses(from, "`[\"cache\", \"rates=read\"]`", BucketName::parse)
}

fn objects<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<StoreName, Access>, D::Error> {
    accesses(from, "`[\"reports\", \"models=read\"]`", StoreName::parse)
}

/// Reads a table of hosts with their networks, or a text as in `api.internal=10.0.3.0/24`.
fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Networks, D::Error> {
    let wrong =
        || D::Error::custom("must be a table of hosts and networks, as in `{ \"api.internal\" = \"10.0.3.0/24\" }`");
    let mut pairs = Vec::new();
    match <Value as Deserialize>::deserialize(from)? {
        Value::Empty(..) => {}
        Value::String(_, text) => value::split(&text, &mut pairs),
        Value::Array(_, texts) => {
            for text in texts {
                value::split(&text.into_string().ok_or_else(wrong)?, &mut pairs);
            }
        }
        Value::Dict(_, table) => collect("", table, &mut pairs).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    }
    let networks = pairs.iter().flat_map(|(host, addresses)| {
        addresses.split(',').map(move |address| {
            Network::parse(host, address.trim()).map_err(|problem| D::Error::custom(format!("`{host}`: {problem}")))
        })
    });
    Ok(Networks::new(networks.collect::<Result<_, _>>()?))
}

/// Collects hosts with their networks. A host without quotation marks is a table in a table.
fn collect(prefix: &str, table: Dict, pairs: &mut Vec<(String, String)>) -> Option<()> {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            Value::Dict(_, inner) => collect(&format!("{name}."), inner, pairs)?,
            Value::String(_, text) => pairs.push((name, text)),
            Value::Array(_, texts) => {
                for text in texts {
                    pairs.push((name.clone(), text.into_string()?));
                }
            }
            _ => return None,
        }
    }
    Some(())
}

fn http_proxy<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Origin>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    match Origin::parse(&text) {
        Ok(proxy) if proxy.scheme == Scheme::Http => Ok(Some(proxy)),
        Ok(proxy) => {
            Err(D::Error::custom(format!("a proxy is reached without TLS; write `http://{}`", proxy.authority())))
        }
        // Without the text: it may have a password.
        Err(TargetProblem::User(_)) => {
            Err(D::Error::custom("names a user, and a node logs in to no proxy; leave it out"))
        }
        Err(TargetProblem::NoScheme(text)) => {
            Err(D::Error::custom(format!("`{text}` has no scheme; write `http://{text}`")))
        }
        Err(problem) => Err(D::Error::custom(problem)),
    }
}

/// Reads `{ from = "/run/secrets" }`, or the folder alone, or `environment`.
fn secrets<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretsFrom>, D::Error> {
    let wrong = || D::Error::custom("must be `{ from = \"/run/secrets\" }` or `{ from = \"environment\" }`");
    let text = match <Value as Deserialize>::deserialize(from)? {
        Value::Empty(..) => return Ok(None),
        Value::String(_, text) => text,
        Value::Dict(_, mut table) if table.len() == 1 => {
            table.remove(FROM).and_then(Value::into_string).ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    match text.as_str() {
        "" => Ok(None),
        ENVIRONMENT => Ok(Some(SecretsFrom::Environment)),
        folder if folder.starts_with(['/', '.']) => Ok(Some(SecretsFrom::Folder(folder.into()))),
        other => {
            let hint = match nearest(other, [ENVIRONMENT]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write \"{ENVIRONMENT}\", or a folder, as in \"/run/secrets\" or \"./{other}\""),
            };
            Err(D::Error::custom(format!("`{other}` is no place of secrets; {hint}")))
        }
    }
}

/// Reads names, each with the access that it is allowed: `cache` for both, `cache=read`, or a table.
fn accesses<'de, D: Deserializer<'de>, N: Ord>(
    from: D,
    example: &str,
    name: fn(&str) -> Result<N, NameProblem>,
) -> Result<BTreeMap<N, Access>, D::Error> {
    let wrong = || D::Error::custom(format!("must be a list of names, as in {example}"));
    let pairs: Vec<(String, String)> = match <Value as Deserialize>::deserialize(from)? {
        Value::Dict(_, table) => {
            let pair = |(name, access): (String, Value)| Some((name, access.into_string()?));
            table.into_iter().map(pair).collect::<Option<_>>().ok_or_else(wrong)?
        }
        value => {
            let with_access = |text: String| match text.split_once('=') {
                Some((name, access)) => (name.trim().to_owned(), access.trim().to_owned()),
                None => (text, Access::ReadWrite.name().to_owned()),
            };
            listed(value).ok_or_else(wrong)?.into_iter().map(with_access).collect()
        }
    };
    let mut all = BTreeMap::new();
    for (text, access) in pairs {
        let access = Access::parse(&access).map_err(|problem| D::Error::custom(format!("`{text}`: {problem}")))?;
        all.insert(name(&text).map_err(D::Error::custom)?, access);
    }
    Ok(all)
}

/// Reads a list of texts, or a text with commas between them.
fn texts<'de, D: Deserializer<'de>>(from: D, example: &str) -> Result<Vec<String>, D::Error> {
    let value = <Value as Deserialize>::deserialize(from)?;
    listed(value).ok_or_else(|| D::Error::custom(format!("must be a list of texts, as in {example}")))
}

/// Returns the texts of a list, or of a text with commas between them.
fn listed(value: Value) -> Option<Vec<String>> {
    match value {
        Value::Empty(..) => Some(Vec::new()),
        Value::String(_, text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
        Value::Array(_, texts) => texts.into_iter().map(Value::into_string).collect(),
        _ => None,
    }
}

fn parsed<T, P: Display, E: Error>(texts: &[String], parse: fn(&str) -> Result<T, P>) -> Result<Vec<T>, E> {
    texts.iter().map(|text| parse(text).map_err(E::custom)).collect()
}
