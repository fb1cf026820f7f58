//! The reply subject of a delivered message, which carries its metadata.

/// The metadata of a delivered message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) delivered: u64,
    pub(super) sequence: u64,
    pub(super) order: u64,
    pub(super) stored_nanos: u64,
    pub(super) pending: u64,
}

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or the same with
    /// `<domain>.<account>` before the stream and more tokens at the end (NATS ADR-15).
    pub(super) fn parse(reply: &str) -> Option<Self> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let last_before = match tokens.clone().count() {
            7 => 1,
            9.. => 3,
            _ => return None,
        };
        tokens.nth(last_before)?;
        let mut number = || tokens.next()?.parse().ok();
        Some(Self {
            delivered: number()?,
            sequence: number()?,
            order: number()?,
            stored_nanos: number()?,
            pending: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_subject_are_read() {
        let stored_nanos = 1_700_000_000_000_000_000;
        let place = Some(Place { delivered: 2, sequence: 40, order: 41, stored_nanos, pending: 7 });
        assert_eq!(Place::parse("$JS.ACK.PCLUSTER_a.r1_s.2.40.41.1700000000000000000.7"), place);
        assert_eq!(Place::parse("$JS.ACK.hub.hash.PCLUSTER_a.r1_s.2.40.41.1700000000000000000.7.x"), place);
        assert_eq!(Place::parse("$JS.ACK.a.b"), None);
        assert_eq!(Place::parse("_INBOX.a"), None);
    }
}
