//! Whether a call is granted.

use super::{Need, StoreRequest};
use crate::calls::failure::CallFailure;
use crate::calls::grant::{Access, Grants};

impl StoreRequest {
    /// Refuses the call unless it is granted. Says which line of the manifest would grant it.
    pub(crate) fn check(&self, grants: &Grants) -> Result<(), CallFailure> {
        match self.need() {
            Need::Bucket(name, writes) => {
                check_access("bucket", "kv", name.as_str(), grants.kv.get(name).copied(), writes)
            }
            Need::Store(name, writes) => {
                check_access("object store", "objects", name.as_str(), grants.objects.get(name).copied(), writes)
            }
            Need::Subject(subject) if grants.publish.iter().any(|pattern| pattern.matches(subject)) => Ok(()),
            Need::Subject(subject) => Err(CallFailure::denied(format!(
                "the stage is not granted the subject `{subject}`: add `publish = [\"{subject}\"]` to its `[stage.allow]`"
            ))),
        }
    }
}

fn check_access(kind: &str, group: &str, name: &str, granted: Option<Access>, writes: bool) -> Result<(), CallFailure> {
    let needed = if writes { Access::ReadWrite } else { Access::Read };
    let problem = match granted {
        Some(granted) if granted >= needed => return Ok(()),
        Some(_) => "may only read",
        None => "is not granted",
    };
    let line = format!("{group} = {{ {name} = \"{}\" }}", needed.name());
    Err(CallFailure::denied(format!("the stage {problem} the {kind} `{name}`: write `{line}` in its `[stage.allow]`")))
}

#[cfg(test)]
mod tests {
    use pcluster_abi::call;

    use super::*;
    use crate::calls::message::{Request, Response};
    use crate::calls::names::{BucketName, StoreName, SubjectPattern};

    fn read(name: &str, texts: &[(&str, &str)]) -> StoreRequest {
        let mut response = Response::new();
        for (key, text) in texts {
            response.text(key, text);
        }
        let bytes = response.finish();
        StoreRequest::read(name, &mut Request::read(&bytes).expect("a map")).expect(name)
    }

    #[test]
    fn a_call_is_granted_by_its_name_and_what_it_does() {
        let mut grants = Grants::default();
        for (name, access) in [("cache", Access::Read), ("seen", Access::ReadWrite)] {
            grants.kv.insert(BucketName::parse(name).expect("a name"), access);
            grants.objects.insert(StoreName::parse(name).expect("a name"), access);
        }
        grants.publish.push(SubjectPattern::parse("alerts.>").expect("a pattern"));
        let entry = |bucket| [("bucket", bucket), ("key", "a"), ("value", "v")];
        let object = |store| [("store", store), ("name", "a"), ("data", "v")];
        let table = [
            (read(call::KV_GET, &entry("cache")), ""),
            (read(call::KV_KEYS, &entry("cache")), ""),
            (read(call::KV_PUT, &entry("seen")), ""),
            (
                read(call::KV_PUT, &entry("cache")),
                "may only read the bucket `cache`: write `kv = { cache = \"read-write\" }`",
            ),
            (read(call::KV_DELETE, &entry("cache")), "may only read"),
            (
                read(call::KV_GET, &entry("Cache")),
                "is not granted the bucket `Cache`: write `kv = { Cache = \"read\" }`",
            ),
            (read(call::OBJECTS_GET, &object("cache")), ""),
            (read(call::OBJECTS_LIST, &object("cache")), ""),
            (read(call::OBJECTS_PUT, &object("seen")), ""),
            (read(call::OBJECTS_PUT, &object("cache")), "write `objects = { cache = \"read-write\" }`"),
            (read(call::PUBLISH, &[("subject", "alerts.a")]), ""),
            (read(call::PUBLISH, &[("subject", "alerts")]), "add `publish = [\"alerts\"]`"),
        ];
        for (request, said) in table {
            let refused = request.check(&grants).map_or_else(|failure| failure.message, |()| String::new());
            assert!(refused.is_empty() == said.is_empty() && refused.contains(said), "{request:?}: {refused}");
        }
    }
}
