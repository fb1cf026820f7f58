//! Large items of a frame that runs: fetched before an item runs, and stored after it has.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use pcluster_abi::Level;
use tokio::sync::OwnedMutexGuard;

use super::running::Running;
use super::walked::{Walked, check_accepted};
use crate::frame::large::Reference;
use crate::node::large::keep::{Origin, Unkept, Waits};
use crate::node::runner::Runner;
use crate::run::budget::Reservation;
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::{ItemBytes, ItemFile};
use crate::run::output::{FrameOutputs, Given, Outputs};

/// An item to run, with the memory that is counted for it.
pub(crate) struct Input {
    /// The item.
    pub(crate) item: ItemBytes,
    /// Released once the item has run. `None` if its bytes are in the message.
    pub(crate) memory: Option<ItemMemory>,
}

/// The memory of a large item. Released on drop.
pub(crate) struct ItemMemory {
    _counted: Reservation,
    /// Kept if the item exceeds the budget: other items of its frame that would too wait for its end.
    _alone: Option<OwnedMutexGuard<()>>,
}

impl Running {
    /// Fetches a large item.
    pub(super) async fn large_input(&self, reference: Reference) -> Result<Input, Failure> {
        let memory = self.room_for(&reference).await?;
        match (self.hop.large.open(&reference).await?, &self.hop.task) {
            (ItemBytes::File(file), Runner::Task(_)) => {
                let item = whole(file).await?;
                self.hop.accepts().map_or(Ok(()), |accepts| check_accepted(accepts, &item))?;
                Ok(Input { item: item.into(), memory })
            }
            (item, _) => Ok(Input { item, memory }),
        }
    }

    /// Waits for memory for a large item. `None` if its runner reads it from a file.
    async fn room_for(&self, reference: &Reference) -> Result<Option<ItemMemory>, Failure> {
        let Runner::Task(task) = &self.hop.task else { return Ok(None) };
        let size = reference.item_size();
        check_memory(size, self.hop.stage().memory)?;
        let (budget, after) = (task.budget(), task.after());
        let mut alone = None;
        if !budget.has_room(after, size) {
            alone = Some(Arc::clone(&self.exceeding).lock_owned().await);
        }
        let mut counted = budget.reserve(0);
        let active = budget.begin(after, size, &mut counted, Some(&self.memory)).await;
        let exceeds = active.exceeds();
        // Only the bytes stay counted: the item itself begins where it runs.
        drop(active);
        if !exceeds {
            alone = None;
        } else if alone.is_none() {
            alone = Some(Arc::clone(&self.exceeding).lock_owned().await);
        }
        Ok(Some(ItemMemory { _counted: counted, _alone: alone }))
    }

    /// Makes references of the large outputs of items that have ended since the outputs had this many bytes. An item whose outputs
    /// cannot be stored fails.
    pub(super) async fn keep_outputs(&self, outputs: &mut FrameOutputs, before: usize) {
        let run = outputs.bytes().saturating_sub(before);
        if run > self.most || outputs.has_files() {
            self.keep_large(outputs, run).boxed().await;
        }
    }

    async fn keep_large(&self, outputs: &mut FrameOutputs, run: usize) {
        let before = outputs.bytes();
        if let Err(failure) = self.stream_before_last(outputs).await {
            *outputs = FrameOutputs::default();
            self.fail(0, failure, |level, entry| self.log_of(0, level, entry));
            return self.ungather(before, run);
        }
        let keeping = self.hop.large.keep_frame(outputs, |position| self.origin(position));
        let unkept = match self.slots.as_ref().and_then(Weak::upgrade) {
            Some(slots) => slots.lend_while(keeping).await,
            None => keeping.await,
        };
        for (position, unkept) in unkept {
            self.settle_unkept(position, unkept);
        }
        self.ungather(before.saturating_sub(outputs.bytes()), run);
    }

    /// Fails or defers an item whose outputs are not kept.
    fn settle_unkept(&self, position: usize, unkept: Unkept) {
        match unkept {
            Unkept::Failed(failure) => {
                self.fail(position, failure, |level, entry| self.log_of(position, level, entry));
            }
            Unkept::NoRoom(failure) => {
                self.stopped.store(true, Relaxed);
                // Beside others it has not waited yet.
                if self.is_single() {
                    self.log_of(position, Level::Warn, format!("waits: {}", failure.reason));
                }
                self.defer(position);
            }
        }
    }

    /// Stores the outputs of an ended single item before its last large one, if room is limited.
    ///
    /// Each must be able to go on before the next gets room.
    async fn stream_before_last(&self, outputs: &mut FrameOutputs) -> Result<(), Failure> {
        if !self.is_single() || !self.hop.large.is_limited() || outputs.ended() == 0 {
            return Ok(());
        }
        let mut all = std::mem::take(outputs).into_outputs();
        let Some(last) = self.cuts(&all).last().copied() else {
            *outputs = (0, all).into();
            return Ok(());
        };
        for size in all.all().given().filter_map(|output| self.size_of_large(&output)) {
            self.hop.large.check(size, &self.origin(0)).await?;
        }
        let rest = all.split_off(last);
        *outputs = (0, rest).into();
        self.stream_outputs(all).await
    }

    /// Cuts outputs into parts of one large output at most, if room is limited.
    ///
    /// The cuts depend on the outputs alone, so another run of the item makes the same messages.
    pub(super) fn parts(&self, mut outputs: Outputs) -> Vec<Outputs> {
        let cuts = if self.hop.large.is_limited() { self.cuts(&outputs) } else { Vec::new() };
        let mut parts: Vec<Outputs> = cuts.into_iter().rev().map(|cut| outputs.split_off(cut)).collect();
        parts.push(outputs);
        parts.reverse();
        parts
    }

    /// Returns the numbers of the outputs that parts begin with.
    ///
    /// Each follows a large output, and has another large one behind it or is large itself.
    fn cuts(&self, outputs: &Outputs) -> Vec<usize> {
        let large = outputs.all().given().map(|output| self.size_of_large(&output));
        let mut cuts: Vec<usize> = (1..).zip(large).filter_map(|(next, large)| large.map(|_| next)).collect();
        cuts.pop();
        cuts
    }

    /// Returns the size of an output that no message holds. `None` for others.
    fn size_of_large(&self, output: &Given<'_>) -> Option<u64> {
        let size = match output {
            Given::Whole(bytes) => bytes.len() as u64,
            Given::File(file) => file.item_size(),
            Given::Reference(_) => return None,
        };
        (size > self.most as u64).then_some(size)
    }

    /// Returns outputs of an item that still runs, with references to the large ones.
    pub(super) async fn keep_streamed(&self, outputs: Outputs) -> Result<Outputs, Failure> {
        if outputs.bytes() <= self.most && !outputs.has_files() {
            return Ok(outputs);
        }
        // The frame has a single item.
        let keeping = self.hop.large.keep_outputs(outputs, self.origin(0));
        let kept = match self.slots.as_ref().and_then(Weak::upgrade) {
            Some(slots) => slots.lend_while(keeping).await,
            None => keeping.await,
        };
        kept.map_err(|unkept| {
            let (Unkept::Failed(failure) | Unkept::NoRoom(failure)) = &unkept;
            let failure = failure.clone();
            // A deferred item fails no more.
            if matches!(unkept, Unkept::NoRoom(_)) {
                self.settle_unkept(0, unkept);
            }
            failure
        })
    }

    fn origin(&self, position: usize) -> Origin {
        Origin {
            sequence: self.inbound.sequence,
            input: self.inbound.reference(position),
            most: self.most,
            waits: match self.streamed.load(Relaxed) {
                _ if !self.is_single() => Waits::No,
                0 => Waits::AWhile,
                _ => Waits::On,
            },
        }
    }
}

/// Returns the item of a file in memory.
async fn whole(file: ItemFile) -> Result<Bytes, Failure> {
    let read = tokio::task::spawn_blocking(move || file.read()).await.map_err(std::io::Error::other).flatten();
    read.map_err(|error| {
        Failure::transient(FailureKind::Node, format!("the file of a large item cannot be read: {error}"))
    })
}

/// Fails if an item is larger than the memory of its stage.
fn check_memory(size: u64, memory: u64) -> Result<(), Failure> {
    if size <= memory {
        return Ok(());
    }
    let shown = bytesize::ByteSize(memory).display().iec();
    let reason = format!(
        "the item of {size} bytes is larger than the stage's memory of {shown} ({memory} bytes); give it more with `memory`"
    );
    Err(Failure::fatal(FailureKind::Memory, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_beyond_the_memory_of_its_stage_fails_for_good_with_both_sizes() {
        assert_eq!(check_memory(10, 10), Ok(()));
        let failure = check_memory(2 << 20, 1 << 20).expect_err("too large");
        assert!(failure.fatal && failure.kind == FailureKind::Memory);
        assert!(failure.reason.contains("2097152") && failure.reason.contains("1048576"), "{}", failure.reason);
    }
}
