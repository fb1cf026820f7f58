//! Being told to stop. One handler for the whole process, on a thread of its own: a task that blocks does not keep it from
//! hearing a signal.
//!
//! A signal that the process was started to ignore, as `nohup` does with SIGHUP, stays ignored.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long a command that ends at once may take for that, before the process is ended for it.
const AT_ONCE: Duration = Duration::from_millis(500);
/// What shells add to a signal's number to make an exit status.
const BY_SIGNAL: u8 = 128;

/// A signal that tells a process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The terminal is gone.
    HangUp,
    /// Ctrl-C.
    Interrupt,
    /// What service managers send.
    Terminate,
}

/// How a command ends when it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Where it is: it has nothing to bring to an end.
    AtOnce,
    /// It finishes what it has in hand. A second signal ends it at once.
    InOrder,
}

static TOLD: OnceLock<watch::Sender<Option<Signal>>> = OnceLock::new();

impl Signal {
    const ALL: [Self; 3] = [Self::HangUp, Self::Interrupt, Self::Terminate];

    /// The exit status of a process that it has ended: 128 and its number, as shells have it.
    #[must_use]
    pub const fn status(self) -> u8 {
        BY_SIGNAL + self.number()
    }

    const fn number(self) -> u8 {
        match self {
            Self::HangUp => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    fn end(self) -> ! {
        std::process::exit(self.status().into())
    }
}

/// Listens from now on. Only the first call has an effect.
pub fn listen(ending: Ending) {
    told(ending);
}

/// Waits for the first signal; returns at once if it has come before.
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
        match signal(SignalKind::from_raw(each.number().into())) {
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

impl Signal {
    /// Its bit in a set of signals.
    const fn mask(self) -> u64 {
        1 << (self.number() - 1)
    }
}

/// The signals that this process ignores, by their bits. None where the system does not tell.
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
    fn a_signal_that_is_ignored_is_found_in_what_the_system_tells() {
        let ignored = ignored_in("SigIgn:\t0000000000001001").expect("a set");
        assert_ne!(ignored & Signal::HangUp.mask(), 0);
        assert_eq!(ignored & Signal::Interrupt.mask(), 0);
        assert_eq!(ignored_in("SigCgt:\t0000000000001001"), None);
    }
}
