//! The slots of a lane's requests: a lane requests items only while it holds the slots that they need.
//!
//! A lane with a request keeps slots from others, though nothing may come. So it requests only stored messages while another lane
//! in line likely has an item, and waits for new ones only for a moment while others may have one. A lane that gets nothing rests
//! before it joins the line again. If another lane likely has an item while a request stands, the lane gives up the slots of the
//! request. An item that still comes by it joins the line, and goes back if its turn is not soon.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::broker::service;
use crate::broker::streams::ChainStreams;
use crate::name::Digest;
use crate::node::hop::Hop;
use crate::slots::{Chance, SlotNeeds, SlotSet, Ticket};
use crate::subject::Lane;

/// How long a request stands while nobody waits for its slots.
const STANDS: Duration = Duration::from_millis(250);
/// How long the requests of all lanes in line stand together.
const ROUND: Duration = Duration::from_millis(200);
/// How long a request stands at least while other lanes wait that may have no items, for each item that may run at once. So the
/// lanes of a node without items send a hundred requests a second together, however many they are.
const STANDS_LEAST: Duration = Duration::from_millis(10);
/// The first and the longest rest of a lane that got nothing while others had items.
const REST: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];
/// The rest of a lane that got nothing while other lanes wait, none of which likely has items. Retried items wait longer anyway.
const REST_OF_RETRY: Duration = Duration::from_millis(100);
const REST_OF_QUARANTINE: Duration = Duration::from_millis(500);
/// How often an overtaken lane asks the server whether it has items.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long nodes may take to answer the roll call.
const ROLL_CALL: Duration = Duration::from_secs(1);
/// How much longer each node than the one before lets others overtake an item that one of them alone can run.
const APART: Duration = Duration::from_secs(30);

/// The slots of a lane's requests. Without needs it allows everything.
pub(crate) struct LaneSlots {
    hop: Arc<Hop>,
    lane: Lane,
    needs: Option<SlotNeeds>,
    /// Slots for requested items that have yet to come.
    held: Vec<SlotSet>,
    ticket: Option<Ticket>,
    pause: Option<Pin<Box<Sleep>>>,
    rest: Duration,
    /// `true` if the last request has brought an item.
    brought: bool,
    /// `true` if a request is open.
    is_open: bool,
    /// `true` if the open request is for stored messages alone.
    is_brief: bool,
    /// Changes when others want the slots of the open request.
    wanted: Option<watch::Receiver<()>>,
    /// Since when other lanes overtake this one.
    overtaken: Option<Instant>,
    /// Finds out whether other lanes may overtake this one no longer.
    asking: Option<BoxFuture<'static, bool>>,
}

impl LaneSlots {
    pub(crate) fn new(hop: &Arc<Hop>, lane: Lane) -> Self {
        Self {
            wanted: hop.limit.needs().map(|needs| needs.slots.wanted()),
            // Parked frames do not run.
            needs: hop.limit.needs().filter(|_| lane != Lane::Parked).cloned(),
            hop: Arc::clone(hop),
            lane,
            held: Vec::new(),
            ticket: None,
            pause: None,
            rest: Duration::ZERO,
            brought: false,
            is_open: false,
            is_brief: false,
            overtaken: None,
            asking: None,
        }
    }

    /// Returns `true` if items need slots.
    pub(crate) fn are_needed(&self) -> bool {
        self.needs.is_some()
    }

    /// Notes how many requested items have yet to come. Once there are none, the slots of the request are given back.
    pub(crate) fn expect(&mut self, demand: u64) {
        if demand > 0 || !std::mem::take(&mut self.is_open) {
            return;
        }
        self.held.clear();
        if self.brought {
            self.rest = Duration::ZERO;
        } else if self.is_brief {
            self.rest = (self.rest * 2).clamp(REST[0], REST[1]);
            self.pause = Some(Box::pin(tokio::time::sleep(self.rest)));
        } else if self.needs.as_ref().is_some_and(|needs| needs.slots.waiting().0 > 0) {
            let rest = match self.lane {
                Lane::Retry => REST_OF_RETRY,
                Lane::Quarantine => REST_OF_QUARANTINE,
                Lane::Work | Lane::Parked => return,
            };
            self.pause = Some(Box::pin(tokio::time::sleep(rest)));
        }
    }

    /// Returns how many of `more` frames the lane may request while `demand` are requested. Waits in line for the others.
    pub(crate) fn allow(&mut self, more: u64, demand: u64) -> u64 {
        let Some(SlotNeeds { slots, needs }) = &self.needs else { return more };
        if demand > 0 {
            // One request at a time: the turn of a lane ends with its request.
            self.leave_line();
            return 0;
        }
        let (wanted, ahead) = match self.lane {
            Lane::Quarantine => (more, 0),
            _ => self.hop.limit.needing_slots(more),
        };
        let is_resting = self.pause.is_some();
        let wanted = if is_resting { 0 } else { usize::try_from(wanted).unwrap_or(usize::MAX) };
        self.held.truncate(wanted);
        while self.held.len() < wanted {
            let Some(set) = slots.try_take(needs) else { break };
            self.held.push(set);
        }
        if self.held.len() >= wanted {
            self.leave_line();
        } else if self.ticket.is_none() {
            let chance = if self.brought { Chance::Likely } else { Chance::Unknown };
            self.ticket = Some(slots.join(needs, chance));
        }
        let ahead = if is_resting { 0 } else { ahead };
        (self.held.len() as u64 + ahead).min(more)
    }

    /// Returns how long a request may stand that is about to be sent. `None` if slots do not matter.
    pub(crate) fn request(&mut self) -> Option<Duration> {
        let slots = &self.needs.as_ref()?.slots;
        if let Some(wanted) = &mut self.wanted {
            // First, so that whoever joins the line from now on is noticed one way or the other.
            wanted.mark_unchanged();
        }
        let stands = match slots.waiting() {
            (0, _) => STANDS,
            (_, true) => Duration::ZERO,
            (waiting, false) => {
                let at_once = u32::try_from(self.hop.limit.concurrency()).unwrap_or(u32::MAX);
                let part = ROUND / u32::try_from(waiting + 1).unwrap_or(u32::MAX);
                part.max(STANDS_LEAST.saturating_mul(at_once)).min(STANDS)
            }
        };
        if !self.is_open {
            self.brought = false;
        }
        (self.is_open, self.is_brief) = (true, stands.is_zero());
        Some(stands)
    }

    /// Takes the slots of an item that has come.
    pub(crate) fn take(&mut self) -> Option<SlotSet> {
        self.brought = true;
        self.held.pop().map(SlotSet::used)
    }

    /// Gives back all slots, and leaves the line, because the lane cannot request now.
    pub(crate) fn give_back(&mut self) {
        if !self.is_open {
            self.held.clear();
        }
        self.leave_line();
    }

    /// Waits until the lane may be allowed more. May be dropped and called again.
    pub(crate) async fn changed(&mut self) {
        if let Some(pause) = &mut self.pause {
            pause.await;
            self.pause = None;
            return;
        }
        let Some(ticket) = &mut self.ticket else {
            if let Some(wanted) = &mut self.wanted
                && self.is_open
                && !self.is_brief
                && !self.held.is_empty()
                && wanted.changed().await.is_ok()
            {
                self.held.clear();
                return;
            }
            return std::future::pending().await;
        };
        let overtaken = ticket.overtaken();
        loop {
            let asking = async {
                match &mut self.asking {
                    Some(asking) => asking.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                set = ticket.granted() => {
                    self.held.push(set);
                    return self.leave_line();
                }
                holds_back = asking => {
                    self.asking = None;
                    if holds_back {
                        ticket.hold_back();
                    } else {
                        self.asking = self.overtaken.map(|since| ask(&self.hop, self.lane, since));
                    }
                }
                () = overtaken.notified(), if self.overtaken.is_none() => {
                    let now = Instant::now();
                    self.overtaken = Some(now);
                    self.asking = Some(ask(&self.hop, self.lane, now));
                }
            }
        }
    }

    fn leave_line(&mut self) {
        (self.ticket, self.overtaken, self.asking) = (None, None, None);
    }
}

/// Asks after a moment whether a lane, overtaken `since` then, must be overtaken no longer.
fn ask(hop: &Arc<Hop>, lane: Lane, since: Instant) -> BoxFuture<'static, bool> {
    let hop = Arc::clone(hop);
    async move {
        tokio::time::sleep(ASK_EVERY).await;
        let (route, stage) = (&hop.route, &hop.stage().name);
        let streams = ChainStreams::of(&hop.broker, &route.chain.name);
        let Ok(info) = streams.consumer_info(route.revision, stage, lane).await else { return false };
        if info.queued == 0 {
            return false;
        }
        let nodes = service::incarnations(&hop.broker, |_| false, ROLL_CALL).await.unwrap_or_default();
        let place = place(&route.incarnation, nodes.iter().map(String::as_str), stage.as_str());
        is_due(place, info.queued, since.elapsed())
    }
    .boxed()
}

/// Returns the place of a node among all, in an order of this stage's own.
fn place<'a>(own: &str, nodes: impl Iterator<Item = &'a str>, stage: &str) -> u64 {
    let order = |node: &str| Digest::of(format!("{stage} {node}").as_bytes()).as_hex().to_owned();
    let own_order = order(own);
    nodes.filter(|node| *node != own && order(node) < own_order).count() as u64
}

/// Returns `true` if a node at this place must keep slots for one of the `queued` items: not all nodes do for the same item.
fn is_due(place: u64, queued: u64, waited: Duration) -> bool {
    place < queued || waited >= APART.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_keeps_slots_for_one_item_and_the_others_only_if_it_waits_on() {
        let nodes = ["a", "b", "c", "d"];
        let mut places: Vec<u64> = nodes.iter().map(|own| place(own, nodes.into_iter(), "s")).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3]);
        assert_eq!(place("new", nodes.into_iter().filter(|_| false), "s"), 0, "a node that hears nobody");
        let waited = Duration::from_secs(1);
        assert!(is_due(0, 1, waited) && !is_due(1, 1, waited) && is_due(1, 2, waited));
        assert!(is_due(1, 1, APART) && !is_due(2, 1, APART) && is_due(2, 1, APART * 2));
    }
}
