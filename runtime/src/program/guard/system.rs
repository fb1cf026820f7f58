//! Calls of the system that the libraries have no safe form of.

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
