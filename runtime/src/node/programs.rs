//! The programs of a node: which it may run, and what they share.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::archive::ARCHIVE_MAX;
use crate::archive::pack::Packed;
use crate::broker::Broker;
use crate::broker::plugins::Plugins;
use crate::chain::arguments::Argument;
use crate::chain::isolation::Isolation;
use crate::chain::program::{self, Files};
use crate::chain::record::Deployed;
use crate::chain::{Stage, Work};
use crate::lock::lock;
use crate::name::Digest;
use crate::node::runner::ProgramKind;
use crate::program::allow::{Allowed, Wanted, executable};
use crate::program::cgroup::{self, Cgroups};
use crate::program::folder::Folders;
use crate::program::guard::Guards;
use crate::program::guard::message::Bounds;
use crate::program::process::{Executable, Processes};
use crate::program::run::Program;
use crate::program::shipped::{Fetch, Shipped};
use crate::program::worker::{self, Workers};
use crate::report::EndedBy;

/// The folder of all programs of one user's nodes, below the one for temporary files. The user's number follows.
const FOLDER: &str = "pcluster-programs";

/// The most processes and threads of a program together. A program that forks without end takes the machine with it otherwise.
const PROCESSES_MAX: u64 = 4_096;
/// The most bytes of a working folder, and of a file that a program writes.
const FOLDER_MAX: u64 = 16 << 30;
/// How long a worker without items stays.
const IDLE: Duration = Duration::from_mins(5);
/// How long a worker has for its first message at least.
const START: Duration = Duration::from_mins(1);

/// The programs of a node. By default, none is allowed.
#[derive(Default)]
pub(crate) struct Programs {
    allowed: Allowed,
    path: OsString,
    /// `None` if no program is allowed.
    processes: Option<Processes>,
    /// The files that come with stages, by the digests of their archives.
    shipped: Mutex<BTreeMap<Digest, Weak<Shipped>>>,
}

/// Where the files of programs come from. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Archives {
    /// The server.
    Server(Broker),
    /// This process.
    Here(Arc<BTreeMap<Digest, Packed>>),
}

/// What workers need beside their program.
pub(crate) struct Beside {
    /// Where they are listened to.
    pub(crate) runtime: Handle,
    /// The log of their stage.
    pub(crate) log: worker::Log,
    /// How many may live.
    pub(crate) most: usize,
}

impl Programs {
    /// Starts what programs need, if any is allowed. `incarnation` is the node's.
    pub(crate) fn start(allowed: Allowed, incarnation: &str) -> io::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let processes = if allowed.is_empty() { None } else { Some(start(incarnation)?) };
        Ok(Self { allowed, path, processes, shipped: Mutex::default() })
    }

    /// Returns what ends the processes of a program. `None` if the node runs no programs.
    pub(crate) fn ended_by(&self) -> Option<EndedBy> {
        let processes = self.processes.as_ref()?;
        Some(if processes.cgroups.is_some() { EndedBy::Cgroup } else { EndedBy::Reaper })
    }

    /// Ends the programs that run, as [`Processes::end_all`] does.
    pub(crate) async fn end_all(&self) {
        if let Some(processes) = &self.processes {
            processes.end_all().await;
        }
    }

    /// Waits until no process is left, as [`Processes::gone`] does.
    pub(crate) async fn gone(&self) {
        if let Some(processes) = &self.processes {
            processes.gone().await;
        }
    }

    /// Returns why this node does not run a stage. `None` if it does.
    pub(crate) fn refusal(&self, deployed: &Deployed, stage: &Stage) -> Option<String> {
        let Work::Program(program) = &stage.work else { return None };
        self.find(deployed, program).err()
    }

    fn find(&self, deployed: &Deployed, program: &program::Program) -> Result<PathBuf, String> {
        // Not the digest that is written there: whoever writes it could write any.
        let content = Deployed::digest_of(&deployed.manifest).map_err(|error| error.to_string())?;
        let wanted = Wanted { program: &program.name, chain: &deployed.chain, content: &content };
        self.allowed.find(wanted, &self.path).map_err(|refusal| refusal.to_string())
    }

    /// Returns the files with this digest, which all stages with the same files share.
    fn shipped(&self, archives: &Archives, digest: &Digest, folders: &Arc<Folders>) -> Arc<Shipped> {
        let mut all = lock(&self.shipped);
        all.retain(|_, shipped| shipped.strong_count() > 0);
        if let Some(shipped) = all.get(digest).and_then(Weak::upgrade) {
            return shipped;
        }
        let shipped = Arc::new(Shipped::new(fetch(archives, digest), Arc::clone(folders)));
        all.insert(digest.clone(), Arc::downgrade(&shipped));
        shipped
    }

    /// Returns what runs the program of a stage, if this node may run it. An output above `output_large` bytes is handed on in a file
    /// if it may be. `beside` gives the workers of the stage what they need.
    pub(crate) async fn load(
        &self,
        archives: &Archives,
        deployed: &Deployed,
        stage: &Stage,
        program: &program::Program,
        output_large: u64,
        beside: impl FnOnce() -> Beside,
    ) -> Result<ProgramKind, String> {
        let executable = self.executable(archives, deployed, stage, program).await?;
        let arguments = std::iter::once(Argument::literal(&program.name)).chain(program.arguments.clone());
        if stage.reuse.isolation == Isolation::Worker {
            let Beside { runtime, log, most } = beside();
            let workers = Workers::new(worker::Settings {
                executable,
                arguments: arguments.map(|argument| argument.fixed().into()).collect(),
                timeout: stage.timeout,
                reuse: stage.reuse.items,
                most,
                runtime,
                log,
                idle: IDLE,
                start: START.max(stage.timeout),
            });
            return Ok(ProgramKind::Workers(Arc::new(workers)));
        }
        Ok(ProgramKind::Items(Arc::new(Program {
            executable,
            arguments: arguments.collect(),
            options: program.options,
            input: program.input,
            output: program.output,
            timeout: stage.timeout,
            permanent: program.permanent.clone(),
            output_large,
        })))
    }

    /// Returns what a stage executes. The files that come with it are unpacked then.
    async fn executable(
        &self,
        archives: &Archives,
        deployed: &Deployed,
        stage: &Stage,
        program: &program::Program,
    ) -> Result<Executable, String> {
        let file = self.find(deployed, program)?;
        let Some(processes) = &self.processes else { return Err("this node runs no programs".to_owned()) };
        let shipped = match &program.files {
            None => None,
            Some(Files::Stored(digest)) => Some(self.shipped(archives, digest, &processes.folders)),
            Some(Files::Paths(_)) => return Err("it names files in place of a stored archive".to_owned()),
        };
        if let Some(shipped) = &shipped {
            let path = shipped.copy().await?.path().join(&file);
            executable(&program.name, &path).map_err(|refusal| refusal.to_string())?;
        }
        let own = |name: &str, value: String| (OsString::from(format!("PCLUSTER_{name}")), OsString::from(value));
        let mut environment: Vec<(OsString, OsString)> =
            vec![("PATH".into(), self.path.clone()), ("LANG".into(), "C.UTF-8".into())];
        environment.extend(stage.env.iter().map(|(name, value)| (name.into(), value.into())));
        environment.extend([
            own("CHAIN", deployed.chain.to_string()),
            own("VERSION", deployed.version.to_string()),
            own("REVISION", deployed.revision.number().to_string()),
            own("STAGE", stage.name.to_string()),
            own("CONFIG", stage.config.to_string()),
        ]);
        let grown = program.memory.filter(|_| stage.reuse.isolation == Isolation::Worker).map(|bytes| bytes / 10 * 9);
        let bounds = Bounds { memory: program.memory, grown, processes: Some(PROCESSES_MAX), folder: Some(FOLDER_MAX) };
        Ok(Executable { file, shipped, environment, bounds, processes: processes.clone() })
    }
}

/// Fetches an archive.
fn fetch(archives: &Archives, digest: &Digest) -> Fetch {
    let (archives, digest) = (archives.clone(), digest.clone());
    Box::new(move |to| {
        let (archives, digest) = (archives.clone(), digest.clone());
        Box::pin(async move {
            let broker = match archives {
                Archives::Server(broker) => broker,
                Archives::Here(packed) => return copy(&packed, &digest, to),
            };
            let most = usize::try_from(ARCHIVE_MAX).unwrap_or(usize::MAX);
            let fetched = Plugins::archives(&broker).fetch(&digest, most, &mut tokio::fs::File::from_std(to)).await;
            fetched.map_err(|error| error.to_string())
        })
    })
}

/// Copies an archive of this process.
fn copy(packed: &BTreeMap<Digest, Packed>, digest: &Digest, mut to: File) -> Result<(), String> {
    let packed = packed.get(digest).ok_or_else(|| format!("the archive {digest} is not here"))?;
    let copied = packed.reader().and_then(|(mut from, _)| io::copy(&mut from, &mut to));
    copied.map(drop).map_err(|error| error.to_string())
}

/// Starts what the processes of a node share.
fn start(incarnation: &str) -> io::Result<Processes> {
    let user = rustix::process::geteuid().as_raw();
    let place = cgroup::place();
    let end = |dead: &str| place.as_ref().map_or(Ok(()), |place| cgroup::remove_all(place, dead));
    // Programs start elsewhere, where a relative path means another folder.
    let all = std::path::absolute(std::env::temp_dir().join(format!("{FOLDER}-{user}")))?;
    let folders = Folders::new(&all, incarnation, end).map_err(|error| {
        let problem = format!(
            "the working folders of programs cannot be made in `{}`: {error}; `TMPDIR` names the folder for temporary files, which \
             the user of the node must be able to write to",
            all.display()
        );
        io::Error::new(error.kind(), problem)
    })?;
    let cgroups = place.map(|place| Arc::new(Cgroups::new(place, incarnation)));
    Ok(Processes {
        guards: Arc::new(Guards::start()?),
        folders: Arc::new(folders),
        cgroups,
        started: Arc::new(AtomicU64::new(0)),
        must_end: Arc::default(),
    })
}
