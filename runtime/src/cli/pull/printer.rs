//! Writes lines to standard output in a thread of its own, and knows which of them a reader has got.
//!
//! A reader may stall, or end while what was written is still in the pipe between. So whoever prints goes on meanwhile, and is
//! told of each line once its reader has read it out of the pipe (Linux tells how much is unread), or once it is written
//! where that cannot be known.
//!
//! At first a line is written only when the one before was read, so that a reader of a few lines, such as `head`, takes no
//! more than it shows. The more it has read, the more is written ahead.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::sync::mpsc;

/// What fits a pipe that takes anything at all, so that writing it does not wait.
const PIECE: usize = 4096;
/// For so many lines that were read, one may be in the pipe unread.
const AHEAD: u64 = 16;
/// How long a reader may take over the last lines before they are left to the pipe.
const LINGER: Duration = Duration::from_secs(1);
/// The same once the program was told to stop.
const STOPPED_LINGER: Duration = Duration::from_millis(250);
/// The shortest and the longest wait between two looks at the pipe.
const LOOK: Duration = Duration::from_micros(20);
const LOOK_MAX: Duration = Duration::from_millis(20);
/// How often to look whether there still is a reader while there is nothing to write.
const IDLE_LOOK: Duration = Duration::from_millis(250);

/// What is printed on behalf of someone, who is told what became of it.
pub trait Printed: Send + 'static {
    /// Whether it may still be printed.
    fn is_wanted(&self) -> bool;
}

/// What became of a line.
#[derive(Debug)]
pub enum Event<T> {
    /// Its reader has it.
    Taken(T),
    /// It was not written, or not all of it, because it was no longer wanted.
    Unwanted(T),
    /// It cannot be written, and so nothing can that follows. Lines that were not taken are dropped.
    Failed(io::Error),
}

/// Writes lines.
pub struct Printer<T> {
    /// `None`: no more come.
    lines: Option<Sender<(Vec<u8>, T)>>,
    events: mpsc::UnboundedReceiver<Event<T>>,
    end: Arc<End>,
    pending: usize,
}

/// How the thread shall end.
#[derive(Debug, Default)]
struct End {
    /// No more lines come.
    is_near: AtomicBool,
    /// What was not written stays so.
    is_urgent: AtomicBool,
}

impl End {
    fn is_near(&self) -> bool {
        self.is_near.load(Relaxed)
    }

    fn is_urgent(&self) -> bool {
        self.is_urgent.load(Relaxed)
    }

    /// How long the reader may take.
    fn patience(&self) -> Duration {
        if self.is_urgent() { STOPPED_LINGER } else { LINGER }
    }
}

impl<T: Printed> Printer<T> {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the system gives no thread, or standard output is closed.
    pub fn start() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let (lines, receiver) = channel();
        let (events, heard) = mpsc::unbounded_channel();
        let end = Arc::new(End::default());
        let tells_unread = cfg!(target_os = "linux") && file.metadata()?.file_type().is_fifo();
        let sink = Sink { file, tells_unread, end: Arc::clone(&end) };
        let thread = Thread { sink, lines: receiver, events, unread: VecDeque::new(), window: Window::default() };
        std::thread::Builder::new().name("printer".to_owned()).spawn(move || thread.run())?;
        Ok(Self { lines: Some(lines), events: heard, end, pending: 0 })
    }

    /// Writes a line, in its turn.
    pub fn print(&mut self, line: Vec<u8>, of: T) {
        if let Some(lines) = &self.lines {
            // When the thread has ended, it has said why.
            let _ = lines.send((line, of));
            self.pending += 1;
        }
    }

    /// Lines of which nothing was said yet.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Begins to end: no more lines come.
    pub fn finish(&mut self) {
        self.end.is_near.store(true, Relaxed);
        self.lines = None;
    }

    /// Begins to end soon: what was not written stays so.
    pub fn stop(&mut self) {
        self.end.is_urgent.store(true, Relaxed);
        self.finish();
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.end.is_urgent()
    }

    /// What became of the next line; `None` once the thread has ended. Can be dropped and called again without losing anything.
    pub async fn event(&mut self) -> Option<Event<T>> {
        let event = self.events.recv().await?;
        self.pending = self.pending.saturating_sub(1);
        Some(event)
    }
}

struct Thread<T> {
    sink: Sink,
    lines: Receiver<(Vec<u8>, T)>,
    /// Lines in the pipe, each with where it ends.
    unread: VecDeque<(u64, T)>,
    window: Window,
    /// Dropped after the lines, so that its end tells that these are.
    events: mpsc::UnboundedSender<Event<T>>,
}

impl<T: Printed> Thread<T> {
    fn run(mut self) {
        if let Err(error) = self.print_all() {
            let _ = self.events.send(Event::Failed(error));
        }
    }

    fn print_all(&mut self) -> io::Result<()> {
        let mut wait = LOOK;
        loop {
            let (line, of) = match self.lines.recv_timeout(if self.unread.is_empty() { IDLE_LOOK } else { wait }) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    wait = if self.look()? { LOOK } else { (wait * 2).min(LOOK_MAX) };
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.linger(),
            };
            wait = LOOK;
            self.until_room()?;
            if !of.is_wanted() || self.sink.end.is_urgent() {
                let _ = self.events.send(Event::Unwanted(of));
                continue;
            }
            let is_written = self.sink.write(&line, &of, &mut self.window.written);
            match is_written {
                Ok(true) => self.unread.push_back((self.window.written, of)),
                Ok(false) => drop(self.events.send(Event::Unwanted(of))),
                Err(_) => {}
            }
            self.look()?;
            is_written?;
        }
    }

    /// Waits until the reader wants another line.
    fn until_room(&mut self) -> io::Result<()> {
        let (mut wait, mut since) = (LOOK, Instant::now());
        while self.unread.len() as u64 >= self.window.lines && !self.sink.end.is_urgent() {
            if self.look()? || !self.sink.end.is_near() {
                since = Instant::now();
            }
            if since.elapsed() > self.sink.end.patience() {
                // What is left goes into the pipe while there is room.
                self.window.lines = u64::MAX;
            } else {
                std::thread::sleep(wait);
                wait = (wait * 2).min(LOOK_MAX);
            }
        }
        Ok(())
    }

    /// Tells of the lines that were read since the last look. Returns `true` if there were some.
    fn look(&mut self) -> io::Result<bool> {
        // In this order: what was read before the reader ended has been read.
        let is_closed = self.sink.is_closed()?;
        let unread = self.sink.unread()?;
        let read = self.window.written.saturating_sub(unread);
        let mut has_read = false;
        while let Some((_, of)) = self.unread.pop_front_if(|(end, _)| *end <= read) {
            has_read = true;
            self.window.read();
            let _ = self.events.send(Event::Taken(of));
        }
        if is_closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(has_read) }
    }

    /// Waits a moment for the last lines to be read. What is unread then is left to the pipe, unless nobody can read it.
    fn linger(&mut self) -> io::Result<()> {
        let mut since = Instant::now();
        let mut wait = LOOK;
        while !self.unread.is_empty() {
            if self.look()? {
                (wait, since) = (LOOK, Instant::now());
            } else if since.elapsed() > self.sink.end.patience() {
                break;
            } else {
                std::thread::sleep(wait);
                wait = (wait * 2).min(LOOK_MAX);
            }
        }
        for (_, of) in self.unread.drain(..) {
            let _ = self.events.send(Event::Taken(of));
        }
        Ok(())
    }
}

/// How much may be unread.
#[derive(Debug)]
struct Window {
    /// Lines that may be unread when another is written, and that one.
    lines: u64,
    /// Lines that were read.
    read: u64,
    /// Bytes that were written.
    written: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { lines: 1, read: 0, written: 0 }
    }
}

impl Window {
    /// A line was read.
    fn read(&mut self) {
        self.read += 1;
        self.lines = self.lines.max(self.read / AHEAD);
    }
}

/// Standard output.
struct Sink {
    file: File,
    /// Whether it tells how much is unread.
    tells_unread: bool,
    end: Arc<End>,
}

impl Sink {
    /// Bytes that were written and not read, also by a reader that has ended.
    fn unread(&self) -> io::Result<u64> {
        if self.tells_unread { Ok(rustix::io::ioctl_fionread(&self.file)?) } else { Ok(0) }
    }

    /// Whether nobody will read any more.
    fn is_closed(&self) -> io::Result<bool> {
        Ok(self.tells_unread && self.poll(Duration::ZERO)?.is_closed)
    }

    /// Writes a line, and counts what has gone. Returns `false` if it was not begun because it was no longer wanted by then, or
    /// not ended because the program is told to stop and nobody reads it.
    fn write(&self, line: &[u8], of: &impl Printed, written: &mut u64) -> io::Result<bool> {
        let (mut bytes, mut stopped) = (line, None);
        while !bytes.is_empty() {
            let ready = self.poll(LOOK_MAX * 5)?;
            if ready.is_closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // There may have been no room for long.
            if bytes.len() == line.len() && (!of.is_wanted() || self.end.is_urgent()) {
                return Ok(false);
            }
            if !ready.has_room {
                if self.end.is_urgent() && stopped.get_or_insert_with(Instant::now).elapsed() > STOPPED_LINGER {
                    return Ok(false);
                }
                continue;
            }
            match rustix::io::write(&self.file, &bytes[..bytes.len().min(PIECE)]) {
                Ok(gone) => {
                    bytes = &bytes[gone..];
                    *written += gone as u64;
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Waits until it takes something, or nobody reads it.
    fn poll(&self, timeout: Duration) -> io::Result<Readiness> {
        let mut descriptor = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        #[expect(unsafe_code, reason = "the system's call has no safe form in the standard library")]
        // SAFETY: one descriptor is handed over, which is there until the call is over, and which the file keeps open.
        let ready = unsafe { libc::poll(&raw mut descriptor, 1, millis) };
        let error = io::Error::last_os_error();
        if ready < 0 && error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        let is = |event| ready > 0 && descriptor.revents & event != 0;
        Ok(Readiness { is_closed: is(libc::POLLERR), has_room: is(libc::POLLOUT) })
    }
}

/// What standard output does with more.
struct Readiness {
    /// Nobody reads it.
    is_closed: bool,
    /// It takes something at once.
    has_room: bool,
}

#[cfg(test)]
mod tests;
