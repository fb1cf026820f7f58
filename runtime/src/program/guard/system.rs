//! Calls of the system that the libraries have no safe form of.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

/// What a process becomes: a file, its arguments and its environment.
pub(crate) struct Image {
    file: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Image {
    /// Creates an image. The last value of a variable counts.
    pub(crate) fn new(file: &OsStr, arguments: &[OsString], environment: &[(OsString, OsString)]) -> io::Result<Self> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
        let last: BTreeMap<&OsString, &OsString> = environment.iter().map(|(name, value)| (name, value)).collect();
        let variable =
            |(name, value): (&OsString, &OsString)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat());
        Ok(Self {
            file: text(file.as_bytes())?,
            arguments: arguments.iter().map(|argument| text(argument.as_bytes())).collect::<io::Result<_>>()?,
            environment: last.into_iter().map(variable).collect::<io::Result<_>>()?,
        })
    }

    /// Makes this process the image. Returns the error of the system if it refuses.
    pub(crate) fn execute(&self) -> io::Error {
        let pointers = |all: &[CString]| -> Vec<*const c_char> {
            all.iter().map(|text| text.as_ptr()).chain(std::iter::once(ptr::null())).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        #[expect(unsafe_code, reason = "no library has a safe form of this system call; all texts and lists are whole")]
        unsafe {
            libc::execve(self.file.as_ptr(), arguments.as_ptr(), environment.as_ptr());
        }
        io::Error::last_os_error()
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
