//! The nats-server of a test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{DEADLINE, repository};

/// Stops the server when its standard input ends. So the server does not outlive a killed test process.
const GUARD: &str =
    r#"exec 3<&0; "$@" </dev/null 3<&- & server=$!; cat <&3 >/dev/null; kill -9 "$server"; wait "$server""#;

/// Any free port.
const ANY: &str = "-1";
/// A route to no server. The JetStream of a clustered server does not start without a route.
const NOBODY: &str = "nats://127.0.0.1:1";

/// A server on a free port. Its data is in a folder that is removed with it.
pub struct Server {
    guard: Child,
    folder: tempfile::TempDir,
    /// The configuration without the lines that [`Routes`] adds.
    configuration: String,
    routes: Option<Routes>,
    /// The URL for clients.
    pub url: String,
    /// The process of the server. Its guard is another process.
    process: u32,
}

/// The addresses of several servers for their routes to each other.
#[derive(Clone)]
struct Routes {
    port: String,
    others: Vec<String>,
    /// `true` if the servers tell clients about each other.
    is_advertised: bool,
}

impl Server {
    /// Starts a server with the repository's configuration and more lines.
    pub fn start(more: &str) -> Self {
        let configuration = std::fs::read_to_string(repository().join("nats.conf")).unwrap();
        Self::with_configuration(&format!("{configuration}\n{more}\n"))
    }

    /// Starts a server with another configuration.
    pub fn with_configuration(configuration: &str) -> Self {
        Self::launched(configuration.to_owned(), None)
    }

    /// Starts one of several servers, of which a majority is needed.
    fn beside(number: usize, others: Vec<String>, is_advertised: bool) -> Self {
        let configuration = std::fs::read_to_string(repository().join("nats.conf")).unwrap();
        let name = format!("server_name: server-{number}");
        let configuration = configuration.replacen("server_name: pcluster", &name, 1);
        assert!(configuration.contains(&name), "nats.conf names its server in another way");
        Self::launched(configuration, Some(Routes { port: ANY.to_owned(), others, is_advertised }))
    }

    fn launched(configuration: String, routes: Option<Routes>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { guard: nothing(), folder, configuration, routes, url: String::new(), process: 0 };
        server.launch(ANY);
        server
    }

    /// Kills the server. As after a loss of power, only the data on its disk remains.
    pub fn kill(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }

    /// Kills the server, and starts it again. The data and the address stay.
    pub fn restart(&mut self) {
        self.restart_after(|| {});
    }

    /// Restarts the server, and calls `meanwhile` while it is down.
    pub fn restart_after(&mut self, meanwhile: impl FnOnce()) {
        self.kill();
        meanwhile();
        self.launch(&port(&self.url));
    }

    /// Kills the server, and starts it again without its data. The address stays.
    pub fn restart_empty(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join(".nats")).unwrap();
        self.launch(&port(&self.url));
    }

    /// Kills the server, and starts it again with another configuration. The data and the address stay.
    pub fn restart_with(&mut self, configuration: &str) {
        configuration.clone_into(&mut self.configuration);
        self.restart();
    }

    /// Sends the server a signal by its name, as in `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.process.to_string()]).status().unwrap();
        assert!(status.success(), "cannot send {name}");
    }

    /// Returns the address for leaf nodes, if the configuration has one. Only the server's log contains the port.
    pub fn leafnodes(&self) -> String {
        let log = self.log();
        let (_, said) =
            log.split_once("Listening for leafnode connections on ").expect("no leaf nodes are listened for");
        said.lines().next().unwrap().to_owned()
    }

    /// Returns the log of the server.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn launch(&mut self, port: &str) {
        let folder = self.folder.path();
        let file = folder.join("nats.conf");
        let routes = self.routes.as_ref().map(Routes::configuration).unwrap_or_default();
        std::fs::write(&file, format!("{}\n{routes}\n", self.configuration)).unwrap();
        let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        for left in entries.filter(|path| path.extension().is_some_and(|extension| extension == "ports")) {
            std::fs::remove_file(left).unwrap();
        }
        let log = folder.join("log");
        self.guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(program())
            .args(["-a", "127.0.0.1", "-p", port, "-c"])
            .arg(&file)
            .arg("--ports_file_dir")
            .arg(folder)
            .arg("-l")
            .arg(&log)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let (process, ports) = loop {
            if let Some(found) = ports_in(folder) {
                break found;
            }
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(self.guard.try_wait().unwrap().is_none(), "nats-server ended: {}", said());
            assert!(started.elapsed() < DEADLINE, "nats-server did not start: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        };
        self.process = process;
        ports["nats"][0].as_str().unwrap().clone_into(&mut self.url);
        if let Some(routes) = &mut self.routes {
            routes.port = self::port(ports["cluster"][0].as_str().unwrap());
        }
    }
}

impl Routes {
    fn configuration(&self) -> String {
        let others = if self.others.is_empty() { vec![NOBODY.to_owned()] } else { self.others.clone() };
        let others: Vec<String> = others.iter().map(|url| format!("\"{url}\"")).collect();
        let (port, others, is_hidden) = (&self.port, others.join(", "), !self.is_advertised);
        format!(
            "cluster {{ name: several, listen: \"127.0.0.1:{port}\", routes: [{others}], no_advertise: {is_hidden} }}"
        )
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- nats-server at {}:\n{}", self.url, self.log());
        }
    }
}

/// Servers that keep copies of each other's streams.
pub struct Servers(Vec<Server>);

impl Servers {
    /// Starts three servers. They have not found each other yet.
    pub fn start() -> Self {
        Self::launched(true)
    }

    /// Starts three servers that do not tell clients about each other, so that a proxy in front of each can cut them off.
    pub fn unadvertised() -> Self {
        Self::launched(false)
    }

    fn launched(is_advertised: bool) -> Self {
        let mut servers = vec![Server::beside(1, Vec::new(), is_advertised)];
        for number in 2..=3 {
            let others = servers.iter().filter_map(|server| Some(server.routes.as_ref()?.url())).collect();
            servers.push(Server::beside(number, others, is_advertised));
        }
        // A server that starts again finds the others by their addresses.
        let all: Vec<String> = servers.iter().filter_map(|server| Some(server.routes.as_ref()?.url())).collect();
        for server in &mut servers {
            if let Some(routes) = &mut server.routes {
                routes.others.clone_from(&all);
            }
        }
        Self(servers)
    }

    /// Returns the server with this name.
    pub fn named(&mut self, name: &str) -> &mut Server {
        let number: usize = name.trim_start_matches("server-").parse().unwrap();
        &mut self.0[number - 1]
    }
}

/// The addresses and processes of a test's servers.
pub trait Nats {
    /// Returns the URL of each server, separated by commas.
    fn url(&self) -> String;

    /// Returns the process of each server.
    fn processes(&self) -> Vec<u32>;
}

impl Nats for Server {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.process]
    }
}

impl Nats for Servers {
    fn url(&self) -> String {
        self.0.iter().map(|server| server.url.as_str()).collect::<Vec<_>>().join(",")
    }

    fn processes(&self) -> Vec<u32> {
        self.0.iter().map(|server| server.process).collect()
    }
}

/// Returns a process that has ended, as a placeholder.
fn nothing() -> Child {
    Command::new("true").stdin(Stdio::piped()).spawn().unwrap()
}

/// Returns the port of a URL.
fn port(url: &str) -> String {
    url.rsplit(':').next().unwrap().to_owned()
}

/// Returns the process of a server and its addresses. They are in its file `<program>_<process>.ports`.
fn ports_in(folder: &Path) -> Option<(u32, serde_json::Value)> {
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let process = file.file_stem()?.to_str()?.rsplit('_').next()?.parse().ok()?;
    Some((process, serde_json::from_slice(&std::fs::read(file).ok()?).ok()?))
}

/// Returns the path of nats-server: from the environment, from `make setup`, or from `PATH`.
pub fn program() -> PathBuf {
    let provided = repository().join(".tools/bin/nats-server");
    match std::env::var_os("PCLUSTER_NATS_SERVER") {
        Some(path) => path.into(),
        None if provided.exists() => provided,
        None => "nats-server".into(),
    }
}
