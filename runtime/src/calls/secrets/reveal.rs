//! Tells a task the value of a secret, where its stage may reveal it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Mask, Secrets};
use crate::calls::failure::CallFailure;
use crate::calls::grant::{Grants, SecretName, SecretUse};
use crate::calls::message::{Request, Response, missing};

/// A request for the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretRequest {
    /// The name of the secret.
    pub(crate) name: SecretName,
}

impl SecretRequest {
    /// Reads a request.
    pub(crate) fn read(request: &mut Request<'_>) -> Result<Self, CallFailure> {
        let name = request.text("name")?.ok_or_else(|| missing("name"))?;
        let name = SecretName::parse(name).map_err(|problem| CallFailure::invalid(problem.to_string()))?;
        Ok(Self { name })
    }

    /// Checks that the stage may reveal the secret.
    pub(crate) fn check(&self, grants: &Grants) -> Result<(), CallFailure> {
        let name = &self.name;
        match grants.secrets.get(name) {
            Some(SecretUse::Reveal) => Ok(()),
            Some(SecretUse::Origin(origin)) => Err(CallFailure::denied(format!(
                "the secret `{name}` is filled in for `{origin}` and not revealed; `{name} = \"reveal\"` in `secrets` of \
                 `[stage.allow]` would reveal it"
            ))),
            None => Err(CallFailure::denied(format!(
                "the stage is not granted the secret `{name}`; add `{name} = \"reveal\"` to `secrets` of its `[stage.allow]`"
            ))),
        }
    }

    /// Returns the response. The mask learns the secret, which the task may send anywhere.
    pub(crate) async fn answer(self, secrets: &Arc<Secrets>, mask: &Mask) -> Result<Bytes, CallFailure> {
        let secret = secrets.get(&self.name).await?;
        mask.add(&secret);
        let mut response = Response::new();
        response.bytes("value", secret.reveal());
        Ok(response.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::failure::FailureKind;
    use crate::calls::grant::SecretsFrom;

    fn read(name: &str) -> Result<SecretRequest, CallFailure> {
        let mut map = Response::new();
        map.text("name", name);
        let bytes = map.finish();
        SecretRequest::read(&mut Request::read(&bytes)?)
    }

    #[tokio::test]
    async fn a_secret_is_told_only_where_it_may_be_revealed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("open"), "value\n").expect("written");
        let secrets = Secrets::new(Some(SecretsFrom::Folder(folder.path().to_owned())));
        let mut grants = Grants::default();
        for (name, way) in [("open", "reveal"), ("bound", "https://api.example.com")] {
            let way = SecretUse::parse(way).expect("a way");
            grants.secrets.insert(SecretName::parse(name).expect("a name"), way);
        }
        let told = |name: &str| read(name).expect("a request").check(&grants).expect_err(name);
        assert_eq!(told("bound").kind, FailureKind::Denied);
        assert!(told("bound").message.starts_with("the secret `bound` is filled in for `https://api.example.com`"));
        assert!(told("other").message.contains("add `other = \"reveal\"`"));
        assert_eq!(read("../open").expect_err("no name").kind, FailureKind::Invalid);
        let request = read("open").expect("a request");
        assert_eq!(request.check(&grants), Ok(()));
        let mask = Mask::default();
        assert_eq!(request.answer(&secrets, &mask).await.expect("a value"), &b"\xa1\x65value\x45value"[..]);
        assert_eq!(mask.apply(b"a value"), &b"a *****"[..]);
    }
}
