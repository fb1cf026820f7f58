//! Calls of the system that the libraries have no safe form of.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::Pid;

/// The flag of a process that begins in a cgroup.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The arguments of the system's call that makes a process.
#[derive(Default)]
#[repr(C)]
struct Clone {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a process. Returns its id, or `None` in the new process. Only for a process of one thread.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    #[expect(unsafe_code, reason = "the standard library has no fork; with one thread, the memory is whole")]
    let id = unsafe { libc::fork() };
    forked(id.into())
}

/// Makes a process in this cgroup, as [`fork`] does. A process that joins a cgroup later waits for milliseconds.
pub(crate) fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    let cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    let exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
    let clone = Clone { flags: INTO_CGROUP, exit_signal, cgroup, ..Clone::default() };
    #[expect(unsafe_code, reason = "the standard library has no fork; with one thread, the memory is whole")]
    let id = unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of::<Clone>()) };
    forked(id)
}

fn forked(id: i64) -> io::Result<Option<Pid>> {
    match i32::try_from(id) {
        Ok(id @ 0..) => Ok(Pid::from_raw(id)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process without what a program does at its end.
pub(crate) fn exit_at_once() -> ! {
    #[expect(unsafe_code, reason = "the standard library has no form without the handlers of an end")]
    unsafe {
        libc::_exit(1)
    }
}

/// Ignores the signals that ask a process to end.
pub(crate) fn ignore_requests_to_end() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        set(signal, libc::SIG_IGN);
    }
}

/// Closes all descriptors but the three streams when the next program is executed. Makes one system call, so it may run after a
/// fork.
pub(crate) fn close_on_execute() {
    #[expect(unsafe_code, reason = "no library has a safe form of this system call; nothing is closed yet")]
    unsafe {
        // Systems without the call close what the standard library and this program have opened.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Gives all signals their default disposition, and blocks none. Makes system calls only, so it may run after a fork.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        set(signal, libc::SIG_DFL);
    }
    #[expect(unsafe_code, reason = "the standard library has no safe form of these system calls")]
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

fn set(signal: i32, disposition: libc::sighandler_t) {
    #[expect(unsafe_code, reason = "the standard library has no safe form of this system call; no handler is set")]
    unsafe {
        libc::signal(signal, disposition);
    }
}
