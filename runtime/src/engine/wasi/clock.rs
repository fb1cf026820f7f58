//! The clocks of a guest. They are coarse, so that a guest cannot measure how its neighbors load the machine.

use std::time::{Instant, SystemTime};

use wasmtime::{Caller, Linker};

use super::super::host::Host;
use super::state::Wasi;
use super::{INVALID, MODULE, answer};

/// The resolution of the clocks in nanoseconds.
const RESOLUTION: u64 = 1_000_000;

const REALTIME: i32 = 0;
const MONOTONIC: i32 = 1;

impl Wasi {
    /// Returns the time since the instance first asked, and a tick. The machine's uptime stays hidden. Without the tick, the first
    /// time would be zero, with which Go's runtime refuses to start.
    fn monotonic(&mut self) -> u64 {
        let elapsed = self.started.get_or_insert_with(Instant::now).elapsed();
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).saturating_add(RESOLUTION)
    }

    /// Returns the time of a clock in nanoseconds. `None` if guests have no such clock.
    pub(super) fn time(&mut self, clock: i32) -> Option<u64> {
        self.is_worldly = true;
        let nanos = match clock {
            REALTIME => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
            }
            MONOTONIC => self.monotonic(),
            _ => return None,
        };
        Some(nanos / RESOLUTION * RESOLUTION)
    }
}

/// Returns the first time on a clock that is not before this.
pub(super) fn shown_from(time: u64) -> u64 {
    time.checked_next_multiple_of(RESOLUTION).unwrap_or(u64::MAX)
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "clock_res_get", |mut caller: Caller<'_, Host>, clock: i32, pointer: i32| {
        answer(&mut caller, "clock_res_get", |guest, host| {
            host.wasi.time(clock).ok_or(INVALID)?;
            guest.write(pointer, 0, &RESOLUTION.to_le_bytes())
        })
    })?;
    linker.func_wrap(MODULE, "clock_time_get", |mut caller: Caller<'_, Host>, clock: i32, _: i64, pointer: i32| {
        answer(&mut caller, "clock_time_get", |guest, host| {
            let time = host.wasi.time(clock).ok_or(INVALID)?;
            guest.write(pointer, 0, &time.to_le_bytes())
        })
    })?;
    Ok(())
}
