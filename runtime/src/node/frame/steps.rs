//! Writes the record of steps into the messages that a frame leaves behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::FrameContext;
use super::inbound::InboundFrame;
use super::plan::Share;
use crate::frame::header;
use crate::frame::outgoing::Outgoing;
use crate::frame::steps::{Column, Row, Steps};
use crate::run::failure::Failure;
use crate::subject::Lane;

/// What one item of a stage has taken.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    /// When it began.
    pub(crate) started: Instant,
    /// When it ended, or handed on the outputs that this is for.
    pub(crate) ended: Instant,
    /// The sizes, and the time of calls. `None` unless the chain records all.
    pub(crate) more: Option<More>,
}

/// What a chain records beside times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct More {
    /// The bytes of the item.
    pub(crate) received: u64,
    /// The bytes of its outputs. `None` if it failed, or still runs.
    pub(crate) sent: Option<u64>,
    /// How long its calls took.
    pub(crate) calls: Duration,
    /// The exit status of its program.
    pub(crate) exit: Option<i32>,
}

/// The measures of an output's ancestors in a hop, one for each stage.
pub(crate) type Way = Arc<[Measure]>;

/// A time of the machine, and how it compares with the server's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// The time.
    pub(crate) instant: Instant,
    /// The same, in milliseconds since the Unix epoch, by the machine's clock.
    pub(crate) millis: u64,
    /// How far that clock is ahead of the server's, and how wrong this may be, in milliseconds.
    pub(crate) skew: Option<(i64, u64)>,
}

impl Stamp {
    /// Returns a time in milliseconds since the Unix epoch, by the server's clock as far as it is known.
    fn millis(&self, instant: Instant) -> i64 {
        let signed = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let own = i64::try_from(self.millis).unwrap_or(i64::MAX);
        let own = match instant.checked_duration_since(self.instant) {
            Some(later) => own.saturating_add(signed(later)),
            None => own.saturating_sub(signed(self.instant.saturating_duration_since(instant))),
        };
        own.saturating_sub(self.skew.map_or(0, |(ahead, _)| ahead))
    }
}

/// What the items of a frame have taken.
#[derive(Debug)]
pub(crate) struct Measured {
    /// When the frame began.
    pub(crate) stamp: Stamp,
    /// For each item that has ended well: how many of its outputs in a row have come which way.
    pub(crate) ways: BTreeMap<usize, Vec<(usize, Way)>>,
}

impl Measured {
    /// Returns how many outputs of a share in a row have come which way. `None` if that is unknown of any.
    fn of_share(&self, (position, range): &Share) -> Option<Vec<(usize, &Way)>> {
        let (mut found, mut begin) = (Vec::new(), 0usize);
        for (count, way) in self.ways.get(position)? {
            let end = begin.saturating_add(*count);
            let part = range.start.max(begin)..range.end.min(end);
            if !part.is_empty() {
                found.push((part.len(), way));
            }
            begin = end;
        }
        (begin >= range.end).then_some(found)
    }
}

/// Writes the records of outputs. Each message holds the outputs of its shares. A message without room goes on without a record.
pub(crate) fn write<'a>(
    frame: FrameContext<'_>,
    measured: Option<&Measured>,
    shares: impl Iterator<Item = &'a Vec<Share>>,
    messages: &mut [Outgoing],
) {
    let (Some(measured), Some(before)) = (measured, &frame.inbound.steps) else { return };
    for (message, shares) in messages.iter_mut().zip(shares) {
        let positions: Vec<usize> =
            shares.iter().flat_map(|(position, range)| std::iter::repeat_n(*position, range.len())).collect();
        let mut steps = before.pick(&positions);
        let ways: Option<Vec<_>> = shares.iter().map(|share| measured.of_share(share)).collect();
        let ways: Vec<(usize, &Way)> = ways.unwrap_or_default().into_iter().flatten().collect();
        steps.rows.extend(rows(frame, measured.stamp, &ways));
        steps.queued = None;
        message.headers.push(header::STEPS, steps.to_header());
        if !frame.limits.fits_a_batch(message) {
            message.headers = message.headers.without(&[header::STEPS]);
        }
    }
}

/// Returns the steps of this hop. Each way is that of so many outputs in a row; all have gone through the same stages.
fn rows(frame: FrameContext<'_>, stamp: Stamp, ways: &[(usize, &Way)]) -> Vec<Row> {
    let stages = ways.iter().map(|(_, way)| way.len()).min().unwrap_or(0);
    (0..stages).filter_map(|stage| row(frame, stamp, ways, stage)).collect()
}

fn row(
    FrameContext { inbound, route, .. }: FrameContext<'_>,
    stamp: Stamp,
    ways: &[(usize, &Way)],
    stage: usize,
) -> Option<Row> {
    let column = |number: &dyn Fn(&Measure) -> i64| -> Column {
        ways.iter().flat_map(|(count, way)| std::iter::repeat_n(number(&way[stage]), *count)).collect()
    };
    let optional = |number: &dyn Fn(&Measure) -> Option<i64>| -> Option<Column> {
        let all = ways.iter().map(|(count, way)| Some(std::iter::repeat_n(number(&way[stage])?, *count)));
        Some(all.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
    };
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let queued = inbound.steps.as_ref().and_then(|steps| steps.queued);
    Some(Row {
        stage: route.chain.stages.get(route.position + stage)?.name.to_string(),
        node: route.node.clone(),
        version: route.chain.version.to_string(),
        revision: route.revision.number(),
        attempt: inbound.attempt,
        queued: queued.filter(|_| stage == 0),
        skew: stamp.skew,
        failure: None,
        lines: Vec::new(),
        is_coarse: false,
        started: column(&|measure| stamp.millis(measure.started)),
        ran: column(&|measure| micros(measure.ended.saturating_duration_since(measure.started))),
        received: optional(&|measure| Some(signed(measure.more?.received))),
        sent: optional(&|measure| Some(signed(measure.more?.sent?))),
        calls: optional(&|measure| Some(micros(measure.more?.calls))),
        exit: optional(&|measure| Some(measure.more?.exit?.into())),
    })
}

/// Returns the steps of this hop of an item that has failed on its way.
pub(crate) fn failed(
    frame: FrameContext<'_>,
    stamp: Stamp,
    way: &Way,
    failure: &Failure,
    lines: Vec<String>,
) -> Arc<Vec<Row>> {
    let mut rows = rows(frame, stamp, &[(1, way)]);
    if let Some(last) = rows.last_mut() {
        last.failure = Some(failure.kind.name().to_owned());
        last.lines = lines;
    }
    Arc::new(rows)
}

/// Returns the header of items that are requeued. `failure` is that of their last attempt, if it is not in the record yet. `None` if
/// the chain keeps no records.
pub(crate) fn of_requeued(inbound: &InboundFrame, positions: &[usize], failure: Option<&Failure>) -> Option<String> {
    with_failure(inbound, positions, failure).map(|steps| steps.to_header())
}

/// Returns the header of a dead letter. See [`of_requeued`].
pub(crate) fn of_letter(inbound: &InboundFrame, position: usize, failure: &Failure) -> Option<String> {
    let steps = with_failure(inbound, &[position], Some(failure))?;
    Some(Steps { queued: None, ..steps }.to_header())
}

fn with_failure(inbound: &InboundFrame, positions: &[usize], failure: Option<&Failure>) -> Option<Steps> {
    let mut steps = inbound.steps.as_ref()?.pick(positions);
    if let Some(rows) = failure.and_then(|failure| failure.steps.as_ref()) {
        steps.rows.extend(rows.iter().cloned());
    }
    Some(steps)
}

/// Returns the record of a message that was stored then, by its header. What a feeder has written there means nothing.
pub(crate) fn arrived(header: Option<&str>, items: usize, lane: Lane, is_fed: bool, stored: u64) -> Steps {
    let mut steps = header.filter(|_| !is_fed).and_then(|header| Steps::from_header(header, items)).unwrap_or_default();
    if is_fed {
        steps.fed = Some(stored);
    }
    if lane == Lane::Work || steps.queued.is_none() {
        steps.queued = Some(stored);
    }
    steps
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::Headers;
    use crate::frame::outgoing::MessageLimits;
    use crate::node::frame::holders::Holders;
    use crate::node::frame::testing;
    use crate::run::failure::FailureKind;

    fn measure(stamp: Stamp, after: u64, ran: u64, received: u64) -> Measure {
        let started = stamp.instant + Duration::from_millis(after);
        let more = More { received, sent: Some(2), calls: Duration::ZERO, exit: None };
        Measure { started, ended: started + Duration::from_millis(ran), more: Some(more) }
    }

    fn stamp() -> Stamp {
        Stamp { instant: Instant::now(), millis: 1_000_000, skew: Some((500, 1)) }
    }

    fn message() -> Outgoing {
        Outgoing { subject: "s".to_owned(), message_id: String::new(), headers: Headers::new(), payload: Bytes::new() }
    }

    #[test]
    fn each_output_has_the_steps_of_its_own_ancestors() {
        let (route, stamp) = (testing::route("steps", false), stamp());
        let mut inbound = testing::inbound(0, 0, Holders::default());
        let before = Steps { fed: Some(998_000), queued: Some(999_000), ..Steps::default() };
        inbound.steps = Some(Box::new(before));
        let way =
            |first: u64, second: u64| -> Way { [measure(stamp, first, 1, first), measure(stamp, second, 2, 9)].into() };
        let ways = [(0, vec![(2, way(1, 10)), (3, way(1, 20))]), (2, vec![(usize::MAX, way(5, 30))])];
        let measured = Measured { stamp, ways: ways.into_iter().collect() };
        let frame = FrameContext { inbound: &inbound, route: &route, limits: MessageLimits { max_payload: 1 << 20 } };
        let shares = [vec![(0, 0..1)], vec![(0, 1..5), (2, 0..2)]];
        let mut messages = [message(), message()];
        write(frame, Some(&measured), shares.iter(), &mut messages);
        let read = |message: &Outgoing, items| Steps::from_header(message.headers.get(header::STEPS)?, items);
        let (one, six) = (read(&messages[0], 1).expect("steps"), read(&messages[1], 6).expect("steps"));
        assert_eq!((one.fed, one.queued, one.rows.len()), (Some(998_000), None, 2));
        assert_eq!((one.rows[0].queued, one.rows[1].queued), (Some(999_000), None));
        assert_eq!((one.rows[0].started.get(0), one.rows[1].started.get(0)), (Some(999_501), Some(999_510)));
        assert_eq!(six.rows[1].started, Column::Each(vec![999_510, 999_520, 999_520, 999_520, 999_530, 999_530]));
        assert_eq!(six.rows[0].received, Some(Column::Each(vec![1, 1, 1, 1, 5, 5])));
        assert_eq!((six.rows[0].ran.get(4), six.rows[1].stage.as_str()), (Some(1_000), "second"));
    }

    #[test]
    fn a_message_without_room_goes_on_without_its_record() {
        let route = testing::route("steps", false);
        let mut inbound = testing::inbound(0, 0, Holders::default());
        inbound.steps = Some(Box::default());
        let frame = FrameContext { inbound: &inbound, route: &route, limits: MessageLimits { max_payload: 1_000 } };
        let measured = Measured { stamp: stamp(), ways: BTreeMap::new() };
        let mut messages = [Outgoing { payload: vec![0; 830].into(), ..message() }];
        write(frame, Some(&measured), [vec![(0, 0..1)]].iter(), &mut messages);
        assert_eq!(messages[0].headers.get(header::STEPS), None);
    }

    #[test]
    fn a_failed_attempt_is_a_step_and_only_nodes_may_write_any() {
        let (route, stamp) = (testing::route("steps", false), stamp());
        let mut inbound = testing::inbound(0, 0, Holders::default());
        inbound.steps = Some(Box::new(arrived(Some("AA"), 1, Lane::Work, true, 7)));
        let frame = FrameContext { inbound: &inbound, route: &route, limits: MessageLimits { max_payload: 1 << 20 } };
        let mut failure = Failure::transient(FailureKind::Timeout, "late");
        let way: Way = [measure(stamp, 0, 3, 1)].into();
        failure.steps = Some(failed(frame, stamp, &way, &failure, vec!["a line".to_owned()]));
        let header = of_requeued(&inbound, &[0], Some(&failure)).expect("a record");
        let again = arrived(Some(&header), 1, Lane::Retry, false, 99);
        assert_eq!((again.fed, again.queued, again.rows.len()), (Some(7), Some(7), 1));
        assert_eq!((again.rows[0].failure.as_deref(), again.rows[0].lines.len()), (Some("timeout"), 1));
        let fed = arrived(Some(&header), 1, Lane::Work, true, 99);
        assert_eq!((fed.fed, fed.queued, fed.rows.len()), (Some(99), Some(99), 0));
        let next = arrived(Some("no record"), 1, Lane::Work, false, 99);
        assert_eq!((next.fed, next.queued), (None, Some(99)));
    }
}
