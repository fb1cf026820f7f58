//! A nats-server of a test's own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{DEADLINE, repository};

/// Stops the server when its standard input ends, so that none is left should the test process be killed.
const GUARD: &str =
    r#"exec 3<&0; "$@" </dev/null 3<&- & server=$!; cat <&3 >/dev/null; kill -9 "$server"; wait "$server""#;

/// A server on a free port, with its data in a folder that goes with it.
pub struct Server {
    guard: Child,
    folder: tempfile::TempDir,
    pub url: String,
}

impl Server {
    /// Starts a server with the repository's configuration and `more` added to it.
    pub fn start(more: &str) -> Self {
        let configuration = std::fs::read_to_string(repository().join("nats.conf")).unwrap();
        Self::with_configuration(&format!("{configuration}\n{more}\n"))
    }

    /// Starts a server with a configuration of the test's own.
    pub fn with_configuration(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nats.conf");
        std::fs::File::create(&file).unwrap().write_all(configuration.as_bytes()).unwrap();
        let (guard, url) = launch(&folder, "-1");
        Self { guard, folder, url }
    }

    /// Kills the server and starts it again with the same data at the same address.
    pub fn restart(&mut self) {
        self.restart_after(|| {});
    }

    /// The same, and does something in between.
    pub fn restart_after(&mut self, meanwhile: impl FnOnce()) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        meanwhile();
        let port = self.url.rsplit(':').next().unwrap().to_owned();
        (self.guard, self.url) = launch(&self.folder, &port);
    }

    /// What the server wrote into its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        if std::thread::panicking() {
            eprintln!("--- nats-server at {}:\n{}", self.url, self.log());
        }
    }
}

fn launch(folder: &tempfile::TempDir, port: &str) -> (Child, String) {
    let entries = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path());
    for left in entries.filter(|path| path.extension().is_some_and(|extension| extension == "ports")) {
        std::fs::remove_file(left).unwrap();
    }
    let log = folder.path().join("log");
    let mut guard = Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(program())
        .args(["-a", "127.0.0.1", "-p", port, "-c"])
        .arg(folder.path().join("nats.conf"))
        .arg("--ports_file_dir")
        .arg(folder.path())
        .arg("-l")
        .arg(&log)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    loop {
        if let Some(url) = url_in(folder) {
            return (guard, url);
        }
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(guard.try_wait().unwrap().is_none(), "nats-server ended: {}", said());
        assert!(started.elapsed() < DEADLINE, "nats-server did not start: {}", said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn url_in(folder: &tempfile::TempDir) -> Option<String> {
    let mut files = std::fs::read_dir(folder.path()).ok()?.flatten().map(|entry| entry.path());
    let ports = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(ports).ok()?).ok()?;
    Some(ports["nats"][0].as_str()?.to_owned())
}

/// The program: the one that the environment names, the one that `make setup` provides, or the one on the path.
pub fn program() -> PathBuf {
    let provided = repository().join(".tools/bin/nats-server");
    match std::env::var_os("PCLUSTER_NATS_SERVER") {
        Some(path) => path.into(),
        None if provided.exists() => provided,
        None => "nats-server".into(),
    }
}
