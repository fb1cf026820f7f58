//! Compiling plugins in a process of its own, with limits on its memory and its time.
//!
//! There are small plugins that no compiler is done with soon: 10,000 blocks with as many variables, a module of 200 KB, took 30 s
//! and 3.3 GiB, and 1,000 loops within each other, 18 KB, more than that (measured with wasmtime 48). A node that compiled them
//! itself would end with its machine's memory, and with it the items of all other chains.
//!
//! The process is this same program. It gets the module on its standard input and gives the code on its standard output; if
//! its input ends, so does it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitCode, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use super::{EngineError, Space};
use crate::name::Digest;

/// The flag by which the process knows that its engine takes little of the address space.
const SCARCE: &str = "--scarce";

/// What a compilation may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerLimits {
    /// Memory, in bytes. Only Linux holds a process to it.
    pub memory: u64,
    /// Time.
    pub time: Duration,
}

impl Default for CompilerLimits {
    /// 1 GiB and five minutes: what compilers make of a source usually takes a second for each megabyte, and several times that
    /// on a machine that has better things to do.
    fn default() -> Self {
        Self { memory: 1 << 30, time: Duration::from_mins(5) }
    }
}

/// A program that compiles, and within which limits.
#[derive(Debug)]
pub struct Compiler {
    /// Calls [`main`].
    program: PathBuf,
    /// What comes before the limits in its arguments.
    command: &'static str,
    limits: CompilerLimits,
    /// How many more processes may run: one for each processor, so that a node with very many plugins does not start one for
    /// each at once.
    places: Mutex<usize>,
    /// Tells that there is one more.
    left: Condvar,
    /// What could not be compiled, and why. It is not tried again.
    refused: Mutex<HashMap<Digest, String>>,
}

/// A place to compile, until this is dropped.
struct Place<'a>(&'a Compiler);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(&self.0.places) += 1;
        self.0.left.notify_one();
    }
}

impl Compiler {
    /// Compiles with this program and command.
    #[must_use]
    pub fn new(program: PathBuf, command: &'static str, limits: CompilerLimits) -> Self {
        /// So that one that takes long does not hold up all others.
        const PLACES_MIN: usize = 2;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let places = Mutex::new(processors.max(PLACES_MIN));
        Self { program, command, limits, places, left: Condvar::new(), refused: Mutex::default() }
    }

    fn place(&self) -> Place<'_> {
        let places = self.left.wait_while(lock(&self.places), |places| *places == 0);
        *places.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self)
    }

    /// The code of a module with this digest. Blocks the thread.
    pub(super) fn compile(&self, content: &Digest, module: &[u8], space: Space) -> Result<Vec<u8>, EngineError> {
        if let Some(reason) = lock(&self.refused).get(content) {
            return Err(EngineError::Load(reason.clone()));
        }
        let _place = self.place();
        let Output { status, stdout, stderr } = self.run(module, space).map_err(|error| {
            EngineError::Load(format!("cannot start a process that compiles it, `{}`: {error}", self.program.display()))
        })?;
        if status.success() {
            return Ok(stdout);
        }
        let said = String::from_utf8_lossy(&stderr);
        let reason = match said.lines().next() {
            // Rust's own last words.
            Some(line) if line.starts_with("memory allocation of ") => {
                format!(
                    "compiling it takes more than {} of memory",
                    bytesize::ByteSize(self.limits.memory).display().iec()
                )
            }
            Some(line) => line.to_owned(),
            None => format!("the process that compiles it has ended with {status}"),
        };
        // Whatever else has ended the process may not happen again.
        if reason.starts_with("compiling it takes ") {
            lock(&self.refused).insert(content.clone(), reason.clone());
        }
        Err(EngineError::Load(reason))
    }

    fn run(&self, module: &[u8], space: Space) -> io::Result<Output> {
        let mut command = Command::new(&self.program);
        command.arg(self.command).arg(self.limits.memory.to_string()).arg(self.limits.time.as_millis().to_string());
        if space == Space::Scarce {
            command.arg(SCARCE);
        }
        // What interrupts the node at a terminal is not for the child, which ends with the node anyway.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Open until the child has ended: it ends with this process.
        let _input = hand_over(&mut child, module);
        child.wait_with_output()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the child its module. A child that does not take it says why.
fn hand_over(child: &mut Child, module: &[u8]) -> Option<ChildStdin> {
    let mut input = child.stdin.take()?;
    let length = (module.len() as u64).to_le_bytes();
    let handed = input.write_all(&length).and_then(|()| input.write_all(module)).and_then(|()| input.flush());
    if let Err(error) = handed {
        tracing::debug!(%error, "the compiler has not taken its module");
    }
    Some(input)
}

/// The process that compiles, for an engine that takes little of the address space if `is_scarce`.
#[must_use]
pub fn main(limits: CompilerLimits, is_scarce: bool) -> ExitCode {
    let space = if is_scarce { Space::Scarce } else { Space::Full };
    match compile(limits, space) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => end(&reason),
    }
}

fn compile(limits: CompilerLimits, space: Space) -> Result<(), String> {
    // Those who run items come first.
    let _ = nice(10);
    let bytes = Some(limits.memory);
    let _ = setrlimit(Resource::Data, Rlimit { current: bytes, maximum: bytes });
    let read = |error: io::Error| format!("the compiler was not given its module: {error}");
    let mut length = [0; 8];
    io::stdin().read_exact(&mut length).map_err(read)?;
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(|error| error.to_string())?;
    let mut module = vec![0; length];
    io::stdin().read_exact(&mut module).map_err(read)?;
    watch(limits.time);
    let engine = wasmtime::Engine::new(&super::config(1, None, space)).map_err(|error| format!("{error:#}"))?;
    let code = engine.precompile_module(&module).map_err(|error| format!("{error:#}"))?;
    io::stdout().write_all(&code).and_then(|()| io::stdout().flush()).map_err(|error| error.to_string())
}

/// Ends the process when its time is over, or nobody waits for it any more.
fn watch(time: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        end(&format!("compiling it takes longer than {}", humantime::format_duration(time)));
    });
    std::thread::spawn(|| {
        let _ended = io::stdin().read(&mut [0]);
        end("nobody waits for the compiler any more");
    });
}

#[expect(clippy::exit, reason = "what compiles cannot be interrupted otherwise")]
fn end(reason: &str) -> ! {
    let _ = writeln!(io::stderr(), "{}", reason.lines().next().unwrap_or_default());
    std::process::exit(1)
}
