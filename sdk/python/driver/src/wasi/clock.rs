//! Clocks, timers and random bytes.

use core::cell::Cell;

use super::{handle, put};
use crate::python::malloc;

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: i32, precision: i64, time: *mut u64) -> i32;
    fn random_get(pointer: *mut u8, length: usize) -> i32;
    fn poll_oneoff(subscriptions: *const [u64; 6], events: *mut [u64; 4], count: i32, written: *mut u32) -> i32;
}

const REALTIME: i32 = 0;
const MONOTONIC: i32 = 1;
/// In nanoseconds, as nodes offer it.
const RESOLUTION: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// The most timers at once. More share the last place.
const TIMERS: usize = 16;
/// A place without a timer.
const FREE: u64 = u64::MAX;

/// When each timer is due.
struct Timers([Cell<u64>; TIMERS]);

// SAFETY: there is one thread.
unsafe impl Sync for Timers {}

static DUE: Timers = Timers([const { Cell::new(FREE) }; TIMERS]);

fn time(clock: i32) -> u64 {
    let mut time = 0;
    unsafe { clock_time_get(clock, 1, &mut time) };
    time
}

fn timer(pollable: i32) -> Option<&'static Cell<u64>> {
    usize::try_from(pollable - handle::TIMER).ok().and_then(|place| DUE.0.get(place))
}

/// Returns when a pollable is ready. Zero if it is already.
fn due(pollable: i32) -> u64 {
    timer(pollable).map_or(0, Cell::get)
}

fn wait_until(time: u64) {
    // The kind (a clock) at 8, the clock at 16, the time at 24, its precision at 32, and at 40 that the time is absolute.
    let subscription = [0, 0, MONOTONIC as u64, time, 0, 1];
    let (mut event, mut written) = ([0; 4], 0);
    unsafe { poll_oneoff(&subscription, &mut event, 1, &mut written) };
}

#[unsafe(export_name = "wasi:clocks/wall-clock/now")]
unsafe extern "C" fn wall_now(result: *mut u8) {
    let time = time(REALTIME);
    unsafe {
        put(result, 0, time / SECOND);
        put(result, 8, (time % SECOND) as u32);
    }
}

#[unsafe(export_name = "wasi:clocks/wall-clock/resolution")]
unsafe extern "C" fn wall_resolution(result: *mut u8) {
    unsafe {
        put(result, 0, 0_u64);
        put(result, 8, RESOLUTION as u32);
    }
}

#[unsafe(export_name = "wasi:clocks/monotonic-clock/now")]
extern "C" fn now() -> u64 {
    time(MONOTONIC)
}

#[unsafe(export_name = "wasi:clocks/monotonic-clock/resolution")]
extern "C" fn resolution() -> u64 {
    RESOLUTION
}

#[unsafe(export_name = "wasi:clocks/monotonic-clock/subscribe-instant")]
extern "C" fn subscribe_instant(time: u64) -> i32 {
    let place = DUE.0.iter().position(|due| due.get() == FREE).unwrap_or(TIMERS - 1);
    if let Some(due) = DUE.0.get(place) {
        due.set(time.min(FREE - 1));
    }
    handle::TIMER + place as i32
}

#[unsafe(export_name = "wasi:clocks/monotonic-clock/subscribe-duration")]
extern "C" fn subscribe_duration(duration: u64) -> i32 {
    subscribe_instant(now().saturating_add(duration))
}

#[unsafe(export_name = "wasi:io/poll/[method]pollable.block")]
extern "C" fn block(pollable: i32) {
    let due = due(pollable);
    if due > 0 {
        wait_until(due);
    }
}

#[unsafe(export_name = "wasi:io/poll/[method]pollable.ready")]
extern "C" fn ready(pollable: i32) -> i32 {
    i32::from(due(pollable) <= now())
}

#[unsafe(export_name = "wasi:io/poll/poll")]
unsafe extern "C" fn poll(list: *const i32, length: usize, result: *mut u8) {
    let list = unsafe { core::slice::from_raw_parts(list, length) };
    let first = list.iter().map(|pollable| due(*pollable)).min().unwrap_or(0);
    if first > 0 {
        wait_until(first);
    }
    unsafe {
        let found = malloc(4 * length.max(1)).cast::<u32>();
        let mut count = 0;
        for (index, _) in (0_u32..).zip(list).filter(|(_, pollable)| due(**pollable) <= first) {
            found.add(count).write(index);
            count += 1;
        }
        put(result, 0, found);
        put(result, 4, count);
    }
}

/// Drops a resource of any kind. Only timers take a place.
#[unsafe(export_name = "resource-drop")]
extern "C" fn resource_drop(resource: i32) {
    if let Some(due) = timer(resource) {
        due.set(FREE);
    }
}

#[unsafe(export_name = "wasi:random/random/get-random-bytes")]
unsafe extern "C" fn random_bytes(length: u64, result: *mut u8) {
    unsafe {
        let bytes = malloc((length as usize).max(1));
        random_get(bytes, length as usize);
        put(result, 0, bytes);
        put(result, 4, length as u32);
    }
}
