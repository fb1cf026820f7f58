//! A thread that writes lines to standard output and knows which lines the reader has.
//!
//! A reader may stall, or end while lines are still in the pipe. So the command does not wait for the thread, which
//! reports each line once the reader has read it from the pipe. Linux tells how much of a pipe is unread. Where the
//! system does not tell, a line is reported once it is written.
//!
//! At first, the thread writes a line only after the reader has read the line before. So a reader of a few lines, such
//! as `head`, takes no more than it shows. The more lines the reader has read, the more lines are written ahead.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// The most bytes of one write. A pipe that has room takes as many without blocking.
const PIECE: usize = 4096;
/// One line may be unread in the pipe for each this many lines that were read.
const AHEAD: u64 = 16;
/// How long the reader may take over the last lines before they count as taken.
const LINGER: Duration = Duration::from_secs(1);
/// The same after the program was told to stop.
const STOPPED_LINGER: Duration = Duration::from_millis(250);
/// The shortest wait between two looks at the pipe.
const LOOK: Duration = Duration::from_micros(20);
/// The longest wait between two looks at the pipe.
const LOOK_MAX: Duration = Duration::from_millis(20);
/// How often to check for a reader while there is nothing to write.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// How often to check whether a line is still wanted while the pipe is full.
const FULL_LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// No wait.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The subject of a printed line. It comes back with what became of the line.
pub trait Printed: Send + 'static {
    /// Returns `true` if the line may still be printed.
    fn is_wanted(&self) -> bool;
}

/// What became of a line.
#[derive(Debug)]
pub enum Event<T> {
    /// The reader has the line.
    Written(T),
    /// The line was no longer wanted, so it was not written, or only in part.
    Unwanted(T),
    /// Standard output cannot be written to. Lines that were not taken are dropped.
    Failed(io::Error),
}

/// The command's side of the thread.
pub struct Printer<T> {
    /// `None` once no more lines come.
    lines: Option<Sender<(Vec<u8>, T)>>,
    events: mpsc::UnboundedReceiver<Event<T>>,
    end: Arc<End>,
    pending: usize,
}

/// How the thread must end.
#[derive(Debug, Default)]
struct End {
    /// No more lines come.
    is_near: AtomicBool,
    /// Lines that are not written yet must not be written.
    is_urgent: AtomicBool,
}

impl End {
    fn is_near(&self) -> bool {
        self.is_near.load(Relaxed)
    }

    fn is_urgent(&self) -> bool {
        self.is_urgent.load(Relaxed)
    }

    /// Returns how long the reader may take.
    fn patience(&self) -> Duration {
        if self.is_urgent() { STOPPED_LINGER } else { LINGER }
    }
}

impl<T: Printed> Printer<T> {
    /// Starts the thread.
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

    /// Queues a line to be written.
    pub fn print(&mut self, line: Vec<u8>, of: T) {
        if let Some(lines) = &self.lines {
            // If the thread has ended, its last event told why.
            let _ = lines.send((line, of));
            self.pending += 1;
        }
    }

    /// Returns how many lines had no event yet.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Tells the thread that no more lines come.
    pub fn finish(&mut self) {
        self.end.is_near.store(true, Relaxed);
        self.lines = None;
    }

    /// Tells the thread to end soon, without the lines that are not written yet.
    pub fn stop(&mut self) {
        self.end.is_urgent.store(true, Relaxed);
        self.finish();
    }

    /// Returns `true` after [`Self::stop`].
    pub fn is_stopped(&self) -> bool {
        self.end.is_urgent()
    }

    /// Returns what became of the next line; `None` once the thread has ended. A dropped call loses no event.
    pub async fn event(&mut self) -> Option<Event<T>> {
        let event = self.events.recv().await?;
        self.pending = self.pending.saturating_sub(1);
        Some(event)
    }
}

struct Thread<T> {
    sink: Sink,
    lines: Receiver<(Vec<u8>, T)>,
    /// Lines in the pipe, each with the position of its end.
    unread: VecDeque<(u64, T)>,
    window: Window,
    /// Dropped after the lines. So the end of the events tells that the lines are dropped too.
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

    /// Waits until another line may be written ahead of the reader.
    fn until_room(&mut self) -> io::Result<()> {
        let (mut wait, mut since) = (LOOK, Instant::now());
        while self.unread.len() as u64 >= self.window.lines && !self.sink.end.is_urgent() {
            if self.look()? || !self.sink.end.is_near() {
                since = Instant::now();
            }
            if since.elapsed() > self.sink.end.patience() {
                // The remaining lines go into the pipe as far as it has room.
                self.window.lines = u64::MAX;
            } else {
                std::thread::sleep(wait);
                wait = (wait * 2).min(LOOK_MAX);
            }
        }
        Ok(())
    }

    /// Reports the lines that were read since the last look. Returns `true` if there were any.
    fn look(&mut self) -> io::Result<bool> {
        // The order matters: lines that the reader read before it ended must count as read.
        let is_closed = self.sink.is_closed()?;
        let unread = self.sink.unread()?;
        let read = self.window.written.saturating_sub(unread);
        let mut has_read = false;
        while let Some((_, of)) = self.unread.pop_front_if(|(end, _)| *end <= read) {
            has_read = true;
            self.window.read();
            let _ = self.events.send(Event::Written(of));
        }
        if is_closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(has_read) }
    }

    /// Waits a moment for the reader to read the last lines. Lines that are unread then count as taken, unless the
    /// reader has gone.
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
            let _ = self.events.send(Event::Written(of));
        }
        Ok(())
    }
}

/// How many lines may be unread.
#[derive(Debug)]
struct Window {
    /// Lines that may be unread, including the line that is written.
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
    /// Counts a line that was read.
    fn read(&mut self) {
        self.read += 1;
        self.lines = self.lines.max(self.read / AHEAD);
    }
}

/// Standard output.
struct Sink {
    file: File,
    /// `true` if the system tells how much is unread.
    tells_unread: bool,
    end: Arc<End>,
}

impl Sink {
    /// Returns how many bytes were written and not read. A reader that has ended leaves them unread.
    fn unread(&self) -> io::Result<u64> {
        if self.tells_unread { Ok(rustix::io::ioctl_fionread(&self.file)?) } else { Ok(0) }
    }

    /// Returns `true` if the reader has gone.
    fn is_closed(&self) -> io::Result<bool> {
        Ok(self.tells_unread && self.poll(AT_ONCE)?.contains(PollFlags::ERR))
    }

    /// Writes a line and counts the bytes.
    ///
    /// Returns `false` if the line was no longer wanted before its first byte was written, or if the program must stop
    /// while the reader stalls.
    fn write(&self, line: &[u8], of: &impl Printed, written: &mut u64) -> io::Result<bool> {
        let (mut bytes, mut stopped) = (line, None);
        while !bytes.is_empty() {
            let ready = self.poll(FULL_LOOK)?;
            if ready.contains(PollFlags::ERR) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // The pipe may have had no room for a long time.
            if bytes.len() == line.len() && (!of.is_wanted() || self.end.is_urgent()) {
                return Ok(false);
            }
            if !ready.contains(PollFlags::OUT) {
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

    /// Waits until the pipe has room ([`PollFlags::OUT`]) or the reader has gone ([`PollFlags::ERR`]).
    fn poll(&self, timeout: Timespec) -> io::Result<PollFlags> {
        let mut watched = [PollFd::new(&self.file, PollFlags::OUT)];
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) => Ok(watched[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
