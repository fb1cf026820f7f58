//! `poll_oneoff`, the call by which a guest sleeps.

use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{Caller, Linker};

use super::super::host::{Host, parts};
use super::super::limits::OutOfTime;
use super::clock::shown_from;
use super::{Answer, Guest, INVALID, LIST_MAX, MODULE, answer};

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        MODULE,
        "poll_oneoff",
        |mut caller: Caller<'_, Host>, (subscriptions, events, count, written): (i32, i32, i32, i32)| {
            Box::new(async move {
                let waits = {
                    let (memory, host) = parts(&mut caller, "poll_oneoff")?;
                    match waits(&Guest(memory), host, subscriptions, count) {
                        Ok(waits) => waits,
                        Err(number) => return Ok(number),
                    }
                };
                // Without a subscription the guest would wait forever.
                let Some(&wait) = waits.iter().min() else { return Ok(INVALID) };
                sleep(wait, caller.data().clock.ends()).await?;
                answer(&mut caller, "poll_oneoff", |guest, _| {
                    let due = (0..).zip(&waits).filter(|(_, each)| **each == wait);
                    let due: Vec<usize> = due.map(|(position, _)| position * SUBSCRIPTION).collect();
                    report(guest, subscriptions, events, &due)?;
                    guest.write_len(written, due.len())
                })
            })
        },
    )?;
    Ok(())
}

/// Waits, at most until the guest's time is up. A sleeping guest blocks no thread.
async fn sleep(wait: Duration, deadline: Option<Instant>) -> Result<(), OutOfTime> {
    let sleeping = tokio::time::sleep(wait);
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, sleeping).await.map_err(|_| OutOfTime)?,
        None => sleeping.await,
    }
    Ok(())
}

/// The size of a subscription. User data is at 0 and the kind at 8; a clock's id is at 16, its time at 24, its flags at 40.
const SUBSCRIPTION: usize = 48;
/// The size of an event. User data is at 0, the error at 8, the kind at 10.
const EVENT: usize = 32;
const KIND_CLOCK: u8 = 0;
const KIND_READ: u8 = 1;
const KIND_WRITE: u8 = 2;
/// The flag of a clock subscription to a point in time.
const ABSOLUTE: u16 = 1;

/// Returns how long each subscription waits.
fn waits(guest: &Guest<'_>, host: &mut Host, subscriptions: i32, count: i32) -> Answer<Vec<Duration>> {
    let count = count.cast_unsigned() as usize;
    if count > LIST_MAX {
        return Err(INVALID);
    }
    (0..count).map(|position| wait_of(guest, host, subscriptions, position * SUBSCRIPTION)).collect()
}

fn wait_of(guest: &Guest<'_>, host: &mut Host, subscription: i32, at: usize) -> Answer<Duration> {
    match guest.read::<1>(subscription, at + 8)?[0] {
        KIND_CLOCK => {
            let clock = guest.read_i32(subscription, at + 16)?;
            let time = u64::from_le_bytes(guest.read(subscription, at + 24)?);
            let flags = u16::from_le_bytes(guest.read(subscription, at + 40)?);
            let now = host.wasi.time(clock).ok_or(INVALID)?;
            // A guest that waits for a point in time must see that time on its clock afterward.
            let wait = if flags & ABSOLUTE == 0 { time } else { shown_from(time).saturating_sub(now) };
            Ok(Duration::from_nanos(wait))
        }
        KIND_READ | KIND_WRITE => Ok(Duration::ZERO),
        _ => Err(INVALID),
    }
}

/// Writes an event for each of these subscriptions.
fn report(guest: &mut Guest<'_>, subscriptions: i32, events: i32, due: &[usize]) -> Answer<()> {
    for (&at, position) in due.iter().zip(0..) {
        let mut event = [0; EVENT];
        event[..8].copy_from_slice(&guest.read::<8>(subscriptions, at)?);
        event[10] = guest.read::<1>(subscriptions, at + 8)?[0];
        guest.write(events, position * EVENT, &event)?;
    }
    Ok(())
}
