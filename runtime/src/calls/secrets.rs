//! Secrets of a node: values that tasks use, and see only if a stage may reveal them.

mod mask;
mod reveal;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) use mask::Mask;
pub(crate) use reveal::SecretRequest;
use rustix::fs::OFlags;

use super::failure::CallFailure;
use super::grant::{SecretName, SecretsFrom};
use crate::lock::lock;

/// The most bytes of a secret.
const SECRET_MAX: u64 = 64 << 10;
/// The most names of secrets that a node tells.
const NAMES_MAX: usize = 1_000;
/// How long a value is used before it is read again.
const CACHED: Duration = Duration::from_secs(30);
/// What the names of environment variables begin with that hold secrets.
const VARIABLE: &str = "PCLUSTER_SECRET_";

/// The value of a secret. No text that is written of it shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Arc<[u8]>);

impl Secret {
    /// Returns the value. It may be written to where the secret belongs, and nowhere else.
    pub(crate) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MissingSecret {
    /// The node has no secrets.
    #[error(
        "this node has no secrets; its operator names where they are: `secrets = {{ from = \"/run/secrets\" }}` in [allow]"
    )]
    Nowhere,
    /// There is no file of this name.
    #[error("the secret `{0}` has no value on this node; its operator puts it into a file of this name in {1}")]
    NoFile(SecretName, PathBuf),
    /// There is no variable of this name.
    #[error("the secret `{0}` has no value on this node; its operator sets the environment variable {1}")]
    NoVariable(SecretName, String),
    /// The file cannot be read.
    #[error("the secret `{0}` cannot be read on this node: {1}")]
    Unreadable(SecretName, Error),
    /// The value cannot be a secret.
    #[error("the value of the secret `{0}` {1}")]
    Value(SecretName, &'static str),
}

impl From<MissingSecret> for CallFailure {
    fn from(problem: MissingSecret) -> Self {
        Self::unavailable(problem.to_string())
    }
}

/// The secrets of a node. Values are read when they are used, and again after a while.
#[derive(Debug)]
pub(crate) struct Secrets {
    from: Option<SecretsFrom>,
    read: Mutex<HashMap<SecretName, (Secret, Instant)>>,
}

impl Secrets {
    /// Creates the secrets of a node. Nothing is read yet.
    pub(crate) fn new(from: Option<SecretsFrom>) -> Arc<Self> {
        Arc::new(Self { from, read: Mutex::default() })
    }

    /// Returns the value of a secret.
    pub(crate) async fn get(self: &Arc<Self>, name: &SecretName) -> Result<Secret, MissingSecret> {
        if let Some((secret, at)) = lock(&self.read).get(name)
            && at.elapsed() < CACHED
        {
            return Ok(secret.clone());
        }
        let (secrets, of) = (self.clone(), name.clone());
        let read = tokio::task::spawn_blocking(move || read(secrets.from.as_ref(), &of)).await;
        let secret = read.unwrap_or_else(|error| Err(MissingSecret::Unreadable(name.clone(), Error::other(error))))?;
        lock(&self.read).insert(name.clone(), (secret.clone(), Instant::now()));
        Ok(secret)
    }
}

/// Reads a secret. Its name is never a path: a [`SecretName`] has neither dots nor slashes.
fn read(from: Option<&SecretsFrom>, name: &SecretName) -> Result<Secret, MissingSecret> {
    let bytes = match from {
        None => return Err(MissingSecret::Nowhere),
        Some(SecretsFrom::Folder(folder)) => {
            read_file(&folder.join(name.as_str())).map_err(|error| match error.kind() {
                ErrorKind::NotFound => MissingSecret::NoFile(name.clone(), folder.clone()),
                _ => MissingSecret::Unreadable(name.clone(), error),
            })?
        }
        Some(SecretsFrom::Environment) => {
            let variable = variable(name);
            let value = std::env::var_os(&variable).map(OsString::into_vec);
            value.ok_or_else(|| MissingSecret::NoVariable(name.clone(), variable))?
        }
    };
    value(bytes).map_err(|problem| MissingSecret::Value(name.clone(), problem))
}

/// Returns the environment variable of a secret.
pub(crate) fn variable(name: &SecretName) -> String {
    format!("{VARIABLE}{}", name.as_str().to_ascii_uppercase().replace('-', "_"))
}

/// Returns the names of all secrets that are there, each as its environment variable.
pub(crate) fn variables(from: &SecretsFrom) -> Vec<String> {
    let mut names: Vec<String> = match from {
        SecretsFrom::Folder(folder) => std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|file| file.ok()?.file_name().into_string().ok())
            .filter_map(|name| Some(variable(&SecretName::parse(&name).ok()?)))
            .take(NAMES_MAX)
            .collect(),
        SecretsFrom::Environment => std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| name.starts_with(VARIABLE))
            .take(NAMES_MAX)
            .collect(),
    };
    names.sort_unstable();
    names
}

/// Reads a file of a secret. It may be a link, as where secrets are mounted. What is no file could be waited for without end.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut bytes = Vec::new();
    // Its line break, and one more byte to tell that it is too large.
    file.take(SECRET_MAX + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the secret of what was read: without one line break at its end, by which editors end a file.
fn value(mut bytes: Vec<u8>) -> Result<Secret, &'static str> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err("is empty");
    }
    if bytes.len() as u64 > SECRET_MAX {
        return Err("has more than 64 KiB");
    }
    if bytes.iter().any(u8::is_ascii_control) {
        return Err("has a line break or another control character; a secret is one line");
    }
    Ok(Secret(bytes.into()))
}

#[cfg(test)]
mod tests;
