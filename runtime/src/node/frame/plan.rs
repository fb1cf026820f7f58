//! Plans what a frame leaves behind: which outputs go on, in which messages, and which items are requeued together.
//!
//! Pure: sizes in, a plan out. A plan never has more messages than one atomic batch takes, requeues included. Each item of the
//! frame is in exactly one of its parts. [`super::outputs`] makes the messages.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::run::output::{NewTopic, Slice};

/// The most items of a message. Then each item can be requeued by itself, and the batch still has room for outputs.
pub(crate) const FRAME_ITEMS: usize = 900;

/// The bounds of the messages of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The most messages of an atomic batch. More than a frame has items.
    pub(crate) batch: usize,
    /// The most messages of outputs in a batch, at least 1. The next queue takes no more at once.
    pub(crate) outputs: usize,
    /// The most items of a message.
    pub(crate) items: usize,
    /// The most bytes of a message of several items.
    pub(crate) bytes: usize,
    /// The most that is requeued as one message.
    pub(crate) piece: Piece,
}

/// The most that is requeued as one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The most items, at least 1.
    pub(crate) items: usize,
    /// The most bytes. A single item may have more.
    pub(crate) bytes: usize,
}

/// Outputs of one item in one message: the position of the item, and the range of its outputs.
pub(crate) type Share = (usize, Range<usize>);

/// What a frame leaves behind. Its messages are first the shares that they hold, and then the messages themselves.
#[derive(Debug, Default)]
pub(crate) struct Plan<Message = Vec<Share>> {
    /// Messages of outputs that are stored before all others, each by itself. Only a frame of one item has any.
    pub(crate) streamed: Vec<Message>,
    /// Messages of outputs that are stored together.
    pub(crate) outputs: Vec<Message>,
    /// Items that ended well. Their outputs are in the messages.
    pub(crate) kept: Vec<usize>,
    /// Items to run each in a frame of its own.
    pub(crate) deferred: Vec<usize>,
    /// Items to run again, in pieces.
    pub(crate) rest: Vec<Vec<usize>>,
}

impl Plan {
    /// Plans for a frame whose items have these `sizes`. `done` are the outputs of items that ended well, by position. `failed`
    /// items are requeued by the caller, `deferred` items run each in a frame of its own.
    ///
    /// `failed` and `deferred` hold no position twice, and share none with `done`.
    pub(crate) fn new(
        sizes: &[usize],
        done: &[(usize, Slice<'_>)],
        failed: &[usize],
        mut deferred: Vec<usize>,
        bounds: &Bounds,
    ) -> Self {
        deferred.sort_unstable();
        if sizes.len() == 1 {
            return Self::of_one(done, deferred, failed.is_empty(), bounds);
        }
        let mut single = vec![false; sizes.len()];
        for position in failed.iter().chain(&deferred) {
            single[*position] = true;
        }
        let is_open = |position: &usize| !single[*position];
        let mut open: Vec<usize> = (0..sizes.len()).filter(is_open).collect();
        let singles = sizes.len() - open.len();
        // All outputs, if they fit beside the items that have not run.
        let mut has_run = vec![false; sizes.len()];
        for (position, _) in done {
            has_run[*position] = true;
        }
        let rest: Vec<usize> = open.iter().copied().filter(|position| !has_run[*position]).collect();
        let pieces = bounds.piece.cut(&rest, sizes);
        let mut packing = Packing::new(bounds, bounds.batch.saturating_sub(singles + pieces.len()));
        if done.iter().all(|(position, outputs)| packing.add(*position, *outputs)) {
            return Self { deferred, ..packing.into_plan(pieces) };
        }
        // The first outputs that fit, beside room for all other items.
        let room = |open: &[usize]| {
            let singles = sizes.len() - open.len();
            bounds.batch.saturating_sub(singles + bounds.piece.cut(open, sizes).len())
        };
        let mut packing = Packing::new(bounds, room(&open));
        for (position, outputs) in done {
            if !packing.add(*position, *outputs) && packing.kept.is_empty() {
                deferred.push(*position);
                open.retain(|each| each != position);
                packing = Packing::new(bounds, room(&open));
            }
        }
        let mut has_message = vec![false; sizes.len()];
        for position in &packing.kept {
            has_message[*position] = true;
        }
        open.retain(|position| !has_message[*position]);
        deferred.sort_unstable();
        Self { deferred, ..packing.into_plan(bounds.piece.cut(&open, sizes)) }
    }

    /// Plans for a single item. All of its outputs must go on, so those that the next queue cannot take at once are streamed
    /// ahead.
    fn of_one(done: &[(usize, Slice<'_>)], deferred: Vec<usize>, is_open: bool, bounds: &Bounds) -> Self {
        let unbounded = Bounds { outputs: usize::MAX, ..*bounds };
        let mut packing = Packing::new(&unbounded, usize::MAX);
        for (position, outputs) in done {
            packing.add(*position, *outputs);
        }
        let is_rest = is_open && done.is_empty() && deferred.is_empty();
        let mut plan = Self { deferred, ..packing.into_plan(if is_rest { vec![vec![0]] } else { Vec::new() }) };
        if plan.outputs.len() > bounds.outputs.min(bounds.batch) {
            let last = plan.outputs.split_off(plan.outputs.len() - 1);
            plan.streamed = std::mem::replace(&mut plan.outputs, last);
        }
        plan
    }
}

impl Piece {
    /// Returns the pieces of a frame of this many items (`frame`) and `bytes`, cut into about `items` each, few enough for a
    /// batch.
    ///
    /// A frame with more items than one batch of full messages holds is cut into as few parts as can be cut further.
    pub(crate) fn new(items: usize, frame: usize, bytes: usize) -> Self {
        const BATCH_ITEMS: usize = FRAME_ITEMS * FRAME_ITEMS;
        let items = if frame > BATCH_ITEMS {
            frame.div_ceil(frame.div_ceil(BATCH_ITEMS))
        } else {
            items.min(FRAME_ITEMS).max(frame.div_ceil(FRAME_ITEMS)).max(1)
        };
        Self { items, bytes }
    }

    /// Cuts positions into pieces. No cut has fewer pieces, so a part of the positions never needs more than all of them.
    pub(crate) fn cut(&self, positions: &[usize], sizes: &[usize]) -> Vec<Vec<usize>> {
        let (mut pieces, mut bytes) = (Vec::<Vec<usize>>::new(), 0);
        for position in positions {
            let size = sizes[*position];
            match pieces.last_mut() {
                Some(piece) if piece.len() < self.items && bytes + size <= self.bytes => {
                    piece.push(*position);
                    bytes += size;
                }
                _ => {
                    pieces.push(vec![*position]);
                    bytes = size;
                }
            }
        }
        pieces
    }
}

/// Outputs on their way into messages.
struct Packing<'a> {
    bounds: &'a Bounds,
    /// The most messages.
    room: usize,
    messages: Vec<Vec<Share>>,
    kept: Vec<usize>,
    /// The message that takes more outputs. `None` before the first.
    open: Option<Open>,
    /// The messages that take more outputs that have another topic than their frame, by topic.
    others: BTreeMap<NewTopic, Open>,
}

/// A message that takes more outputs.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// Its number.
    message: usize,
    items: usize,
    bytes: usize,
}

/// What to go back to if there is no room for all outputs of an item.
struct Before {
    messages: usize,
    open: Option<Open>,
    /// The number of shares of the open message.
    shares: usize,
    others: BTreeMap<NewTopic, Open>,
    /// The number of shares of each of the others.
    of_others: Vec<(usize, usize)>,
}

impl<'a> Packing<'a> {
    fn new(bounds: &'a Bounds, room: usize) -> Self {
        let (open, others) = (None, BTreeMap::new());
        Self { bounds, room: room.min(bounds.outputs), messages: Vec::new(), kept: Vec::new(), open, others }
    }

    /// Adds the outputs of an item. Returns `false` and adds nothing if there is no room for all of them.
    fn add(&mut self, position: usize, outputs: Slice<'_>) -> bool {
        let before = self.before();
        let has_topics = outputs.has_topics();
        for (number, item) in outputs.items().enumerate() {
            let topic = if has_topics { outputs.topic(number) } else { None };
            let open = topic.map_or(self.open, |topic| self.others.get(topic).copied());
            let fits = |open: &Open| {
                open.items < self.bounds.items && (open.items == 0 || open.bytes + item.len() <= self.bounds.bytes)
            };
            let mut open = match open.filter(fits) {
                Some(open) => open,
                None if self.messages.len() == self.room => {
                    self.undo(before);
                    return false;
                }
                None => {
                    self.messages.push(Vec::new());
                    Open { message: self.messages.len() - 1, items: 0, bytes: 0 }
                }
            };
            (open.items, open.bytes) = (open.items + 1, open.bytes + item.len());
            let shares = &mut self.messages[open.message];
            match shares.last_mut() {
                Some((same, range)) if *same == position && range.end == number => range.end = number + 1,
                _ => shares.push((position, number..number + 1)),
            }
            match topic {
                None => self.open = Some(open),
                Some(topic) => drop(self.others.insert(topic.clone(), open)),
            }
        }
        self.kept.push(position);
        true
    }

    fn before(&self) -> Before {
        let shares = |open: &Open| self.messages[open.message].len();
        Before {
            messages: self.messages.len(),
            open: self.open,
            shares: self.open.as_ref().map_or(0, shares),
            others: self.others.clone(),
            of_others: self.others.values().map(|open| (open.message, shares(open))).collect(),
        }
    }

    fn undo(&mut self, before: Before) {
        self.messages.truncate(before.messages);
        let own = before.open.map(|open| (open.message, before.shares));
        for (message, shares) in own.into_iter().chain(before.of_others) {
            self.messages[message].truncate(shares);
        }
        (self.open, self.others) = (before.open, before.others);
    }

    fn into_plan(self, rest: Vec<Vec<usize>>) -> Plan {
        Plan { outputs: self.messages, kept: self.kept, rest, ..Plan::default() }
    }
}

pub(crate) fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
