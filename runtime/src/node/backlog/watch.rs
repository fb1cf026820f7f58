//! Reads from the server how much is requeued.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::broker::info::ConsumerInfo as Lanes;
use crate::broker::streams::ChainStreams;
use crate::node::hop::Hop;
use crate::subject::Lane;

/// How often to read that, while anything is requeued.
const LOOK: Duration = Duration::from_millis(250);

/// Keeps the backlog of a hop up to date, forever.
pub async fn watch(hop: Arc<Hop>) {
    let streams = ChainStreams::of(&hop.broker, &hop.route.chain.name);
    loop {
        tokio::time::sleep(LOOK).await;
        if hop.is_limited() && !hop.moved.is_empty() {
            let line = streams.consumer_info(hop.route.revision, &hop.stage().name, Lane::Work).await;
            hop.moved.seen(line.ok().map(|line| line.queued));
        }
        if hop.backlog.messages.load(Relaxed) == 0 {
            continue;
        }
        let mut answers = Vec::new();
        for &lane in Lane::served(hop.is_limited()).iter().filter(|lane| **lane != Lane::Work) {
            let answer = streams.consumer_info(hop.route.revision, &hop.stage().name, lane).await;
            if let Err(error) = &answer {
                tracing::debug!(%error, "how much is put back is not known; what was known stays");
            }
            answers.push(answer);
        }
        if let Some(messages) = total(&answers) {
            hop.backlog.seen(messages);
        }
    }
}

/// Returns how much all lanes hold together. `None` unless each has answered.
fn total<E>(answers: &[Result<Lanes, E>]) -> Option<u64> {
    answers.iter().map(|answer| answer.as_ref().ok().map(|lane| lane.queued + lane.running)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_without_an_answer_does_not_count_as_empty() {
        let holds = |queued, running| Ok(Lanes { queued, running });
        assert_eq!(total::<()>(&[holds(3, 1), holds(2, 0)]), Some(6));
        assert_eq!(total::<()>(&[]), Some(0));
        for answers in [[Err(()), holds(2, 0)], [holds(2, 0), Err(())], [Err(()), Err(())]] {
            assert_eq!(total(&answers), None);
        }
    }
}
