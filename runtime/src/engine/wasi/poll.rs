//! `poll_oneoff`: how a guest sleeps.

use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{Caller, Linker};

use super::super::host::{Host, parts};
use super::super::limits::OutOfTime;
use super::{Answer, Guest, INVALID, MODULE, answer};

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        MODULE,
        "poll_oneoff",
        |mut caller: Caller<'_, Host>, (subscriptions, events, count, written): (i32, i32, i32, i32)| {
            Box::new(async move {
                let wait = {
                    let (memory, host) = parts(&mut caller, "poll_oneoff")?;
                    match wait_of(&Guest(memory), host, subscriptions, count) {
                        Ok(wait) => wait,
                        Err(number) => return Ok(number),
                    }
                };
                sleep(wait, caller.data().deadline).await?;
                answer(&mut caller, "poll_oneoff", |guest, host| {
                    report(guest, host, subscriptions, events, count, written, wait)
                })
            })
        },
    )?;
    Ok(())
}

/// Waits, but no longer than the guest has time. A sleeping guest holds no thread: this is where it waits.
async fn sleep(wait: Duration, deadline: Option<Instant>) -> Result<(), OutOfTime> {
    let sleeping = tokio::time::sleep(wait);
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, sleeping).await.map_err(|_| OutOfTime)?,
        None => sleeping.await,
    }
    Ok(())
}

/// A subscription's layout: user data at 0, kind at 8; of a clock its id at 16, time at 24, flags at 40.
const SUBSCRIPTION: usize = 48;
/// An event's layout: user data at 0, error at 8, kind at 10.
const EVENT: usize = 32;
const KIND_CLOCK: u8 = 0;
const KIND_READ: u8 = 1;
const KIND_WRITE: u8 = 2;
/// The time of a clock subscription is a point, not a length.
const ABSOLUTE: u16 = 1;

/// How long a subscription has to wait; `Err` inside if it can never be.
fn wait_of_one(guest: &Guest<'_>, host: &mut Host, subscription: i32, at: usize) -> Answer<Duration> {
    match guest.read::<1>(subscription, at + 8)?[0] {
        KIND_CLOCK => {
            let clock = guest.read_i32(subscription, at + 16)?;
            let time = u64::from_le_bytes(guest.read(subscription, at + 24)?);
            let flags = u16::from_le_bytes(guest.read(subscription, at + 40)?);
            let now = host.clock(clock).ok_or(INVALID)?;
            Ok(Duration::from_nanos(if flags & ABSOLUTE == 0 { time } else { time.saturating_sub(now) }))
        }
        KIND_READ | KIND_WRITE => Ok(Duration::ZERO),
        _ => Err(INVALID),
    }
}

fn wait_of(guest: &Guest<'_>, host: &mut Host, subscriptions: i32, count: i32) -> Answer<Duration> {
    let count = count.cast_unsigned() as usize;
    let waits = (0..count).map(|position| wait_of_one(guest, host, subscriptions, position * SUBSCRIPTION));
    // Nothing to wait for would be to wait forever.
    waits.collect::<Answer<Vec<_>>>()?.into_iter().min().ok_or(INVALID)
}

/// Writes the events of the subscriptions that are due after a wait.
fn report(
    guest: &mut Guest<'_>,
    host: &mut Host,
    subscriptions: i32,
    events: i32,
    count: i32,
    written: i32,
    waited: Duration,
) -> Answer<()> {
    let mut due = 0;
    for position in 0..count.cast_unsigned() as usize {
        let at = position * SUBSCRIPTION;
        let kind = guest.read::<1>(subscriptions, at + 8)?[0];
        let flags = u16::from_le_bytes(guest.read(subscriptions, at + 40)?);
        let left = wait_of_one(guest, host, subscriptions, at)?;
        let is_due = if kind == KIND_CLOCK && flags & ABSOLUTE == 0 { left <= waited } else { left.is_zero() };
        if is_due {
            let mut event = [0; EVENT];
            event[..8].copy_from_slice(&guest.read::<8>(subscriptions, at)?);
            event[10] = kind;
            guest.write(events, due * EVENT, &event)?;
            due += 1;
        }
    }
    guest.write_len(written, due)
}
