//! Frames and those that they begin, until there are results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::task::JoinSet;

use super::frame::DeskFrame;
use super::outlet::{Gone, Outlet};
use super::stage::DeskHop;
use super::{Around, Desk, DeskItem, StandIn};
use crate::node::execute::inline;
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::ItemBytes;
use crate::run::output::FrameOutputs;

/// The most items of a frame.
const FRAME_ITEMS: usize = 256;
/// A frame takes no further item once it has this many bytes.
const FRAME_BYTES: usize = 128 << 10;
/// About how long the items of a frame take. So others can take the rest.
const FRAME_TIME: Duration = Duration::from_millis(10);

/// A chain with what it has around it.
pub(crate) type Own<A> = Arc<Desk<Arc<A>>>;

/// Gathers items to frames of a hop, and begins these.
pub(crate) struct Gathering<A: Around> {
    desk: Own<A>,
    hop: usize,
    outlet: Arc<Outlet<A::Output>>,
    items: Vec<DeskItem>,
    bytes: usize,
    frames: JoinSet<Result<(), Gone>>,
}

impl<A: Around> Gathering<A> {
    /// Creates the gathering of the items of a chain, whose results go to `outlet`.
    pub(crate) fn new(desk: Own<A>, outlet: Outlet<A::Output>) -> Self {
        Self::of(desk, 0, Arc::new(outlet))
    }

    fn of(desk: Own<A>, hop: usize, outlet: Arc<Outlet<A::Output>>) -> Self {
        Self { desk, hop, outlet, items: Vec::new(), bytes: 0, frames: JoinSet::new() }
    }

    /// Adds an item. Begins a frame if there are enough of them, and waits until it may.
    ///
    /// # Errors
    ///
    /// If nobody reads the results.
    pub(crate) async fn add(&mut self, item: DeskItem) -> Result<(), Gone> {
        if let ItemBytes::Whole(bytes) = &item.bytes {
            self.bytes += bytes.len();
        }
        self.items.push(item);
        let is_full = self.bytes >= FRAME_BYTES || self.items.len() >= self.size();
        if is_full { self.flush().await } else { Ok(()) }
    }

    /// Returns how many items a frame has: as many as take a moment.
    fn size(&self) -> usize {
        if let Some(stand_in) = self.desk.around.stand_in() {
            return stand_in.frame_items();
        }
        let Some(hop) = self.desk.hops.get(self.hop) else { return FRAME_ITEMS };
        hop.limit.time().map_or(1, |time| {
            let items = FRAME_TIME.as_nanos() / time.as_nanos().max(1);
            usize::try_from(items).unwrap_or(FRAME_ITEMS).clamp(1, FRAME_ITEMS)
        })
    }

    /// Begins a frame of what is there. Of the last hop, the items are results.
    ///
    /// # Errors
    ///
    /// If nobody reads the results.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        let items = std::mem::take(&mut self.items);
        self.bytes = 0;
        if items.is_empty() {
            return Ok(());
        }
        if self.hop == self.desk.hops.len() {
            return self.outlet.give(self.desk.around.results(items)).await;
        }
        let place = self.place().await?;
        let attempt = self.desk.around.stand_in().map_or(1, StandIn::first_attempt);
        self.begin(items, attempt, place).await
    }

    /// Begins a frame.
    async fn begin(
        &mut self,
        items: Vec<DeskItem>,
        attempt: u64,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Gone> {
        let outlet = self.outlet.branch().await?;
        let (desk, hop) = (Arc::clone(&self.desk), self.hop);
        self.frames.spawn_on(
            async move {
                let _place = place;
                run(desk, hop, items, attempt, outlet).await
            },
            &self.desk.executor(),
        );
        Ok(())
    }

    /// Waits for a place among the frames of the hop. A caller without frames needs none, so that the frame whose turn it is can
    /// always go on.
    async fn place(&mut self) -> Result<Option<OwnedSemaphorePermit>, Gone> {
        let places = Arc::clone(&self.desk.hops[self.hop].places);
        loop {
            while let Some(ended) = self.frames.try_join_next() {
                ended.unwrap_or(Err(Gone))?;
            }
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                return Ok(Some(place));
            }
            if self.frames.is_empty() {
                return Ok(None);
            }
            tokio::select! {
                place = Arc::clone(&places).acquire_owned() => return Ok(place.ok()),
                Some(ended) = self.frames.join_next() => ended.unwrap_or(Err(Gone))?,
            }
        }
    }

    /// Returns where the results go.
    pub(super) fn outlet(&self) -> Arc<Outlet<A::Output>> {
        Arc::clone(&self.outlet)
    }

    /// Begins a frame of what is left, and waits until all frames have ended.
    ///
    /// # Errors
    ///
    /// If nobody reads the results.
    pub(crate) async fn finish(&mut self) -> Result<(), Gone> {
        self.flush().await?;
        while let Some(ended) = self.frames.join_next().await {
            ended.unwrap_or(Err(Gone))?;
        }
        Ok(())
    }
}

/// Runs a frame, and the frames of the hops after it.
fn run<A: Around>(
    desk: Own<A>,
    hop: usize,
    items: Vec<DeskItem>,
    attempt: u64,
    outlet: Outlet<A::Output>,
) -> BoxFuture<'static, Result<(), Gone>> {
    async move {
        let outlet = Arc::new(outlet);
        let next = Gathering::of(Arc::clone(&desk), hop + 1, Arc::clone(&outlet));
        let own = &desk.hops[hop];
        let permit = own.limit.take(None).await;
        let slots = permit.slots().cloned();
        let frame = Arc::new(DeskFrame::new(Arc::clone(&desk), hop, items, attempt, next, permit));
        let (mut outputs, started) = (FrameOutputs::default(), Instant::now());
        {
            let _waiting = own.permit().await;
            inline::run(&frame, (0..frame.items.len()).collect(), slots.as_ref(), &mut outputs).await;
        }
        drop(slots);
        let (now, count) = (Instant::now(), u32::try_from(frame.items.len()).unwrap_or(u32::MAX));
        let each = now.saturating_duration_since(started) / count.max(1);
        own.limit.ran(now.checked_sub(each).unwrap_or(started), now);
        frame.release().await;
        settle(&desk, hop, &frame, outputs).await
    }
    .boxed()
}

/// Passes the outputs of a frame's items on in their order, and runs those again that have not ended well.
async fn settle<A: Around>(desk: &Own<A>, hop: usize, frame: &DeskFrame<A>, outputs: FrameOutputs) -> Result<(), Gone> {
    let outlet = Arc::clone(&frame.outlet);
    let mut next = frame.next.lock().await;
    let mut again = Gathering::of(Arc::clone(desk), hop, outlet);
    let mut topics = outputs.topics().into_iter().peekable();
    let mut outputs = outputs.into_items().enumerate().peekable();
    let (mut failures, deferred) = frame.take_outcomes();
    for (position, item) in frame.items.iter().enumerate() {
        let mut number = frame.streamed(position);
        while let Some((output, (_, bytes))) = outputs.next_if(|(_, (of, _))| *of == position) {
            let changed = topics.next_if(|(of, _)| *of == output);
            let topic = changed.map_or_else(|| item.topic.clone(), |(_, topic)| topic);
            next.add(DeskItem { bytes, topic, origin: item.origin.child(number) }).await?;
            number += 1;
        }
        let failed = failures.remove(&position);
        let is_tried_again = deferred.contains(&position)
            || failed.as_ref().is_some_and(|failure| !is_last(&desk.hops[hop], frame.attempt, failure));
        frame.tell(position, is_tried_again);
        if failed.is_none() && !deferred.contains(&position) {
            continue;
        }
        // Results of the items before come first.
        next.flush().await?;
        if let Some(failure) = failed {
            retry(desk, hop, frame, position, failure, &mut again).await?;
        } else {
            let place = again.place().await?;
            again.begin(vec![item.clone()], frame.attempt, place).await?;
        }
    }
    next.finish().await?;
    again.finish().await
}

/// Returns `true` if no attempt follows a failed one.
fn is_last(hop: &DeskHop, attempt: u64, failure: &Failure) -> bool {
    failure.fatal || failure.kind == FailureKind::Node || attempt >= u64::from(hop.retry.attempts)
}

/// Runs a failed item again after its back-off, or takes note that it has failed for good.
async fn retry<A: Around>(
    desk: &Own<A>,
    hop: usize,
    frame: &DeskFrame<A>,
    position: usize,
    failure: Failure,
    again: &mut Gathering<A>,
) -> Result<(), Gone> {
    let (own, item) = (&desk.hops[hop], &frame.items[position]);
    if is_last(own, frame.attempt, &failure) {
        let stage = &own.stages[frame.failed_stage(position)].name;
        desk.around.failed(stage, item, frame.attempt, failure);
        return Ok(());
    }
    let failed = u32::try_from(frame.attempt).unwrap_or(u32::MAX);
    let wait = failure.retry_after.unwrap_or_else(|| own.retry.wait(failed));
    let wait = if desk.around.stand_in().is_some() { Duration::ZERO } else { wait };
    let (desk, item, attempt) = (Arc::clone(desk), item.clone(), frame.attempt + 1);
    let outlet = again.outlet.branch().await?;
    let executor = desk.executor();
    again.frames.spawn_on(
        async move {
            {
                let _waiting: Option<SemaphorePermit<'_>> = desk.retries.acquire().await.ok();
                tokio::time::sleep(wait).await;
            }
            run(desk, hop, vec![item], attempt, outlet).await
        },
        &executor,
    );
    Ok(())
}
