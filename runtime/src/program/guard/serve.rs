//! The process of the guard. It has one thread, and is small, so that its forks cost little.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, setsid, wait};

use super::message::{self, Event};
use super::pass::receive;
use super::{shepherd, system, tree};

/// How often the guard looks for shepherds that have ended.
const LOOK: Duration = Duration::from_secs(1);
/// How soon the guard looks again after it has ended processes without a shepherd: each makes its children the guard's.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Serves as a guard until the node has gone and all programs have ended.
pub(crate) fn serve(requests: OwnedFd) -> io::Result<()> {
    // The signals of a terminal or a service manager are for the node, which ends its programs in order.
    let _ = setsid();
    system::ignore_requests_to_end();
    set_child_subreaper(Some(getpid()))?;
    let mut shepherds = Vec::new();
    loop {
        let wait = match (reap(&mut shepherds), shepherds.is_empty()) {
            (Orphans::Ended, _) => Some(LOOK_AGAIN),
            (Orphans::None, false) => Some(LOOK),
            (Orphans::None, true) => None,
        };
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut ready = [PollFd::new(&requests, PollFlags::IN)];
        match poll(&mut ready, wait.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let (bytes, controls) = receive(requests.as_fd(), &mut [0])?;
        if bytes == 0 {
            break;
        }
        // Without it, too many files are open here. Its end tells the node.
        let Some(control) = controls.into_iter().next() else { continue };
        match system::fork() {
            Ok(Some(shepherd)) => shepherds.push(shepherd),
            Ok(None) => {
                drop(requests);
                // A panic must not run the guard's code again.
                let run = std::panic::AssertUnwindSafe(|| shepherd::run(control));
                let is_well = matches!(std::panic::catch_unwind(run), Ok(Ok(())));
                std::process::exit(i32::from(!is_well));
            }
            Err(error) => {
                let refused = Event::Refused { errno: error.raw_os_error().unwrap_or_default() };
                let _ = message::write(std::fs::File::from(control), &refused);
            }
        }
    }
    drop(requests);
    // The shepherds have lost the node too, and end what they have.
    while reap(&mut shepherds) == Orphans::Ended || !shepherds.is_empty() {
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Processes that have lost their shepherd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphans {
    /// There are none.
    None,
    /// There were some, and they were ended.
    Ended,
}

/// Takes note of ended processes, ends those that have lost their shepherd, and lets stopped shepherds go on.
fn reap(shepherds: &mut Vec<Pid>) -> Orphans {
    while let Ok(Some((ended, _))) = wait(WaitOptions::NOHANG) {
        shepherds.retain(|shepherd| *shepherd != ended);
    }
    let mut orphans = Orphans::None;
    for child in tree::children() {
        if shepherds.contains(&child) {
            // A program may have stopped its shepherd, which must follow orders.
            let _ = kill_process(child, Signal::CONT);
        } else {
            let _ = kill_process(child, Signal::KILL);
            orphans = Orphans::Ended;
        }
    }
    orphans
}
