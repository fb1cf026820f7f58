//! Starts the first process of a program.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;

use rustix::process::{Pid, WaitOptions, waitpid};

use super::system;

/// Makes a process that executes a program, in a cgroup if one is given. Returns its id once it has done so.
///
/// `execute` runs in the new process. Only for a process of one thread.
pub(crate) fn spawn(cgroup: Option<&Path>, execute: impl Fn() -> io::Result<Infallible>) -> io::Result<Pid> {
    let (mut told, mut tells) = io::pipe()?;
    let (forked, must_join) = match cgroup.map(File::open).transpose()? {
        None => (system::fork(), false),
        Some(cgroup) => match system::fork_into(cgroup.as_fd()) {
            // Some containers do not let the call through.
            Err(_) => (system::fork(), true),
            forked => (forked, false),
        },
    };
    let Some(process) = forked? else {
        let join = || match cgroup {
            Some(cgroup) if must_join => std::fs::write(cgroup.join("cgroup.procs"), "0"),
            _ => Ok(()),
        };
        // A panic must not run the code of the first process again.
        let error = match catch_unwind(AssertUnwindSafe(|| join().and_then(|()| execute()))) {
            Ok(Err(error)) => error.raw_os_error(),
            Err(_) => None,
        };
        let _ = tells.write_all(&error.unwrap_or(libc::EINVAL).to_ne_bytes());
        system::exit_at_once();
    };
    drop(tells);
    let mut errno = Vec::new();
    told.read_to_end(&mut errno)?;
    match errno.try_into() {
        Ok(errno) => {
            let _ = waitpid(Some(process), WaitOptions::empty());
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
        }
        // The pipe has ended, since the program runs.
        Err(_) => Ok(process),
    }
}

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
    ///
    /// No shell runs a file that the system does not know, as the standard library has it.
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
