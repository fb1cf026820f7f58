//! The packages for Python and JavaScript as registries have them: packed, installed into an empty folder, and used from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{
    Cluster, Run, build_javascript, build_python, installed_packages, javascript_package, javascript_program, python,
    python_package, repository,
};

/// Copies files of a folder of the repository into a new one.
fn copied(cluster: &Cluster, from: &str, files: &[&str]) -> PathBuf {
    let folder = cluster.path(from.rsplit('/').next().unwrap());
    fs::create_dir_all(&folder).unwrap();
    for name in files {
        fs::copy(repository().join(from).join(name), folder.join(name)).unwrap();
    }
    folder
}

/// Builds a folder with `pcluster build` and no network. Returns the plugin.
fn built(cluster: &Cluster, folder: &Path, variables: &[(&str, &Path)]) -> Vec<u8> {
    let mut build = cluster.command(&["build", folder.to_str().unwrap(), "--offline"]);
    build.envs(variables.iter().copied()).env_remove("PYTHONPATH").env_remove("NODE_PATH");
    fs::read(cluster.path(Run::of(build, b"").succeeded().trim())).unwrap()
}

/// Returns a command of the npm that belongs to Node.js.
fn npm(cluster: &Cluster, arguments: &[&str]) -> Command {
    let node = fs::canonicalize(javascript_program()).unwrap();
    let own = node.ancestors().nth(2).unwrap().join("lib/node_modules/npm/bin/npm-cli.js");
    let mut command = if own.exists() { Command::new(node) } else { Command::new("npm") };
    command.args(own.exists().then_some(own)).args(["--silent", "--offline"]).args(arguments);
    command.env("npm_config_cache", cluster.path("npm-cache"));
    command
}

#[test]
fn the_package_of_npm_builds_and_tests_a_task_in_an_empty_folder() {
    let cluster = Cluster::start();
    let folder = copied(&cluster, "plugins/typescript", &["orders.ts", "orders.test.ts", "package.json"]);
    let own = cluster.path("own.wasm");
    build_javascript(&folder, &own).succeeded();

    let mut pack = npm(&cluster, &["pack", "--pack-destination"]);
    pack.arg(cluster.path("")).current_dir(javascript_package());
    let packed = cluster.path(Run::of(pack, b"").succeeded().trim());
    let mut install = npm(&cluster, &["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]);
    install.arg(packed).arg(repository().join(".tools/npm/node_modules/esbuild")).current_dir(&folder);
    Run::of(install, b"").succeeded();
    assert!(!folder.join("node_modules/pcluster").is_symlink());

    let mut build = Command::new(javascript_program());
    build.arg("node_modules/.bin/pcluster-build").args([".", "-o", "out.wasm"]).current_dir(&folder);
    Run::of(build, b"").succeeded();
    let mut tests = Command::new(javascript_program());
    tests.args(["--import", "pcluster/register", "--test", "orders.test.ts"]).current_dir(&folder);
    Run::of(tests, b"").succeeded();
    let own = fs::read(own).unwrap();
    assert!(own == fs::read(folder.join("out.wasm")).unwrap(), "the package makes the same plugin");
    assert!(own == built(&cluster, &folder, &[]), "so does it for `pcluster build`");
}

#[test]
fn the_wheel_builds_and_tests_a_task_in_an_empty_environment() {
    let cluster = Cluster::start();
    let folder = copied(&cluster, "plugins/orders", &["orders.py", "test_orders.py"]);
    let own = cluster.path("own.wasm");
    build_python(&folder, &own).succeeded();

    // The wheel of a clean copy: setuptools takes along what it has left in the folder before.
    let source = cluster.path("source");
    fs::create_dir(&source).unwrap();
    for name in ["pyproject.toml", "README.md"] {
        fs::copy(repository().join("sdk/python").join(name), source.join(name)).unwrap();
    }
    let mut copy = Command::new("cp");
    copy.arg("-rL").arg(python_package()).arg(source.join("src"));
    Run::of(copy, b"").succeeded();
    let mut wheel = python(&["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index"]);
    wheel.args(["--no-deps", "--no-build-isolation", "--wheel-dir"]).arg(cluster.path("wheels")).arg(&source);
    wheel.env("PYTHONPATH", installed_packages("python-wheel"));
    Run::of(wheel, b"").succeeded();

    let venv = cluster.path("venv");
    Run::of(python(&["-m", "venv", "--without-pip", venv.to_str().unwrap()]), b"").succeeded();
    let program = venv.join("bin/python");
    let mut install = python(&["-m", "pip", "--disable-pip-version-check", "--python"]);
    install.arg(&program).args(["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--find-links"]);
    install.arg(cluster.path("wheels")).arg("pcluster").env_remove("PYTHONPATH");
    Run::of(install, b"").succeeded();

    let stranger = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(&folder).env_remove("PYTHONPATH").env("PYTHONDONTWRITEBYTECODE", "1");
        Run::of(command, b"").succeeded()
    };
    stranger(&["-m", "unittest", "--quiet"]);
    stranger(&["-m", "pcluster.build", ".", "-o", "../out.wasm"]);
    let own = fs::read(own).unwrap();
    assert!(own == fs::read(cluster.path("out.wasm")).unwrap(), "the wheel makes the same plugin");
    assert!(own == built(&cluster, &folder, &[("PCLUSTER_PYTHON", &program)]), "so does it for `pcluster build`");
    let typed =
        "import importlib.resources as all, pcluster.worker; print(all.files(pcluster).joinpath('py.typed').is_file())";
    assert_eq!(stranger(&["-c", typed]), "True\n");
}
