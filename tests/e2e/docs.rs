//! The pages show the output of real commands. Each `$ command` of a `console` block runs in a shell, and its output is compared
//! with the page. Values that differ from run to run, such as times, ids and rates, are masked on both sides.

mod masked;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::examples::{MPI, PICTURES, STARS};
use masked::comparable;
use support::{Cluster, NatsClient, Run, Server, plugin, probe_chain, repository, sequence};

const PAGES: [&str; 14] = [
    "README.md",
    "runtime/README.md",
    "runtime/CALLS.md",
    "runtime/WIRE.md",
    "runtime/WORKERS.md",
    "sdk/README.md",
    "sdk/CASES.md",
    "sdk/PROGRAMS.md",
    "sdk/c/README.md",
    "sdk/go/README.md",
    "sdk/js/README.md",
    "sdk/python/README.md",
    "tests/README.md",
    "plugins/mpi/README.md",
];

/// A page and a section of it whose `console` blocks are run.
pub type Shown = (&'static str, &'static str);

/// Commands that need no cluster.
const DOOR: [Shown; 1] = [("README.md", "Quick start")];

/// Commands on a cluster of three nodes, in this order.
const BY_HAND: [Shown; 3] =
    [("runtime/README.md", "A chain"), ("runtime/README.md", "Logs"), ("runtime/README.md", "Measuring a chain")];

/// Commands of an author in the folder of the task, in this order.
const OWN_TASK: [Shown; 5] = [
    ("sdk/README.md", "Test and build"),
    ("sdk/README.md", "Try it in one process"),
    ("sdk/README.md", "Run it on a cluster"),
    ("runtime/README.md", "Versions and reset"),
    ("runtime/README.md", "Dead letters"),
];

/// A block of code on a page.
struct Block {
    section: String,
    language: String,
    /// The last line before the block.
    title: String,
    text: String,
}

fn read(page: &str) -> String {
    std::fs::read_to_string(repository().join(page)).unwrap()
}

/// Splits a page into its prose, with the heading that each line stands under, and its blocks of code.
fn split(page: &str) -> (Vec<(String, String)>, Vec<Block>) {
    let (mut prose, mut blocks): (Vec<(String, String)>, Vec<Block>) = Default::default();
    let (mut section, mut is_code) = (String::new(), false);
    for line in read(page).lines() {
        match (line.strip_prefix("```"), blocks.last_mut().filter(|_| is_code)) {
            (Some(_), Some(_)) => is_code = false,
            (None, Some(block)) => _ = writeln!(block.text, "{line}"),
            (Some(language), None) => {
                let title = prose.iter().rev().find(|(_, line)| !line.is_empty());
                let title = title.map(|(_, line)| line.clone()).unwrap_or_default();
                let (section, language) = (section.clone(), language.to_owned());
                blocks.push(Block { section, language, title, text: String::new() });
                is_code = true;
            }
            (None, None) => {
                if line.starts_with('#') {
                    line.trim_start_matches('#').trim().clone_into(&mut section);
                }
                prose.push((section.clone(), line.to_owned()));
            }
        }
    }
    assert!(!is_code, "a block of {page} has no end");
    (prose, blocks)
}

/// The `console` blocks of a section.
fn consoles(page: &str, section: &str) -> Vec<String> {
    let is_meant = |block: &Block| block.section == section && block.language == "console";
    let blocks: Vec<String> = split(page).1.into_iter().filter(is_meant).map(|block| block.text).collect();
    assert!(!blocks.is_empty(), "{page} shows no command under {section}");
    blocks
}

/// The file that a page shows below its name.
fn shown_file(page: &str, name: &str) -> String {
    find_file(page, name, |_| true)
}

/// The file that a section of a page shows below its name.
pub fn shown_file_of(page: &str, section: &str, name: &str) -> String {
    find_file(page, name, |block| block.section == section)
}

fn find_file(page: &str, name: &str, is_meant: impl Fn(&Block) -> bool) -> String {
    let blocks = split(page).1;
    let block = blocks.iter().find(|block| block.title == format!("`{name}`:") && is_meant(block));
    block.unwrap_or_else(|| panic!("{page} does not show {name}")).text.clone()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = split(page).0.into_iter().filter(|(_, line)| line.starts_with('#'));
    let kept = |letter: &char| letter.is_alphanumeric() || ['-', '_', ' '].contains(letter);
    headings
        .map(|(heading, _)| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}

/// The folder in which a page's commands run, with the parts of the repository that they name.
fn scratch(cluster: &Cluster) -> PathBuf {
    plugin("text");
    let folder = cluster.path("pcluster");
    std::fs::create_dir(&folder).unwrap();
    for name in ["LICENSE", "plugins", "sdk", "target"] {
        symlink(repository().join(name), folder.join(name)).unwrap();
    }
    folder
}

/// Runs a command line in a shell that finds `pcluster`. Its errors are among its output.
pub fn shell(cluster: &Cluster, folder: &Path, line: &str) -> Run {
    let pcluster = cluster.command(&[]);
    let programs = Path::new(pcluster.get_program()).parent().unwrap().to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&others))).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1\n{line}")]).current_dir(folder);
    shell.envs(pcluster.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", path);
    // The order of words of equal count.
    shell.env("LC_ALL", "C");
    Run::of(shell, b"")
}

/// Runs the commands of sections one after the other, and compares each output with the page's.
#[track_caller]
pub fn run_as_shown(cluster: &Cluster, folder: &Path, sections: &[Shown]) {
    run_as_shown_but(cluster, folder, sections, str::to_owned);
}

/// Runs commands as [`run_as_shown`] does, on blocks that `changed` changes first.
#[track_caller]
pub fn run_as_shown_but(cluster: &Cluster, folder: &Path, sections: &[Shown], changed: impl Fn(&str) -> String) {
    for (page, section) in sections {
        for text in consoles(page, section) {
            let text = changed(&text);
            let commands = text.strip_prefix("$ ").expect("a command before its output");
            for command in commands.split("\n$ ") {
                let (line, shown) = command.split_once('\n').unwrap_or((command, ""));
                let printed = shell(cluster, folder, line).stdout;
                let [shown_lines, printed_lines] = [shown, &printed].map(|output| comparable(line, output));
                assert_eq!(printed_lines, shown_lines, "{page}, {section}: `{line}` printed\n{printed}");
            }
        }
    }
}

#[test]
fn every_command_that_a_page_shows_with_its_output_is_run() {
    for page in PAGES {
        for Block { section, language, text, .. } in split(page).1 {
            let is_run = [&DOOR[..], &BY_HAND, &OWN_TASK, &MPI, &PICTURES, &STARS].concat().contains(&(page, &section));
            assert!(language != "console" || is_run, "no test runs the commands of {page}, {section}");
            assert!(
                language == "console" || !text.starts_with("$ "),
                "{page}, {section} shows commands as `{language}`"
            );
        }
    }
}

#[test]
fn the_readme_is_short_and_every_link_leads_somewhere() {
    let words = read("README.md").split_whitespace().count();
    assert!(words <= 1200, "README.md has {words} words");
    for page in PAGES {
        for (section, line) in split(page).0 {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if link.starts_with("https://") {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let folder = Path::new(page).parent().unwrap();
                let path = repository().join(folder).join(file);
                assert!(file.is_empty() || path.exists(), "{page}, {section}: {link} leads nowhere");
                if anchor.is_empty() {
                    continue;
                }
                let target = if file.is_empty() { repository().join(page) } else { path };
                let is_target = |page: &&str| repository().join(page).canonicalize().ok() == target.canonicalize().ok();
                let target =
                    PAGES.into_iter().find(is_target).unwrap_or_else(|| panic!("{page}: {link} is not a page"));
                assert!(anchors(target).contains(anchor), "{page}, {section}: {target} has no #{anchor}");
            }
        }
    }
}

#[test]
fn the_readme_shows_what_the_example_is_and_prints() {
    let cluster = Cluster::start();
    let folder = scratch(&cluster);
    run_as_shown(&cluster, &folder, &DOOR);
    for block in split("README.md").1.iter().filter(|block| block.section == "A task") {
        let file = if block.language == "rust" { "plugins/text/src/lib.rs" } else { "plugins/text/chain.toml" };
        assert!(read(file).contains(&block.text), "{file} is not as README.md has it:\n{}", block.text);
    }
}

#[test]
fn a_cluster_by_hand_prints_what_the_page_shows() {
    let cluster = Cluster::start();
    let folder = scratch(&cluster);
    let _nodes = ["a", "b", "c"].map(|name| cluster.node(name));
    run_as_shown(&cluster, &folder, &BY_HAND);
}

#[test]
fn a_task_of_ones_own_is_built_run_and_mended_as_the_pages_show() {
    let cluster = Cluster::start();
    scratch(&cluster);
    let folder = cluster.path("greet");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    // The sdk at its real path, and what the workspace has compiled of it, so that the task alone is compiled here.
    let sdk = repository().join("sdk").display().to_string();
    let manifest = shown_file("sdk/README.md", "greet/Cargo.toml").replace("../pcluster/sdk", &sdk);
    assert!(manifest.contains(&sdk), "{manifest}");
    cluster.file("greet/Cargo.toml", manifest);
    cluster.file("greet/src/lib.rs", shown_file("sdk/README.md", "greet/src/lib.rs"));
    cluster.file("greet/chain.toml", shown_file("sdk/README.md", "greet/chain.toml"));
    std::fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    symlink(repository().join("target"), folder.join("target")).unwrap();
    let build = "unset CARGO_TARGET_DIR; cargo build --quiet --offline --release --target wasm32-wasip1";
    assert_eq!(shell(&cluster, &folder, build).succeeded(), "");

    let _node = cluster.node("a");
    run_as_shown(&cluster, &folder, &OWN_TASK);
}

#[test]
fn the_tables_name_every_command_and_setting() {
    let cluster = Cluster::start();
    let help = cluster.ok(&["help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    // What is left is the continuation of a line before.
    let commands = commands.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let commands: Vec<&str> =
        commands.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").collect();
    assert!(commands.len() > 10, "{help}");
    let settings: serde_json::Value = serde_json::from_str(&cluster.ok(&["config", "--json"])).unwrap();
    let settings: Vec<&str> = settings.as_array().unwrap().iter().map(|each| each["key"].as_str().unwrap()).collect();
    for (page, section, names) in [
        ("README.md", "Commands", &commands),
        ("runtime/README.md", "Commands", &commands),
        ("runtime/README.md", "Settings", &settings),
    ] {
        let rows = split(page).0.into_iter().filter(|(heading, line)| heading == section && line.starts_with('|'));
        let first: Vec<String> = rows.filter_map(|(_, row)| Some(row.split('|').nth(1)?.to_owned())).collect();
        let first = first.join(" ");
        let named: BTreeSet<&str> =
            first.split(|letter: char| !letter.is_alphanumeric() && !"_.".contains(letter)).collect();
        let missing: Vec<&&str> = names.iter().filter(|name| !named.contains(**name)).collect();
        assert!(missing.is_empty(), "{page}, {section} does not name {missing:?}");
    }
}

#[test]
fn the_manifest_of_the_page_can_be_deployed() {
    let cluster = Cluster::start();
    let mut blocks = split("runtime/README.md").1.into_iter();
    let manifest = blocks.find(|block| block.section == "The manifest").unwrap().text;
    let greet = "target/wasm32-wasip1/release/greet.wasm";
    assert!(manifest.contains(greet) && manifest.contains("task = \"greet\""), "{manifest}");
    let manifest = manifest.replace(greet, &plugin("probe")).replace("task = \"greet\"", "task = \"echo\"");
    cluster.deploy(&manifest);
    assert_eq!(cluster.status("everything")["revisions"][0]["version"], "1.0");
}

#[test]
fn the_permissions_of_the_page_are_enough_for_each_user() {
    let mut blocks = split("runtime/README.md").1.into_iter();
    let server = Server::start(&blocks.find(|block| block.section == "Permissions").unwrap().text);
    let anonymous = server.url.clone();
    let mut cluster = Cluster::with_server(server);
    let as_user = |user: &str| anonymous.replacen("//", &format!("//{user}:secret@"), 1);
    cluster.server.url = as_user("operator");
    cluster.deploy(&probe_chain("greetings", &["obey"], "retry = { attempts = 2, backoff = [\"10ms\"] }"));
    cluster.server.url = as_user("node");
    let mut node = cluster.node("a");
    cluster.server.url = as_user("app");
    let client = NatsClient::connect(&cluster);
    client.publish("pcluster.greetings.in", &[], sequence(["fatal", "flaky 1", "echo 2"])).unwrap();
    cluster.server.url = as_user("feeder");
    cluster.ok(&["feed", "greetings", "\"echo 1\""]);
    cluster.server.url = as_user("puller");
    cluster.ok(&["pull", "greetings", "-n", "1"]);
    cluster.server.url = as_user("operator");
    cluster.ok(&["wait", "greetings"]);
    cluster.ok(&["dead", "retry", "greetings", "--all"]);
    cluster.ok(&["wait", "greetings"]);
    cluster.ok(&["reset", "greetings"]);
    assert_eq!(node.stop(), Some(0));
    assert!(!node.stderr().contains("no permission"), "{}", node.stderr());
}
