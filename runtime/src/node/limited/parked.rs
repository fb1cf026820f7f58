//! Items of a limited stage that wait for their back-off.
//!
//! A waiting message would hold one of the few places in flight, so it waits in a lane of its own, whose consumer has room for
//! very many. After the wait, a node moves it to the lane that runs it: it publishes the message there, under a key made of its
//! place in the stream, and then acknowledges it. So it moves once. [`super::moved`] says how many move at a time.

use crate::broker::publish::Published;
use crate::broker::queue::Delivery;
use crate::frame::large::names_in;
use crate::frame::outgoing::Outgoing;
use crate::frame::{Headers, header};
use crate::node::commit::outbox::ServerOutbox;
use crate::node::commit::store_recorded;
use crate::node::frame::source::Source;
use crate::node::hop::Hop;
use crate::subject::Lane;

/// Moves a parked message whose wait is over.
pub(crate) async fn unpark(hop: &Hop, delivery: &Delivery) {
    let moved = Outgoing {
        // The filter of the consumer passes only subjects of this form.
        subject: Lane::unpark(delivery.subject()).unwrap_or_default(),
        message_id: hop.route.message_id(delivery.sequence, 0),
        headers: moved(&delivery.headers()),
        payload: delivery.payload.clone(),
    };
    let source = Source { sequence: delivery.sequence, held: &delivery.held, lane: Lane::Parked };
    let names = names_in(&moved.headers, &moved.payload);
    match store_recorded(&ServerOutbox(hop), &hop.route, source, &[moved]).await {
        Ok(published) => {
            if published == Published::Stored {
                hop.moved.add(1);
            }
            hop.large.acknowledge(delivery, &names, false).await;
        }
        Err(error) => {
            tracing::error!(stage = %hop.stage().name, %error, "an item that has waited cannot be moved; it stays");
            delivery.acker.nak(hop.stage().retry.wait(u32::MAX)).await;
        }
    }
}

/// Returns the headers of a message whose wait is over, without those that the server and the wait added.
fn moved(headers: &Headers) -> Headers {
    const SERVERS: &str = "nats-";
    let is_servers = |name: &str| name.get(..SERVERS.len()).is_some_and(|start| start.eq_ignore_ascii_case(SERVERS));
    let mut moved = Headers::new();
    for (name, value) in headers.iter() {
        if !is_servers(name) && !name.eq_ignore_ascii_case(header::DELAY) {
            moved.push(name.to_owned(), value);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_message_does_not_wait_again_and_is_no_part_of_a_batch() {
        let mut headers = Headers::new();
        for name in ["Nats-Msg-Id", "Nats-Batch-Id", "pcluster-delay", "Pcluster-Attempt", "X-Customer"] {
            headers.push(name, "1");
        }
        let names: Vec<String> = moved(&headers).iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["Pcluster-Attempt", "X-Customer"]);
    }
}
