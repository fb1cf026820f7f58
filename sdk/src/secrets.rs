//! Secrets that the stage is granted to `reveal`.
//!
//! A secret with a destination needs none of this: see [`Secret`](crate::Secret). What is revealed here is in the task's hands: it
//! must not stand in an output, a log line or an error.

use pcluster_abi::call;

use crate::call::call;
use crate::cbor::fields::Writer;
use crate::{CallError, FailureKind};

/// Returns the value of a secret that is granted as `"reveal"`.
///
/// # Errors
///
/// If the stage is not granted to reveal it, it has no value on the node, or the value is not UTF-8.
pub fn reveal(name: &str) -> Result<String, CallError> {
    String::from_utf8(reveal_bytes(name)?)
        .map_err(|_| CallError::new(FailureKind::Invalid, format!("the secret `{name}` is not UTF-8")))
}

/// Returns the value of a secret that need not be a text.
///
/// # Errors
///
/// As for [`reveal`].
pub fn reveal_bytes(name: &str) -> Result<Vec<u8>, CallError> {
    let mut request = Writer::new();
    request.text("name", name);
    call(call::SECRETS_GET, request)?.into_bytes("value")
}
