//! The same job in Colmena with the stores that it uses, if the packages of Python can be had.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::repository;

use super::Items;
use crate::beside::said;
use crate::drain::Sample;
use crate::series::Measured;
use crate::target;
use crate::usage::{Machine, Used};

/// What is installed.
const PACKAGES: [&str; 3] = ["colmena==0.7.2", "proxystore==1.1.0", "parsl==2026.10.26"];

/// Measures the items in Colmena. The error says what it lacks.
pub fn sample(items: Items) -> Measured {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = PYTHON.get_or_init(installed).as_ref().map_err(String::clone)?;
    let mut command = Command::new(python);
    let arguments = [items.number, items.mebibytes, items.at_once].map(|argument| argument.to_string());
    command.arg("colmena_large.py").args(arguments).current_dir(repository().join("tests/bench"));
    let machine = Machine::now();
    let figures: serde_json::Value = serde_json::from_str(&said(&mut command)?).map_err(|error| error.to_string())?;
    let figure = |name: &str| figures[name].as_f64().unwrap();
    let worker = Used { seconds: figure("worker"), peak: figure("worker_mebibytes") };
    Ok(Sample {
        items: items.number as f64,
        bytes: (items.number * items.size()) as f64,
        seconds: figure("seconds"),
        server: Used::default(),
        worker,
        foreign: Machine::now().foreign_since(machine, worker.seconds),
    })
}

/// Installs the packages into a folder of their own, unless they are there. Returns the Python that has them.
fn installed() -> Result<PathBuf, String> {
    let folder = repository().join(target()).join("bench-colmena");
    let python = folder.join("bin/python");
    let has_all = |python: &Path| {
        let listed = said(Command::new(python).args(["-m", "pip", "freeze", "--disable-pip-version-check"]));
        listed.is_ok_and(|listed| PACKAGES.iter().all(|package| listed.lines().any(|line| line == *package)))
    };
    if !has_all(&python) {
        said(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        said(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    }
    Ok(python)
}
