//! `pcluster dev --watch`: builds and deploys again what has changed, each content as a version of its own.
//!
//! What cannot be built or deployed is told, and what was deployed last keeps running. Files are followed by their content, so
//! what a build writes beside its sources comes to nothing: the next build finds the plugin of these sources.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::mpsc;

use super::changes::Changes;
use super::keys::{Key, Keys};
use super::own::{Own, check};
use super::show::show;
use super::{Args, feed, make_stores, sources};
use crate::cli::exit::Interrupted;
use crate::cli::output::{OutputError, count, seconds};
use crate::cli::{Context, build, deploy};
use crate::client::deploy::deploy_with;
use crate::client::{Client, DeployOptions, Deployment, Package};
use crate::contents::Contents;
use crate::name::ChainName;

/// How often the node is asked whether it serves a revision.
const ASK: Duration = Duration::from_millis(20);
/// How long a node may take to serve a revision until the user hears of the swap.
const SERVE: Duration = Duration::from_mins(1);
/// How long it must be silent after an error before that is told again.
const SILENT: Duration = Duration::from_secs(1);
/// How often a build is followed by another because files were written meanwhile.
const WRITES: u32 = 3;
/// How many files are named that have changed. Others are counted.
const NAMED: usize = 2;

/// What all that is deployed by one command shares.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    /// The arguments of the command.
    pub(super) args: &'a Args,
    /// The client of its server.
    pub(super) client: &'a Client,
    /// The output and the settings.
    pub(super) context: &'a Context,
    /// Hears of results that could not be printed.
    pub(super) unprinted: &'a mpsc::UnboundedSender<OutputError>,
    /// The contents that the node allows all that they ask for.
    pub(super) contents: &'a Contents,
}

/// The manifests that are watched.
pub(super) struct Watching<'a> {
    shared: Shared<'a>,
    manifests: Vec<Watched>,
    /// The chains whose results are shown.
    shown: BTreeSet<ChainName>,
    changes: Changes,
    /// `true` if the items have changed.
    is_fed_anew: bool,
    /// What was told last of what is broken. Empty if nothing is.
    told: String,
}

/// A manifest that is watched.
struct Watched {
    path: PathBuf,
    /// The files and folders that the manifest names.
    named: BTreeSet<PathBuf>,
    /// The files outside of them that were read to build its plugins.
    read: BTreeSet<PathBuf>,
    /// What runs. `None` before the first deploy.
    running: Option<Deployment>,
    /// Why what is there does not run. `None` if it does.
    error: Option<String>,
}

/// A deploy, and how long it took.
struct Swap {
    deployment: Deployment,
    built: Duration,
    swapped: Duration,
}

impl<'a> Watching<'a> {
    /// Watches manifests.
    pub(super) fn new(shared: Shared<'a>, manifests: Vec<PathBuf>) -> Self {
        let watched = |path: PathBuf| Watched {
            named: [sources::file_of(&path)].into(),
            path,
            read: BTreeSet::new(),
            running: None,
            error: None,
        };
        let manifests = manifests.into_iter().map(watched).collect();
        let changes = Changes::default();
        Self { shared, manifests, shown: BTreeSet::new(), changes, is_fed_anew: false, told: String::new() }
    }

    /// Deploys what is there and, again and again, what has changed. Returns when the user ends it.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        self.follow();
        let mut keys = Keys::open();
        tokio::select! {
            told = self.round(&[]) => told?,
            () = keys.quit() => return Ok(()),
        }
        let keys_told = if keys.is_open() { "; t runs the cases, q ends" } else { "" };
        self.shared.context.output.note(&format!("watching {}{keys_told}", count_files(self.changes.count())));
        loop {
            let changed = tokio::select! {
                changed = self.changes.next() => changed,
                key = keys.next() => match key {
                    Key::Quit => return Ok(()),
                    Key::Test => {
                        tokio::select! {
                            () = self.test() => continue,
                            () = keys.quit() => return Ok(()),
                        }
                    }
                },
                () = remind(&self.told, self.shared.context) => continue,
            };
            // A build may take minutes.
            tokio::select! {
                told = self.round(&changed) => told?,
                () = keys.quit() => return Ok(()),
            }
        }
    }

    /// Runs the cases of all manifests, each in a process of its own: it ends with this one.
    async fn test(&self) {
        let context = self.shared.context;
        for Watched { path, .. } in &self.manifests {
            let tested = async {
                let mut command = tokio::process::Command::new(std::env::current_exe()?);
                command.arg("test").arg(path).stdin(Stdio::null()).kill_on_drop(true);
                if context.output.is_json() {
                    command.arg("--json");
                }
                command.status().await
            };
            if let Err(error) = tested.await {
                context.output.note(&format!("error: `pcluster test` cannot start: {error}"));
            }
        }
    }

    /// Follows all files that manifests are made of, and the file of items.
    fn follow(&mut self) {
        let mut roots: BTreeSet<PathBuf> = self.shared.args.feed_file.iter().cloned().collect();
        for manifest in &mut self.manifests {
            if let Some(named) = sources::of(&manifest.path) {
                manifest.named = named;
            }
            roots.extend(manifest.named.iter().chain(&manifest.read).cloned());
        }
        self.changes.follow(roots);
    }

    /// Deploys what is another content than before, and feeds the items again if any is, or if they have changed.
    async fn round(&mut self, changed: &[PathBuf]) -> anyhow::Result<()> {
        let is_first = changed.is_empty();
        // A file that a changed manifest names for the first time must be known before it is built.
        self.follow();
        self.is_fed_anew = changed.iter().any(|path| self.is_items(path));
        let mut swaps = Vec::new();
        let mut is_any_broken = false;
        for index in 0..self.manifests.len() {
            match self.deploy(index).await {
                Ok(swap) => {
                    self.manifests[index].error = None;
                    self.manifests[index].running = Some(swap.deployment.clone());
                    swaps.extend(Some(swap).filter(|swap| swap.deployment.is_new || is_first));
                }
                // The command is ending.
                Err(error) if error.is::<Interrupted>() => std::future::pending().await,
                Err(error) => {
                    is_any_broken = true;
                    self.tell_error(index, &error, changed);
                }
            }
        }
        self.follow();
        let is_mended = !is_any_broken && !std::mem::take(&mut self.told).is_empty();
        let fed = if self.is_fed_anew || !swaps.is_empty() { self.feed().await } else { 0 };
        for swap in &swaps {
            self.tell(swap, fed, changed);
        }
        let output = &self.shared.context.output;
        if swaps.is_empty() && self.is_fed_anew {
            output.note(&format!("{} changed: {} fed, results below", name(changed), count(fed, "item")));
        } else if swaps.is_empty() && is_mended {
            output.note(&format!("{} changed: as what runs already", name(changed)));
        }
        Ok(())
    }

    /// Builds and deploys a manifest.
    async fn deploy(&mut self, index: usize) -> anyhow::Result<Swap> {
        let Shared { client, context, unprinted, contents, .. } = self.shared;
        let started = Instant::now();
        let mut prepared = self.build(index).await;
        for _ in 0..WRITES {
            // What a build writes beside its sources is no change: the next one finds the plugin of what is there now. Of several
            // chains, another one may be what has changed.
            let written = if self.manifests.len() == 1 { self.changes.now() } else { Vec::new() };
            if written.is_empty() {
                break;
            }
            self.is_fed_anew |= written.iter().any(|path| self.is_items(path));
            prepared = self.build(index).await;
        }
        let (own, package) = prepared?;
        let built = started.elapsed();
        make_stores(client, &own.grants, &context.output).await?;
        let started = Instant::now();
        let options = DeployOptions { is_try: true, ..DeployOptions::default() };
        let deployment = deploy_with(client, package, options, |content| contents.add(content.clone())).await?;
        if self.shown.insert(deployment.chain.clone()) {
            show(client, &deployment.chain, &context.output, unprinted).await?;
        }
        for doubt in deployment.doubts.iter().filter(|_| deployment.is_new) {
            context.output.note(doubt);
        }
        if deployment.is_new {
            let _ = tokio::time::timeout(SERVE, served(client, &deployment)).await;
        }
        Ok(Swap { deployment, built, swapped: started.elapsed() })
    }

    /// Checks a manifest and builds its plugins.
    async fn build(&mut self, index: usize) -> anyhow::Result<(Own, Package)> {
        let file = sources::file_of(&self.manifests[index].path);
        if !file.exists() {
            let file = file.display();
            return Err(anyhow!(
                "there is no `{file}` yet: start a chain with `pcluster new NAME`, or name its folder"
            ));
        }
        let own = check(self.manifests[index].path.clone())?;
        let Shared { args, context, .. } = self.shared;
        let (package, read) = build::package_in_silence(&own.path, args.how, context).await?;
        self.manifests[index].read = read.into_iter().collect();
        Ok((own, package))
    }

    /// Returns `true` if a file is that of the items.
    fn is_items(&self, path: &Path) -> bool {
        self.shared.args.feed_file.as_ref().is_some_and(|file| super::changes::plain(file) == *path)
    }

    /// Feeds the items of the command line. Tells if that fails, and goes on.
    async fn feed(&self) -> u64 {
        let Some(deployment) = self.manifests.iter().find_map(|manifest| manifest.running.as_ref()) else { return 0 };
        feed(self.shared.args, self.shared.client, &deployment.chain).await.unwrap_or_else(|error| {
            self.shared.context.output.error(&error);
            0
        })
    }

    fn tell(&self, swap: &Swap, fed: u64, changed: &[PathBuf]) {
        let Swap { deployment, built, swapped } = swap;
        let (built, swapped) = (seconds(*built), seconds(*swapped));
        let fed = if fed > 0 { format!("{} fed, ", count(fed, "item")) } else { String::new() };
        let what = if changed.is_empty() { String::new() } else { format!("{} changed: ", name(changed)) };
        let deployed = deploy::describe(deployment);
        let line = format!("{what}{deployed}; built in {built}, swapped in {swapped}; {fed}results below");
        self.shared.context.output.note(&line);
    }

    /// Tells why a manifest is not deployed, unless nothing is new about it.
    fn tell_error(&mut self, index: usize, error: &anyhow::Error, changed: &[PathBuf]) {
        let manifest = &mut self.manifests[index];
        let said = format!("{error:#}");
        manifest.read.extend(sources::mentioned(&said, &manifest.named));
        let is_about = changed.iter().any(|path| manifest.is_of(path));
        if manifest.error.replace(said.clone()).as_ref() == Some(&said) && !is_about {
            return;
        }
        let output = &self.shared.context.output;
        output.error(error);
        let keeps = match &manifest.running {
            Some(Deployment { chain, version, revision, .. }) => {
                format!("{chain} {version} ({revision}) keeps running until that is mended")
            }
            None => "nothing of it runs until that is mended".to_owned(),
        };
        let what = if changed.is_empty() { String::new() } else { format!("{} changed: ", name(changed)) };
        output.note(&format!("{what}{keeps}"));
        self.told = format!("still not mended: {}", said.lines().next().unwrap_or_default());
    }
}

impl Watched {
    /// Returns `true` if a file is one that the manifest is made of.
    fn is_of(&self, path: &Path) -> bool {
        self.named.iter().chain(&self.read).any(|root| path.starts_with(super::changes::plain(root)))
    }
}

/// Waits until a node serves a revision, or says why it cannot.
async fn served(client: &Client, deployment: &Deployment) {
    let (chain, revision) = (deployment.chain.as_str(), deployment.revision.number());
    loop {
        let nodes = client.nodes().await.map(|nodes| nodes.answered).unwrap_or_default();
        let is_served = nodes.iter().any(|node| {
            node.hops.iter().any(|hop| hop.chain == chain && hop.revision == revision)
                || node.problems.iter().any(|problem| problem.chain == chain && problem.revision == Some(revision))
        });
        if is_served {
            return;
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Tells at a terminal once more what is broken, when other lines have come after it. Never returns if nothing is broken.
async fn remind(told: &str, context: &Context) {
    if told.is_empty() || !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let output = &context.output;
    let mut before = output.lines();
    let told_at = before;
    loop {
        tokio::time::sleep(SILENT).await;
        let now = output.lines();
        if now == before && now != told_at {
            return output.note(told);
        }
        before = now;
    }
}

/// Returns the names of files that have changed.
fn name(changed: &[PathBuf]) -> String {
    let named: Vec<String> = changed.iter().take(NAMED).map(|path| format!("`{}`", path.display())).collect();
    match changed.len() - named.len() {
        0 => named.join(" and "),
        more => format!("{} and {}", named.join(", "), count_files(more)),
    }
}

fn count_files(number: usize) -> String {
    count(number as u64, "file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_are_named_and_many_are_counted() {
        for (changed, told) in [
            (&["a"][..], "`a`"),
            (&["a", "b"], "`a` and `b`"),
            (&["a", "b", "c"], "`a`, `b` and 1 file"),
            (&["a", "b", "c", "d"], "`a`, `b` and 2 files"),
        ] {
            let changed: Vec<PathBuf> = changed.iter().map(PathBuf::from).collect();
            assert_eq!(name(&changed), told);
        }
    }
}
