//! Tasks that read or use their environment.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, hint, io, process, thread};

use pcluster_sdk::{Context, Value, log, task};
use serde::{Deserialize, Serialize};

/// The configuration of `allocate`.
#[derive(Debug, Deserialize)]
struct Allocate {
    mebibytes: usize,
}

/// The configuration of `chatter`.
#[derive(Debug, Deserialize)]
struct Chatter {
    lines: u32,
}

/// An output of `env`.
#[derive(Debug, Serialize)]
struct Environment {
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
}

/// An output of `context`.
#[derive(Debug, Serialize)]
struct Surroundings {
    chain: String,
    version: String,
    revision: u64,
    stage: String,
    id: String,
    attempt: u32,
    config: Value,
}

/// Takes as much memory as the stage's `mebibytes` says. Writes to all of it, and returns the item unchanged.
#[task]
fn allocate(item: Value, cx: &Context<Allocate>) -> Value {
    // Without the black box, the compiler would remove the unused memory.
    hint::black_box(vec![1_u8; cx.config().mebibytes << 20]);
    item
}

/// Returns the environment variables and arguments that the guest can see.
#[task(name = "env")]
fn environment(_item: Value) -> Environment {
    Environment { variables: env::vars().collect(), arguments: env::args().collect() }
}

/// Tries several ways out of the sandbox. Returns the result of each.
#[task]
fn escape(_item: Value) -> BTreeMap<&'static str, String> {
    fn of<T>(tried: io::Result<T>) -> String {
        tried.map_or_else(|error| format!("refused: {error}"), |_| "reached".to_owned())
    }
    BTreeMap::from([
        ("read a file", of(fs::read("/etc/passwd"))),
        ("read a file by a relative path", of(fs::read("../../../../etc/passwd"))),
        ("write a file", of(fs::write("/tmp/escaped", "here"))),
        ("read a folder", of(fs::read_dir("/"))),
        ("make a folder", of(fs::create_dir("escaped"))),
        ("connect", of(TcpStream::connect("127.0.0.1:4222"))),
        ("listen", of(TcpListener::bind("127.0.0.1:0"))),
        ("send", of(UdpSocket::bind("127.0.0.1:0"))),
        ("run a program", of(process::Command::new("/bin/true").status())),
        ("start a thread", of(thread::Builder::new().spawn(|| {}))),
        ("read standard input", io::stdin().lines().next().map_or_else(|| "refused: it is empty".to_owned(), of)),
    ])
}

/// Writes to each output that ends in the log. Returns the item unchanged.
#[task]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what the task is for")]
fn print(item: Value) -> Value {
    println!("to standard output");
    eprintln!("to standard error");
    for level in log::Level::iter() {
        log::log!(level, "at {}", level.as_str().to_lowercase());
    }
    item
}

/// Logs as many lines as the stage's `lines` says. Returns the item unchanged.
#[task]
fn chatter(item: Value, cx: &Context<Chatter>) -> Value {
    for line in 0..cx.config().lines {
        log::info!("line {line}");
    }
    item
}

/// Returns the context of the task.
#[task]
fn context(_item: Value, cx: &Context<Value>) -> Surroundings {
    Surroundings {
        chain: cx.chain().to_owned(),
        version: cx.version().to_owned(),
        revision: cx.revision(),
        stage: cx.stage().to_owned(),
        id: cx.id().to_owned(),
        attempt: cx.attempt(),
        config: cx.config().clone(),
    }
}

/// Counts its runs in this instance. The count is always 1 if each item has a fresh instance.
#[task]
fn count_static(_item: Value) -> u32 {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    RUNS.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_given_as_it_is() {
        let given = context(Value::Null, &Context::for_test(Value::Bool(true)).with_id("7").with_attempt(2));
        assert_eq!((given.id.as_str(), given.attempt, given.config), ("7", 2, Value::Bool(true)));
        assert_eq!((given.chain.as_str(), given.version.as_str(), given.revision), ("test", "test", 1));
    }

    #[test]
    fn a_static_lasts_as_long_as_its_instance() {
        let first = count_static(Value::Null);
        assert_eq!(count_static(Value::Null), first + 1);
    }

    #[test]
    fn items_come_out_unchanged() {
        assert_eq!(allocate(5.into(), &Context::for_test(Allocate { mebibytes: 1 })), 5.into());
        assert_eq!(print(5.into()), 5.into());
        assert_eq!(chatter(5.into(), &Context::for_test(Chatter { lines: 3 })), 5.into());
    }

    #[test]
    fn the_environment_is_what_the_guest_sees() {
        let environment = environment(Value::Null);
        assert_eq!(environment.variables.len(), env::vars().count());
        assert_eq!(environment.arguments.len(), env::args().count());
    }
}
