//! Messages of foreign clients that no connection of this node can bring, because the client library cannot read them: each
//! becomes a dead letter.

use std::time::{Duration, Instant};

use super::letter::Letter;
use super::outcome::Hop;
use super::taken::frame_id_of;
use crate::broker::BrokerError;
use crate::broker::unread::{Look, Unread};
use crate::engine::task::{Failure, FailureKind};
use crate::frame::header;
use crate::subject::{self, Lane};

/// The longest that messages which were handed out are looked at in one go. Thousands may be in hand or wait for their back-off.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that cannot be read.
    Sound,
    /// A message that cannot be read; it is a dead letter now.
    Unread,
}

impl Hop {
    /// Looks at what was handed out of a lane when the line broke, and buries what cannot be read. `looked` is the place up to which everything was looked at. Waits until the server is there.
    pub(super) async fn look_at_handed_out(&self, lane: Lane, looked: &mut u64) -> Result<Found, BrokerError> {
        let _ = self.broker.connected().wait_for(|connected| *connected).await;
        // Behind another connection there may be another stream.
        self.key.renew(&self.broker, &self.chain.name).await?;
        let stream = subject::work_stream(&self.chain.name);
        let reach = self.broker.reach(&stream, &lane.consumer(self.revision, &self.stage().name)).await?;
        *looked = (*looked).max(reach.acknowledged);
        let (begun, mut found) = (Instant::now(), Found::Sound);
        while *looked < reach.handed_out && begun.elapsed() < LOOK_MAX {
            match self.look_ahead(lane, looked).await? {
                Some(Found::Unread) => found = Found::Unread,
                Some(Found::Sound) => {}
                None => break,
            }
        }
        Ok(found)
    }

    /// Looks at the next message of a lane, and buries it if it cannot be read. `None`: there is none. If this fails or is dropped,
    /// the message is looked at again.
    pub(super) async fn look_ahead(&self, lane: Lane, looked: &mut u64) -> Result<Option<Found>, BrokerError> {
        let stream = subject::work_stream(&self.chain.name);
        let patterns = lane.filters(self.is_limited(), &self.chain.name, self.revision, &self.stage().name);
        match self.broker.look(&stream, &patterns, *looked).await? {
            Look::Nothing => Ok(None),
            Look::Readable(place) => {
                *looked = place;
                Ok(Some(Found::Sound))
            }
            Look::Unread(unread) => {
                let place = unread.sequence;
                self.bury_unread(*unread, &stream).await?;
                *looked = place;
                Ok(Some(Found::Unread))
            }
        }
    }

    /// Stores the letter first: its key lets the server drop what another node stores, or this one after it was killed.
    async fn bury_unread(&self, unread: Unread, stream: &str) -> Result<(), BrokerError> {
        let Unread { sequence, stored_millis, fault, headers: all, payload } = unread;
        let failure = Failure::fatal(FailureKind::Undecodable, fault);
        let id = all.get(header::ID).or_else(|| all.get_exact(header::MESSAGE_ID));
        let mut headers = all.inherited();
        headers.push(header::ID, frame_id_of(id, stored_millis, sequence, self.position == 0).as_str());
        if let Some(text) = all.get(header::CONTENT_TYPE) {
            headers.push(header::CONTENT_TYPE, text);
        }
        let letter = self.letter(Letter {
            message_id: self.message_id(sequence, 0),
            headers,
            payload,
            attempt: 1,
            history: &[],
            failure: &failure,
        });
        let (chain, stage, reason) = (&self.chain.name, &self.stage().name, &failure.reason);
        if let Err(error) = self.store_each(&[letter]).await {
            tracing::error!(%chain, %stage, sequence, %error, "a dead letter cannot be stored; the item stays in its queue");
            return Err(BrokerError::other(format!("store the dead letter of message {sequence}"), &error));
        }
        if self.broker.remove_kept(stream, sequence).await? {
            self.count_failed(1);
            tracing::debug!(%chain, %stage, sequence, reason, "a message that no node can take is a dead letter");
        }
        Ok(())
    }
}
