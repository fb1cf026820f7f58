//! Runs the tools of languages: without the settings of the shell, and in a group of processes that ends with the caller.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::{env, io};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The variables that a tool gets: where things are, and how the network is reached. Anything else could change what is built.
const KEPT: [&str; 40] = [
    "ALL_PROXY",
    "CARGO_HOME",
    "GOCACHE",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPATH",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LOGNAME",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "NPM_CONFIG_CACHE",
    "NPM_CONFIG_REGISTRY",
    "NPM_CONFIG_USERCONFIG",
    "PATH",
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_PROXY",
    "PIP_TRUSTED_HOST",
    "PYENV_ROOT",
    "RUSTUP_AUTO_INSTALL",
    "RUSTUP_DIST_SERVER",
    "RUSTUP_HOME",
    "RUSTUP_UPDATE_ROOT",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "ZIG_GLOBAL_CACHE_DIR",
];
/// The most lines of a tool's message that are shown.
pub(super) const LINES: usize = 24;
/// The variables of package registries that a tool gets, by their prefix.
const KEPT_PREFIXES: [&str; 4] = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];

/// Returns a command without the settings of the shell, which runs in a folder.
pub(super) fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    // Messages are shown, and read, in one language.
    command.env_clear().env("LC_ALL", "C.UTF-8").current_dir(folder);
    command.envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_kept)));
    command
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name.to_ascii_uppercase().as_str()) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Runs a command to its end. Its processes are killed if the future is dropped.
pub(super) async fn output(mut command: Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C at the terminal reaches this process alone, which ends the group.
    let child = command.process_group(0).spawn()?;
    let mut group = Group::of(&child);
    let output = child.wait_with_output().await;
    group.0 = None;
    output
}

/// The processes of a tool. Killed on drop.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Returns a program on the `PATH`.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Returns what a tool printed, as text.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Returns the first lines of a message, which are enough to see the fault.
pub(super) fn first_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    match lines.len() {
        0..=LINES => lines.join("\n"),
        _ => format!("{}\n…", lines[..LINES].join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_where_things_are_is_kept() {
        for name in
            ["PATH", "https_proxy", "CARGO_HOME", "CARGO_REGISTRIES_MY_TOKEN", "PIP_INDEX_URL", "npm_config_registry"]
        {
            assert!(is_kept(name), "{name}");
        }
        for name in [
            "RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "PYTHONPATH",
            "PIP_TARGET",
            "PIP_PRE",
            "RUSTUP_TOOLCHAIN",
            "CFLAGS",
            "GOFLAGS",
        ] {
            assert!(!is_kept(name), "{name}");
        }
    }

    #[tokio::test]
    async fn a_tool_runs_in_its_folder_and_its_output_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut echo = command("sh", folder.path());
        echo.args(["-c", "pwd; echo \"[$RUSTFLAGS]\" >&2; exit 3"]);
        let ended = output(echo).await.expect("it runs");
        let here = folder.path().canonicalize().expect("a path").display().to_string();
        assert_eq!((text(&ended.stdout), text(&ended.stderr)), (here, "[]".to_owned()));
        assert_eq!(ended.status.code(), Some(3));
    }
}
