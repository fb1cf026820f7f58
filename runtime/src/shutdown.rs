//! Signals that stop the process. One handler serves the whole process. It has a thread of its own, so a blocked task does not
//! delay a signal.
//!
//! A signal that the process was started to ignore stays ignored, such as SIGHUP with `nohup`.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The time until a command is ended that should end itself.
const AT_ONCE: Duration = Duration::from_millis(500);
/// The number that shells add to a signal's number. The sum is the exit status.
const BY_SIGNAL: u8 = 128;

/// A signal that stops the process, with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The terminal was closed.
    HangUp = 1,
    /// Ctrl-C.
    Interrupt = 2,
    /// The signal that service managers send.
    Terminate = 15,
}

/// How a command reacts to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The command ends at once, because it has nothing to finish.
    AtOnce,
    /// The command finishes the work in hand. A second signal ends it at once.
    InOrder,
}

static TOLD: OnceLock<watch::Sender<Option<Signal>>> = OnceLock::new();

impl Signal {
    const ALL: [Self; 3] = [Self::HangUp, Self::Interrupt, Self::Terminate];

    /// Returns the exit status after this signal: 128 and its number, as in shells.
    pub const fn status(self) -> u8 {
        BY_SIGNAL + self as u8
    }

    /// Returns the bit of the signal in a set of signals.
    const fn mask(self) -> u64 {
        1 << (self as u8 - 1)
    }

    fn end(self) -> ! {
        std::process::exit(self.status().into())
    }
}

/// Begins to listen for signals. Only the first call has an effect.
pub fn listen(ending: Ending) {
    told(ending);
}

/// Waits for the first signal. Returns at once if it has come before.
pub async fn requested() -> Signal {
    let mut told = told(Ending::InOrder).subscribe();
    let signal = told.wait_for(Option::is_some).await.map(|signal| *signal);
    match signal {
        Ok(Some(signal)) => signal,
        // The sender is never dropped.
        _ => std::future::pending().await,
    }
}

fn told(ending: Ending) -> &'static watch::Sender<Option<Signal>> {
    TOLD.get_or_init(|| {
        let told = watch::Sender::new(None);
        let teller = told.clone();
        let started = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(hear(ending, &teller)),
                Err(error) => tracing::error!(%error, "cannot listen for signals"),
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "cannot listen for signals");
        }
        told
    })
}

async fn hear(ending: Ending, told: &watch::Sender<Option<Signal>>) {
    let ignored = ignored();
    let (sender, mut signals) = tokio::sync::mpsc::unbounded_channel();
    for each in Signal::ALL.into_iter().filter(|each| ignored & each.mask() == 0) {
        match signal(SignalKind::from_raw(each as i32)) {
            Ok(mut listener) => {
                let sender = sender.clone();
                tokio::spawn(async move { while listener.recv().await.is_some() && sender.send(each).is_ok() {} });
            }
            Err(error) => tracing::error!(%error, "cannot listen for {each:?}"),
        }
    }
    let Some(first) = signals.recv().await else { return };
    told.send_replace(Some(first));
    let too_long = async {
        match ending {
            Ending::AtOnce => tokio::time::sleep(AT_ONCE).await,
            Ending::InOrder => std::future::pending().await,
        }
    };
    tokio::select! {
        second = signals.recv() => second.unwrap_or(first).end(),
        () = too_long => first.end(),
    }
}

/// Returns the signals that this process ignores, by their bits. Returns 0 if the system does not report them.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(ignored_in).unwrap_or(0)
}

fn ignored_in(line: &str) -> Option<u64> {
    u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_the_status_that_shells_give_it() {
        assert_eq!(Signal::ALL.map(Signal::status), [129, 130, 143]);
    }

    #[test]
    fn ignored_signals_are_read_from_the_status_of_the_process() {
        let ignored = ignored_in("SigIgn:\t0000000000001001").expect("a set");
        assert_ne!(ignored & Signal::HangUp.mask(), 0);
        assert_eq!(ignored & Signal::Interrupt.mask(), 0);
        assert_eq!(ignored_in("SigCgt:\t0000000000001001"), None);
    }
}
