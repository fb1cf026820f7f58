//! Whether the page faults of a thread tell that it has written to pages that it had not written to before.
//!
//! Memory of an image is mapped copy-on-write. The first write to a page makes a copy, by a page fault, which the kernel counts for
//! the thread that has written. So a run without a fault has written to no pages but those with a copy. To ask for the count takes a
//! tenth of the time of looking through the pages of an interpreter.

use std::future::poll_fn;
use std::pin::Pin;

/// Runs a guest. Returns its result, and `false` only if no page fault came while it ran. Nothing is counted unless `is_wanted`.
///
/// By reference, so that the state of the guest's run is held once.
pub(in crate::engine) async fn watched<T>(is_wanted: bool, mut run: Pin<&mut impl Future<Output = T>>) -> (T, bool) {
    let mut has_faulted = !is_wanted;
    let ended = poll_fn(|context| {
        // For each poll anew, as another thread may go on with the guest.
        let before = if is_wanted { count() } else { None };
        let polled = run.as_mut().poll(context);
        has_faulted |= before.is_none() || count() != before;
        polled
    });
    (ended.await, has_faulted)
}

/// Returns the number of page faults of this thread. `None` if the system does not count them.
#[cfg(target_os = "linux")]
fn count() -> Option<(libc::c_long, libc::c_long)> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "no library has a safe form of this system call")]
    // SAFETY: it writes the whole structure if it succeeds, and all of its bytes are zero before.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    // A fault that the kernel has tried twice counts as one of the second kind.
    Some((usage.ru_minflt, usage.ru_majflt))
}

#[cfg(not(target_os = "linux"))]
fn count() -> Option<(libc::c_long, libc::c_long)> {
    None
}
