//! What a stage may reach by HTTP, as its grants say.

use super::target::{Origin, Target};
use crate::calls::failure::CallFailure;
use crate::calls::message::quoted;

/// What a stage may reach by HTTP.
pub(crate) trait Reach: Sync {
    /// Returns `true` if the stage may request a target.
    fn allows(&self, target: &Target) -> bool;

    /// Returns where a secret may be sent. `None` if the stage was not granted the secret.
    fn secret(&self, name: &str) -> Option<Destination<'_>>;
}

/// Where a secret may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    /// To this origin alone.
    Origin(&'a Origin),
    /// Wherever the stage may send requests: its tasks may read the secret anyway.
    Any,
}

/// Checks that the stage may request a target.
pub(super) fn check_target(reach: &dyn Reach, target: &Target) -> Result<(), CallFailure> {
    if reach.allows(target) {
        return Ok(());
    }
    let origin = target.origin();
    Err(CallFailure::denied(format!(
        "the stage may not request `{origin}{}`: no grant in `http` of [stage.allow] covers it; one like `{origin}` does",
        target.path()
    )))
}

/// Checks that a secret may be sent to a target.
pub(super) fn check_secret(reach: &dyn Reach, name: &str, target: &Target) -> Result<(), CallFailure> {
    let origin = target.origin();
    match reach.secret(name) {
        Some(Destination::Any) => Ok(()),
        Some(Destination::Origin(own)) if own == origin => Ok(()),
        Some(Destination::Origin(own)) => {
            Err(CallFailure::denied(format!("the secret `{}` is for `{own}` alone, not for `{origin}`", quoted(name))))
        }
        None => Err(CallFailure::denied(format!(
            "the stage was not granted the secret `{0}`; grant it in [stage.allow] with `secrets = {{ {0} = \"{origin}\" }}`",
            quoted(name)
        ))),
    }
}
