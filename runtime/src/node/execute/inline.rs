//! Inline stages: an item goes through all stages of a hop in one go, with no queue between them.
//!
//! What a stage gives goes on at once, so that no more is held in memory than without inline stages. The item fails as a whole,
//! whichever of the stages fails. Here it goes by itself; `together` takes several items of a frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pcluster_abi::Level;
use tokio::sync::Mutex;

use crate::engine::budget::Growing;
use crate::engine::call::{Call, ItemSource};
use crate::engine::failure::Failure;
use crate::engine::output::{FrameOutputs, Outputs};
use crate::name::StageName;
use crate::node::execute::running::Running;

/// An item of a frame on its way through the stages of a hop.
struct Passing {
    running: Arc<Running>,
    position: usize,
    /// What the last stage has given.
    given: Mutex<Outputs>,
}

/// An execution of one of the stages.
struct Step {
    passing: Arc<Passing>,
    /// The stage's place in the hop.
    stage: usize,
    id: String,
    /// How many outputs have gone on.
    gone: AtomicUsize,
}

/// Runs an item of a frame through all stages of the hop, and adds what the last gives to `given`. A hop of one stage may run
/// others of the frame's items in the same go.
pub(crate) async fn run(
    running: &Arc<Running>,
    position: usize,
    given: &mut FrameOutputs,
) -> Result<(), (usize, Failure)> {
    let hop = running.hop();
    let item = running.item(position);
    if hop.inline.is_empty() {
        let call = Call { source: Arc::clone(running) as Arc<dyn ItemSource>, position };
        return hop.task.run_all(item, call, running.instances(0), given).await;
    }
    let began = Instant::now();
    let passed = pass(running, position, item).await.map_err(|failure| (position, failure))?;
    given.append(passed.all());
    given.end(position);
    running.ended(passed.bytes() as u64, began, Instant::now());
    Ok(())
}

async fn pass(running: &Arc<Running>, position: usize, item: Bytes) -> Result<Outputs, Failure> {
    let hop = running.hop();
    let passing = Arc::new(Passing { running: Arc::clone(running), position, given: Mutex::default() });
    let step = Arc::new(Step { stage: 0, id: running.id(position), gone: AtomicUsize::new(0), passing });
    let call = Call { source: Arc::clone(&step) as Arc<dyn ItemSource>, position };
    let outputs = hop.task.run(item, call, running.instances(0)).await?;
    step.go_on(outputs).await?;
    Ok(std::mem::take(&mut *step.passing.given.lock().await))
}

impl Step {
    /// Runs what a stage has given through the stages after it.
    fn go_on(&self, outputs: Outputs) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let passing = &self.passing;
            let Some(next) = passing.running.hop().inline.get(self.stage) else {
                return passing.give(&outputs).await;
            };
            for item in outputs.into_items() {
                let number = self.gone.fetch_add(1, Relaxed);
                let step = Arc::new(Self {
                    passing: Arc::clone(passing),
                    stage: self.stage + 1,
                    id: format!("{}.{number}", self.id),
                    gone: AtomicUsize::new(0),
                });
                let running = next.stats.run();
                let call = Call { source: Arc::clone(&step) as Arc<dyn ItemSource>, position: passing.position };
                let ran = next.task.run(item, call, passing.running.instances(step.stage)).await;
                let outputs = ran.map_err(|failure| within(&next.name, failure))?;
                drop(running);
                next.stats.done.fetch_add(1, Relaxed);
                step.go_on(outputs).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

impl Passing {
    /// Takes what the last stage has given, and hands it on when it becomes too much to hold.
    async fn give(&self, outputs: &Outputs) -> Result<(), Failure> {
        let mut given = self.given.lock().await;
        given.append(outputs.all());
        if !given.all().is_full() {
            return Ok(());
        }
        let full = std::mem::take(&mut *given);
        self.running.stream_outputs(full).await
    }
}

impl ItemSource for Step {
    fn id(&self, _: usize) -> String {
        self.id.clone()
    }

    fn attempt(&self) -> u64 {
        self.passing.running.attempt()
    }

    fn log(&self, position: usize, level: Level, line: String) {
        match self.stage.checked_sub(1).and_then(|stage| self.passing.running.hop().inline.get(stage)) {
            Some(stage) => stage.logs.log(&self.id, level, line),
            None => self.passing.running.log(position, level, line),
        }
    }

    fn memory(&self) -> Option<Arc<Growing>> {
        self.passing.running.memory()
    }

    fn stream(self: Arc<Self>, position: usize, outputs: Outputs) -> BoxFuture<'static, Result<(), Failure>> {
        async move {
            let running = &self.passing.running;
            let _permit = match self.stage {
                0 => running.keep_instance(position).await.map(|()| None)?,
                stage => Some(running.streaming_permit(stage, position).await?),
            };
            self.go_on(outputs).await
        }
        .boxed()
    }
}

/// A failure of an inline stage.
pub(crate) fn within(stage: &StageName, failure: Failure) -> Failure {
    Failure { reason: format!("inline stage `{stage}`: {}", failure.reason), ..failure }
}
