//! The processes of a test, run to their end or kept running.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::DEADLINE;

/// A process that has ended.
#[derive(Debug)]
pub struct Run {
    /// The exit status. `None` if a signal ended the process.
    pub code: Option<i32>,
    /// The whole standard output.
    pub stdout: String,
    /// The whole standard error.
    pub stderr: String,
    /// The time from start to end.
    pub took: Duration,
}

impl Run {
    /// Runs a command to its end.
    pub fn of(mut command: Command, input: &[u8]) -> Self {
        let started = Instant::now();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
        let writing = std::thread::spawn(move || {
            // A command that does not read all of its input closes it.
            let _ = stdin.write_all(&input);
        });
        let stdout = read_all(child.stdout.take().unwrap());
        let stderr = read_all(child.stderr.take().unwrap());
        let status = wait(&mut child);
        writing.join().unwrap();
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let status = status.unwrap_or_else(|| panic!("{command:?} did not end\nstdout: {stdout}\nstderr: {stderr}"));
        Self { code: status.code(), stdout, stderr, took: started.elapsed() }
    }

    /// Asserts that the command succeeded. Returns its standard output.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts that the command failed with this status and message. The message is on standard error.
    #[track_caller]
    pub fn failed(self, code: i32, said: &str) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(self.stderr.contains(said), "expected: {said}\nstderr: {}", self.stderr);
        self
    }
}

/// Asserts that a command was refused. It must have this status, no standard output, and one error with all these texts.
#[track_caller]
pub fn assert_refused(run: &Run, code: i32, says: &[&str]) {
    assert_eq!(run.code, Some(code), "stdout: {}\nstderr: {}", run.stdout, run.stderr);
    assert_eq!(run.stdout, "", "stderr: {}", run.stderr);
    let errors: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "stderr: {}", run.stderr);
    for said in says {
        assert!(errors[0].contains(said), "expected: {said}\nstderr: {}", run.stderr);
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The output of a process so far.
#[derive(Default)]
struct Written {
    lines: Mutex<Vec<String>>,
    more: Condvar,
    /// `true` once the output has ended.
    closed: AtomicBool,
}

impl Written {
    fn follow(stream: impl Read + Send + 'static) -> Arc<Self> {
        let written = Arc::new(Self::default());
        let lines = Arc::clone(&written);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { break };
                lines.lines.lock().unwrap().push(line);
                lines.more.notify_all();
            }
            let _lines = lines.lines.lock().unwrap();
            lines.closed.store(true, Relaxed);
            lines.more.notify_all();
        });
        written
    }

    /// Waits until the output has ended.
    fn wait_closed(&self) {
        let lines = self.lines.lock().unwrap();
        let _ended = self.more.wait_timeout_while(lines, DEADLINE, |_| !self.closed.load(Relaxed)).unwrap();
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line with this text.
    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        let lines = self.lines.lock().unwrap();
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let is_awaited = |lines: &mut Vec<String>| found(lines).is_none() && !self.closed.load(Relaxed);
        let (lines, _) = self.more.wait_timeout_while(lines, DEADLINE, is_awaited).unwrap();
        let (found, said) = (found(&lines), lines.join("\n"));
        // Unlock before the panic, so that the output can still be printed.
        drop(lines);
        found.unwrap_or_else(|| panic!("never said: {text}\nsaid: {said}"))
    }
}

/// A running process. Killed on drop.
pub struct Process {
    child: Child,
    stdout: Arc<Written>,
    stderr: Arc<Written>,
    /// The file that gets its standard error when it is dropped.
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a command.
    pub fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// Starts a command whose standard input stays open until it is dropped.
    pub fn start_fed(command: Command) -> (Self, ChildStdin) {
        let mut process = Self::start_with(command, Stdio::piped());
        let stdin = process.child.stdin.take().unwrap();
        (process, stdin)
    }

    /// Starts a command whose standard output only the caller reads.
    pub fn start_unread(mut command: Command) -> (Self, ChildStdout) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let stderr = Written::follow(child.stderr.take().unwrap());
        let stdout = Arc::new(Written { closed: AtomicBool::new(true), ..Written::default() });
        (Self { child, stdout, stderr, log: None }, output)
    }

    fn start_with(mut command: Command, stdin: Stdio) -> Self {
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Written::follow(child.stdout.take().unwrap());
        let stderr = Written::follow(child.stderr.take().unwrap());
        Self { child, stdout, stderr, log: None }
    }

    /// Appends the standard error to this file once the process is dropped.
    pub fn log_to(&mut self, file: PathBuf) {
        self.log = Some(file);
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with this text on standard error. Returns the line.
    #[track_caller]
    pub fn said(&self, text: &str) -> String {
        self.stderr.wait_for(text)
    }

    /// Waits for a line with this text on standard output. Returns the line.
    #[track_caller]
    pub fn printed(&self, text: &str) -> String {
        self.stdout.wait_for(text)
    }

    /// Returns the standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Returns the standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal by its name, as in `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(status.success(), "cannot send {name}");
    }

    /// Returns `true` if the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end of the process. Returns its exit status.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        let status = wait(&mut self.child);
        // The last output may still be on its way.
        self.stdout.wait_closed();
        self.stderr.wait_closed();
        status.unwrap_or_else(|| panic!("did not end\nstderr: {}", self.stderr())).code()
    }

    /// Tells the process to stop, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(log) = &self.log {
            self.stderr.wait_closed();
            let written = File::options().create(true).append(true).open(log);
            let _ = written.and_then(|mut file| writeln!(file, "--- process {}\n{}", self.id(), self.stderr()));
        }
        if std::thread::panicking() {
            eprintln!("--- process {}:\n{}\n{}", self.id(), self.stdout(), self.stderr());
        }
    }
}
