//! What each call of a store needs, and what it does if it is made twice.

use pcluster_abi::call;

use crate::calls::failure::CallFailure;
use crate::calls::grant::{Access, Grants};
use crate::calls::stores::Need;
use crate::dead::calls::Safety;

/// Checks that a stage was granted what a call needs.
pub(super) fn check_need(grants: &Grants, need: Need<'_>) -> Result<(), CallFailure> {
    let said = |what: &str, line: String| {
        Err(CallFailure::denied(format!("the stage is not granted {what}; add to its `[stage.allow]`: {line}")))
    };
    let access = |writes: bool| if writes { Access::ReadWrite } else { Access::Read };
    let words = |writes: bool| if writes { "writing to" } else { "reading" };
    match need {
        Need::Bucket(bucket, writes) if grants.kv.get(bucket).is_none_or(|granted| *granted < access(writes)) => {
            let line = format!("kv = {{ {bucket} = \"{}\" }}", access(writes).name());
            said(&format!("{} the bucket `{bucket}`", words(writes)), line)
        }
        Need::Store(store, writes) if grants.objects.get(store).is_none_or(|granted| *granted < access(writes)) => {
            let line = format!("objects = {{ {store} = \"{}\" }}", access(writes).name());
            said(&format!("{} the object store `{store}`", words(writes)), line)
        }
        Need::Subject(subject) if !grants.publish.iter().any(|pattern| pattern.matches(subject)) => {
            said(&format!("publishing on `{subject}`"), format!("publish = [\"{subject}\"]"))
        }
        Need::Bucket(..) | Need::Store(..) | Need::Subject(_) => Ok(()),
    }
}

/// Returns what a call of a store does if it is made twice.
pub(super) fn safety_of(name: &str) -> Safety {
    match name {
        call::KV_CREATE | call::KV_UPDATE => Safety::Unsafe,
        call::PUBLISH => Safety::Keyed,
        _ => Safety::Safe,
    }
}
