//! The permissions that this user lacks. The server does not answer such a request, but reports it to the connection.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::lock::lock;
use crate::subject;

/// How many refusals are kept in full.
const RECENT_MAX: usize = 64;
/// How long a refusal may explain a request without an answer.
const RECENT: Duration = Duration::from_secs(30);

/// The permissions that the user was found to lack.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    missing: BTreeSet<Missing>,
    recent: VecDeque<Refusal>,
}

/// A refusal in the server's words.
#[derive(Debug)]
struct Refusal {
    /// The subject that was published to. `None` for a subscription, which does not show the request that waits for it.
    published: Option<String>,
    reason: String,
    at: Instant,
}

/// A missing permission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// The chain that it is needed for, if any.
    pub chain: Option<String>,
    /// `true` if it is to subscribe, `false` if it is to publish.
    pub to_subscribe: bool,
    /// The subject, or a pattern that matches it.
    pub subject: String,
    /// `true` if items cannot be finished without it.
    pub stops_items: bool,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.to_subscribe { "subscribe" } else { "publish" };
        let subject = &self.subject;
        write!(
            formatter,
            "no permission to {what} to `{subject}`; the server's configuration must allow it for this user"
        )
    }
}

impl Permissions {
    /// Records a report of the server. Returns `false` if it is about something else.
    pub(super) fn note(&self, reason: &str) -> bool {
        if !reason.to_lowercase().contains("permissions violation") {
            return false;
        }
        let about = reason.split('"').nth(1).unwrap_or_default();
        let to_subscribe = reason.to_lowercase().contains("for subscription");
        let mut state = lock(&self.state);
        if state.recent.len() >= RECENT_MAX {
            state.recent.pop_front();
        }
        let published = (!to_subscribe).then(|| about.to_owned());
        state.recent.push_back(Refusal { published, reason: reason.to_owned(), at: Instant::now() });
        if state.missing.insert(missing(about, to_subscribe)) {
            self.more.notify_one();
        }
        true
    }

    /// Forgets the missing permissions: a user whose permissions have changed has a new connection.
    pub(super) fn forget(&self) {
        lock(&self.state).missing.clear();
    }

    /// Takes the refusal that explains why a publish to this subject has no answer.
    pub(super) fn take_refusal(&self, subject: &str) -> Option<String> {
        let mut state = lock(&self.state);
        state.recent.retain(|refusal| refusal.at.elapsed() < RECENT);
        let is_why = |refusal: &Refusal| refusal.published.as_deref().is_none_or(|published| published == subject);
        let place = state.recent.iter().rposition(is_why)?;
        state.recent.remove(place).map(|refusal| refusal.reason)
    }

    pub(super) fn missing(&self) -> BTreeSet<Missing> {
        lock(&self.state).missing.clone()
    }

    /// Waits until more permissions are missing.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }
}

fn missing(about: &str, to_subscribe: bool) -> Missing {
    let tokens: Vec<&str> = about.split('.').collect();
    let (chain, subject, stops_items) = match tokens.as_slice() {
        ["pcluster", chain, "in" | "out" | "note"] => (Some(*chain), about.to_owned(), true),
        ["pcluster", chain, kind @ ("log" | "count" | "claim"), ..] => {
            (Some(*chain), format!("pcluster.{chain}.{kind}.>"), false)
        }
        ["pcluster", chain, kind, _, ..] => (Some(*chain), format!("pcluster.{chain}.{kind}.>"), true),
        ["$O", bucket, ..] => match subject::large::parse_bucket(bucket) {
            Some(chain) => (Some(chain), format!("$O.{bucket}.>"), true),
            None => (None, about.to_owned(), false),
        },
        ["$JS", "ACK", stream, ..] => match subject::parse_work_stream(stream) {
            Some(chain) => (Some(chain), format!("$JS.ACK.{stream}.>"), true),
            None => (None, "$JS.ACK.>".to_owned(), true),
        },
        ["$JS", "API", "CONSUMER", "MSG", "NEXT", ..] => (None, "$JS.API.CONSUMER.MSG.NEXT.>".to_owned(), false),
        ["$JS", "API", kind, what, _, ..] => (None, format!("$JS.API.{kind}.{what}.>"), false),
        ["_INBOX", ..] => (None, "_INBOX.>".to_owned(), false),
        _ => (None, about.to_owned(), false),
    };
    Missing { chain: chain.map(str::to_owned), to_subscribe, subject, stops_items }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_the_pattern_that_must_be_allowed() {
        let table = [
            (r#"Permissions Violation for Publish to "pcluster.a.out""#, Some("a"), "pcluster.a.out", true),
            (r#"Permissions Violation for Publish to "pcluster.a.work.1.s""#, Some("a"), "pcluster.a.work.>", true),
            (
                r#"Permissions Violation for Publish to "pcluster.a.retry.1.s.7-0""#,
                Some("a"),
                "pcluster.a.retry.>",
                true,
            ),
            (r#"Permissions Violation for Publish to "pcluster.a.dead.s""#, Some("a"), "pcluster.a.dead.>", true),
            (
                r#"Permissions Violation for Publish to "$O.pcluster_large_a.R.01J.work-7""#,
                Some("a"),
                "$O.pcluster_large_a.>",
                true,
            ),
            (r#"Permissions Violation for Publish to "pcluster.a.log.s.info""#, Some("a"), "pcluster.a.log.>", false),
            (
                r#"Permissions Violation for Publish to "pcluster.a.count.1.s.done""#,
                Some("a"),
                "pcluster.a.count.>",
                false,
            ),
            (
                r#"Permissions Violation for Publish to "pcluster.a.claim.1.s.work.X""#,
                Some("a"),
                "pcluster.a.claim.>",
                false,
            ),
            (
                r#"Permissions Violation for Publish to "$JS.ACK.PCLUSTER_a.r1_s.1.2.3.4.5""#,
                Some("a"),
                "$JS.ACK.PCLUSTER_a.>",
                true,
            ),
            (
                r#"Permissions Violation for Publish to "$JS.API.STREAM.INFO.PCLUSTER_a""#,
                None,
                "$JS.API.STREAM.INFO.>",
                false,
            ),
            (r#"Permissions Violation for Subscription to "_INBOX.x.y""#, None, "_INBOX.>", false),
        ];
        for (said, chain, subject, stops_items) in table {
            let permissions = Permissions::default();
            assert!(permissions.note(said) && permissions.note(said), "{said}");
            let missing: Vec<Missing> = permissions.missing().into_iter().collect();
            assert_eq!(missing.len(), 1, "{said}");
            assert_eq!((missing[0].chain.as_deref(), missing[0].subject.as_str()), (chain, subject), "{said}");
            assert_eq!(missing[0].stops_items, stops_items, "{said}");
        }
        assert!(!Permissions::default().note("Stale Connection"));
    }

    #[test]
    fn a_refusal_explains_only_what_it_is_about() {
        let permissions = Permissions::default();
        permissions.note(r#"Permissions Violation for Publish to "pcluster.a.log.s.info""#);
        assert_eq!(permissions.take_refusal("pcluster.a.out"), None);
        assert!(permissions.take_refusal("pcluster.a.log.s.info").is_some());
        assert_eq!(permissions.take_refusal("pcluster.a.log.s.info"), None);
        permissions.note(r#"Permissions Violation for Subscription to "_INBOX.x""#);
        assert!(permissions.take_refusal("pcluster.a.out").is_some());
    }
}
