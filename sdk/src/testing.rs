//! A world for tests of tasks that call.

use pcluster_abi::call::FailureKind;

use crate::cbor::fields::Writer;

/// Answers a call of a native test.
pub(crate) fn answer(name: &str, _request: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    Err(failure(FailureKind::Denied, &format!("nothing answers `{name}` in this test")))
}

/// Returns a failure in CBOR.
fn failure(kind: FailureKind, message: &str) -> Vec<u8> {
    let mut failure = Writer::new();
    failure.text("kind", kind.name());
    failure.text("message", message);
    failure.flag("transient", matches!(kind, FailureKind::Timeout | FailureKind::Unavailable));
    failure.finish()
}
