//! Compiles plugins in a process of its own, with limits.
//!
//! Some small plugins take very long to compile. 10,000 blocks with as many variables, a module of 200 KB, took 30 s and 3.3 GiB;
//! 1,000 nested loops, 18 KB, took more (measured with wasmtime 48). A node that compiled them itself would run out of memory
//! and end, also for all other chains.
//!
//! The process runs this same program. It reads the module from its standard input and writes the code to its standard output. It
//! ends when its input ends.

mod functions;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use functions::{Functions, MODULE_MAX};

use super::{EngineError, Space};
use crate::lock::lock;
use crate::name::Digest;

/// The flag for an engine that reserves little address space.
const SCARCE: &str = "--scarce";
/// The flag for a file of compiled functions.
const FUNCTIONS: &str = "--functions";

/// The limits of a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerLimits {
    /// Memory in bytes. Enforced on Linux only.
    pub memory: u64,
    /// Wall time.
    pub time: Duration,
}

impl Default for CompilerLimits {
    /// Returns 1 GiB and five minutes. Code of real compilers usually takes a second for each megabyte, and several times that on
    /// a busy machine.
    fn default() -> Self {
        Self { memory: 1 << 30, time: Duration::from_mins(5) }
    }
}

/// A program that compiles plugins, with its limits.
#[derive(Debug)]
pub struct Compiler {
    /// The program, which calls [`main`].
    program: PathBuf,
    /// The arguments before the limits.
    command: &'static str,
    limits: CompilerLimits,
    /// `true` if functions are kept from one compilation to the next.
    pub(super) keeps_functions: bool,
    /// How many more processes may start. There is one for each processor, so that a node with many plugins does not compile all
    /// of them at once.
    places: Mutex<usize>,
    /// Notified when another process may start.
    left: Condvar,
    /// Modules that could not be compiled, and why. They are not tried again.
    refused: Mutex<HashMap<Digest, String>>,
}

/// Permit to run a process that compiles. Released on drop.
struct Place<'a>(&'a Compiler);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(&self.0.places) += 1;
        self.0.left.notify_one();
    }
}

impl Compiler {
    /// Creates a compiler that runs this program with this command.
    pub fn new(program: PathBuf, command: &'static str, limits: CompilerLimits) -> Self {
        /// At least two, so that a slow compilation does not block others.
        const PLACES_MIN: usize = 2;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let places = Mutex::new(processors.max(PLACES_MIN));
        Self {
            program,
            command,
            limits,
            keeps_functions: false,
            places,
            left: Condvar::new(),
            refused: Mutex::default(),
        }
    }

    /// Keeps compiled functions in the engine's cache, so that a module that has changed in few of them compiles in a moment.
    #[must_use]
    pub fn keeping_functions(self) -> Self {
        Self { keeps_functions: true, ..self }
    }

    fn place(&self) -> Place<'_> {
        let places = self.left.wait_while(lock(&self.places), |places| *places == 0);
        *places.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self)
    }

    /// Returns the code of a module. Blocks the thread. `content` is the digest of the module, and `functions` the file in which
    /// compiled functions are kept, if they are.
    pub(super) fn compile(
        &self,
        content: &Digest,
        module: &[u8],
        space: Space,
        functions: Option<&Path>,
    ) -> Result<Vec<u8>, EngineError> {
        if let Some(reason) = lock(&self.refused).get(content) {
            return Err(EngineError::Load(reason.clone()));
        }
        let _place = self.place();
        let Output { status, stdout, stderr } = self.run(module, space, functions).map_err(|error| {
            EngineError::Load(format!("cannot start a process that compiles it, `{}`: {error}", self.program.display()))
        })?;
        if status.success() {
            return Ok(stdout);
        }
        let said = String::from_utf8_lossy(&stderr);
        let reason = match said.lines().next() {
            // The Rust runtime prints this line when memory runs out.
            Some(line) if line.starts_with("memory allocation of ") => {
                format!(
                    "compiling it takes more than {} of memory",
                    bytesize::ByteSize(self.limits.memory).display().iec()
                )
            }
            Some(line) => line.to_owned(),
            None => format!("the process that compiles it has ended with {status}"),
        };
        // Only a limit is remembered: other failures may not happen again.
        if reason.starts_with("compiling it takes ") {
            lock(&self.refused).insert(content.clone(), reason.clone());
        }
        Err(EngineError::Load(reason))
    }

    fn run(&self, module: &[u8], space: Space, functions: Option<&Path>) -> io::Result<Output> {
        let mut command = Command::new(&self.program);
        command.arg(self.command).arg(self.limits.memory.to_string()).arg(self.limits.time.as_millis().to_string());
        if space == Space::Scarce {
            command.arg(SCARCE);
        }
        if let Some(file) = functions {
            command.arg(FUNCTIONS).arg(file);
        }
        // An interrupt at the terminal must not reach the child, which ends with the node anyway.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Stays open until the child has ended, so that the child ends if this process does.
        let _input = hand_over(&mut child, module);
        child.wait_with_output()
    }
}

/// Sends the child its module. A child that does not read it reports why itself.
fn hand_over(child: &mut Child, module: &[u8]) -> Option<ChildStdin> {
    let mut input = child.stdin.take()?;
    let length = (module.len() as u64).to_le_bytes();
    let handed = input.write_all(&length).and_then(|()| input.write_all(module)).and_then(|()| input.flush());
    if let Err(error) = handed {
        tracing::debug!(%error, "the compiler did not read its module");
    }
    Some(input)
}

/// Runs the process that compiles. `is_scarce`: the engine of the node reserves little address space. `functions` is the file of
/// functions that were compiled before, if they are kept.
pub fn main(limits: CompilerLimits, is_scarce: bool, functions: Option<PathBuf>) -> ExitCode {
    let space = if is_scarce { Space::Scarce } else { Space::Full };
    match compile(limits, space, functions) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => end(&reason),
    }
}

fn compile(limits: CompilerLimits, space: Space, functions: Option<PathBuf>) -> Result<(), String> {
    // Running items come first.
    let _ = nice(10);
    let bytes = Some(limits.memory);
    let _ = setrlimit(Resource::Data, Rlimit { current: bytes, maximum: bytes });
    let read = |error: io::Error| format!("the compiler cannot read its module: {error}");
    let mut length = [0; 8];
    io::stdin().read_exact(&mut length).map_err(read)?;
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(|error| error.to_string())?;
    let mut module = vec![0; length];
    io::stdin().read_exact(&mut module).map_err(read)?;
    watch(limits.time);
    let mut config = super::config(1, None, space);
    let functions = functions.filter(|_| length <= MODULE_MAX).map(|file| Arc::new(Functions::read(file)));
    if let Some(functions) = functions.clone() {
        config.enable_incremental_compilation(functions).map_err(|error| format!("{error:#}"))?;
    }
    let engine = wasmtime::Engine::new(&config).map_err(|error| format!("{error:#}"))?;
    let code = engine.precompile_module(&module).map_err(|error| format!("{error:#}"))?;
    // Without them, the next compilation only takes longer.
    let _kept = functions.map(|functions| functions.write());
    io::stdout().write_all(&code).and_then(|()| io::stdout().flush()).map_err(|error| error.to_string())
}

/// Ends the process when its time is up or its parent ends.
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
