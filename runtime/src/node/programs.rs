//! The programs of a node: which it may run, and what they share.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::chain::arguments::Argument;
use crate::chain::program;
use crate::chain::record::Deployed;
use crate::chain::{Stage, Work};
use crate::program::allow::{Allowed, Wanted};
use crate::program::cgroup;
use crate::program::folder::Folders;
use crate::program::guard::Guards;
use crate::program::guard::message::Bounds;
use crate::program::process::{Executable, Processes};
use crate::program::run::Program;

/// The folder of all programs of one user's nodes, below the one for temporary files. The user's number follows.
const FOLDER: &str = "pcluster-programs";

/// The most processes and threads of a program together. A program that forks without end takes the machine with it otherwise.
const PROCESSES_MAX: u64 = 4_096;
/// The most bytes of a working folder, and of a file that a program writes.
const FOLDER_MAX: u64 = 16 << 30;

/// The programs of a node. By default, none is allowed.
#[derive(Default)]
pub(crate) struct Programs {
    allowed: Allowed,
    path: OsString,
    /// `None` if no program is allowed.
    processes: Option<Processes>,
}

impl Programs {
    /// Starts what programs need, if any is allowed. `incarnation` is the node's.
    pub(crate) fn start(allowed: Allowed, incarnation: &str) -> io::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let processes = if allowed.is_empty() { None } else { Some(start(incarnation)?) };
        Ok(Self { allowed, path, processes })
    }

    /// Ends the programs that run, as [`Processes::end_all`] does.
    pub(crate) async fn end_all(&self) {
        if let Some(processes) = &self.processes {
            processes.end_all().await;
        }
    }

    /// Returns why this node does not run a stage. `None` if it does.
    pub(crate) fn refusal(&self, deployed: &Deployed, stage: &Stage) -> Option<String> {
        let Work::Program(program) = &stage.work else { return None };
        let refusal = self.find(deployed, program).err()?;
        Some(format!("stage `{}`: {refusal}", stage.name))
    }

    fn find(&self, deployed: &Deployed, program: &program::Program) -> Result<PathBuf, String> {
        // Not the digest that is written there: whoever writes it could write any.
        let content = Deployed::digest_of(&deployed.manifest).map_err(|error| error.to_string())?;
        let wanted = Wanted { program: &program.name, chain: &deployed.chain, content: &content, shipped: None };
        self.allowed.find(wanted, &self.path).map_err(|refusal| refusal.to_string())
    }

    /// Returns the program of a stage, if this node may run it.
    pub(crate) fn load(
        &self,
        deployed: &Deployed,
        stage: &Stage,
        program: &program::Program,
        output_max: u64,
    ) -> Result<Program, String> {
        let file = self.find(deployed, program)?;
        let Some(processes) = &self.processes else { return Err("this node runs no programs".to_owned()) };
        let own = |name: &str, value: String| (OsString::from(format!("PCLUSTER_{name}")), OsString::from(value));
        let mut environment: Vec<(OsString, OsString)> =
            vec![("PATH".into(), self.path.clone()), ("LANG".into(), "C.UTF-8".into())];
        environment.extend(stage.env.iter().map(|(name, value)| (name.into(), value.into())));
        environment.extend([
            own("CHAIN", deployed.chain.to_string()),
            own("VERSION", deployed.version.to_string()),
            own("STAGE", stage.name.to_string()),
            own("CONFIG", stage.config.to_string()),
        ]);
        Ok(Program {
            executable: Executable {
                file,
                environment,
                bounds: Bounds { memory: program.memory, processes: Some(PROCESSES_MAX), folder: Some(FOLDER_MAX) },
                processes: processes.clone(),
            },
            arguments: std::iter::once(Argument::literal(&program.name)).chain(program.arguments.clone()).collect(),
            options: program.options,
            input: program.input,
            output: program.output,
            timeout: stage.timeout,
            permanent: program.permanent.clone(),
            output_max,
        })
    }
}

/// Starts what the processes of a node share.
fn start(incarnation: &str) -> io::Result<Processes> {
    let user = rustix::process::geteuid().as_raw();
    let folders = Folders::new(&std::env::temp_dir().join(format!("{FOLDER}-{user}")), incarnation)?;
    // Each program's own is removed by its shepherd, which outlives the node.
    let cgroups = cgroup::place().map(|place| place.join(format!("pcluster-{incarnation}")));
    Ok(Processes {
        guards: Arc::new(Guards::start()?),
        folders: Arc::new(folders),
        cgroups,
        started: Arc::new(AtomicU64::new(0)),
        must_end: Arc::default(),
    })
}
