//! What the end of a program means for its item.

use std::collections::BTreeSet;
use std::time::Duration;

use super::guard::message::{Ended, Exceeded, Status};

/// The status from which on a shell or launcher tells that a signal has ended what it ran.
const BY_SIGNAL: i32 = 128;

/// Why this node has ended a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The item took longer than its timeout.
    Timeout(Duration),
    /// The outputs of the item take more bytes than they may.
    Outputs(u64),
}

/// What has become of an item whose program has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done.
    Done,
    /// It has failed; another attempt may succeed unless it is `fatal`.
    Failed {
        /// The kind of failure.
        kind: Kind,
        /// The reason in words.
        reason: String,
        /// `true` if another attempt cannot succeed.
        fatal: bool,
    },
}

/// The kind of an item's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The program has told a failure.
    Error,
    /// A signal has ended the program.
    Signal,
    /// The item took longer than its timeout.
    Timeout,
    /// The program took more memory than its limit.
    Memory,
    /// The outputs exceed their limit.
    Output,
}

/// Returns the outcome of an item. `permanent` holds the statuses after which it fails for good, and `ending` is set if this node has
/// ended the program.
pub(crate) fn outcome(ended: &Ended, ending: Option<Ending>, permanent: &BTreeSet<u8>) -> Outcome {
    let is_permanent = |status: i32| u8::try_from(status).is_ok_and(|status| permanent.contains(&status));
    let (kind, reason, fatal) = match (ending, ended.exceeded, ended.status) {
        // Whatever status it returns then: it was not done in time.
        (Some(Ending::Timeout(timeout)), ..) => {
            let timeout = humantime::format_duration(timeout);
            (Kind::Timeout, format!("the program took longer than its timeout of {timeout}"), false)
        }
        (Some(Ending::Outputs(most)), ..) => {
            let most = bytesize::ByteSize(most);
            (Kind::Output, format!("the program wrote more than the {most} that the outputs of an item may take"), true)
        }
        (None, Some(Exceeded::Memory(bytes)), _) => {
            let bytes = bytesize::ByteSize(bytes);
            (
                Kind::Memory,
                format!("the program and what it started took {bytes}, more than its `memory`; this node ended it"),
                false,
            )
        }
        (None, Some(Exceeded::Processes(count)), _) => (
            Kind::Error,
            format!("the program started {count} processes and threads, more than a program may; this node ended it"),
            false,
        ),
        (None, Some(Exceeded::Folder(bytes)), _) => {
            let bytes = bytesize::ByteSize(bytes);
            (
                Kind::Error,
                format!("the program left {bytes} in its working folder, more than a program may; this node ended it"),
                false,
            )
        }
        (None, None, Status::Exit(0)) => return Outcome::Done,
        (None, None, Status::Exit(status)) if is_permanent(status) => {
            (Kind::Error, format!("the program ended with status {status}, which the stage calls permanent"), true)
        }
        (None, None, Status::Exit(status)) if status > BY_SIGNAL && name(status - BY_SIGNAL).is_some() => {
            (Kind::Signal, by_signal(status - BY_SIGNAL, &format!(" (status {status} of what started it)")), false)
        }
        (None, None, Status::Exit(status)) => (Kind::Error, format!("the program ended with status {status}"), false),
        (None, None, Status::Signal(signal)) => (Kind::Signal, by_signal(signal, ""), false),
    };
    Outcome::Failed { kind, reason, fatal }
}

/// Returns the text for a program that a signal has ended. It was none of this node's.
fn by_signal(signal: i32, note: &str) -> String {
    let name = name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
    match signal {
        libc::SIGKILL => format!(
            "the program was killed from outside by SIGKILL{note}: by the system, as it does when memory runs out, or by an operator"
        ),
        libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT => {
            format!("{name} ended the program{note}; this node did not send it")
        }
        libc::SIGXFSZ => format!("{name} ended the program{note}: it wrote to a file more than a program may"),
        _ => format!("{name} ended the program{note}"),
    }
}

/// Returns the name of a signal that ends programs.
fn name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_means_one_thing() {
        let exit = |status| Ended { status: Status::Exit(status), exceeded: None };
        let signal = |signal| Ended { status: Status::Signal(signal), exceeded: None };
        let exceeded = |exceeded| Ended { status: Status::Signal(9), exceeded: Some(exceeded) };
        let timeout = Some(Ending::Timeout(Duration::from_secs(2)));
        let done = Outcome::Done;
        let failed = |kind, reason: &str, fatal| Outcome::Failed { kind, reason: reason.to_owned(), fatal };
        for (ended, ending, expected) in [
            (exit(0), None, done),
            (exit(1), None, failed(Kind::Error, "the program ended with status 1", false)),
            (exit(75), None, failed(Kind::Error, "the program ended with status 75", false)),
            (exit(127), None, failed(Kind::Error, "the program ended with status 127", false)),
            (exit(128), None, failed(Kind::Error, "the program ended with status 128", false)),
            (exit(255), None, failed(Kind::Error, "the program ended with status 255", false)),
            (
                exit(65),
                None,
                failed(Kind::Error, "the program ended with status 65, which the stage calls permanent", true),
            ),
            (exit(139), None, failed(Kind::Signal, "SIGSEGV ended the program (status 139 of what started it)", false)),
            (signal(11), None, failed(Kind::Signal, "SIGSEGV ended the program", false)),
            (signal(40), None, failed(Kind::Signal, "signal 40 ended the program", false)),
            (
                signal(9),
                None,
                failed(
                    Kind::Signal,
                    "the program was killed from outside by SIGKILL: by the system, as it does when memory runs out, or by an \
                     operator",
                    false,
                ),
            ),
            (
                exit(143),
                None,
                failed(
                    Kind::Signal,
                    "SIGTERM ended the program (status 143 of what started it); this node did not send it",
                    false,
                ),
            ),
            (exit(0), timeout, failed(Kind::Timeout, "the program took longer than its timeout of 2s", false)),
            (exit(65), timeout, failed(Kind::Timeout, "the program took longer than its timeout of 2s", false)),
            (signal(9), timeout, failed(Kind::Timeout, "the program took longer than its timeout of 2s", false)),
            (
                signal(15),
                Some(Ending::Outputs(1 << 20)),
                failed(
                    Kind::Output,
                    "the program wrote more than the 1.0 MiB that the outputs of an item may take",
                    true,
                ),
            ),
            (
                exceeded(Exceeded::Memory(64 << 20)),
                None,
                failed(
                    Kind::Memory,
                    "the program and what it started took 64.0 MiB, more than its `memory`; this node ended it",
                    false,
                ),
            ),
        ] {
            assert_eq!(outcome(&ended, ending, &BTreeSet::from([65])), expected, "{ended:?} {ending:?}");
        }
    }
}
