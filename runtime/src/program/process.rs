//! A process of a program with all that descends from it: its start in a folder of its own, its streams, and its end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cgroup::{self, Cgroups};
use super::folder::{Folder, Folders};
use super::guard::message::{Bounds, Ended, Launch};
use super::guard::{End, Guards, LaunchError, Orders, Process};
use super::shipped::{Copy, Shipped};
use super::words::Words;
use crate::run::failure::{Failure, FailureKind};

/// How long a program that was asked to end has before it is ended.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How long the end of a killed program may take.
const KILL: Duration = Duration::from_secs(1);
/// Bytes read at once.
pub(crate) const PART: usize = 64 << 10;
/// How long the streams of a program may take to end after its last process.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// What all processes of a node's programs share.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    /// The guard that starts and ends them.
    pub(crate) guards: Arc<Guards>,
    /// The working folders of the node.
    pub(crate) folders: Arc<Folders>,
    /// Their cgroups. `None` if none can be made.
    pub(crate) cgroups: Option<Arc<Cgroups>>,
    /// How many were started: each has a number of its own.
    pub(crate) started: Arc<AtomicU64>,
    /// Set once all of them must end.
    pub(crate) must_end: Arc<watch::Sender<bool>>,
}

impl Processes {
    /// Asks all processes to end, and ends them after a grace. Returns once they have ended.
    ///
    /// Their items have not ended then, whatever the processes say: what runs an item goes on until it is dropped.
    pub(crate) async fn end_all(&self) {
        self.must_end.send_replace(true);
        self.gone().await;
    }

    /// Waits until nothing of any process is left, as long as the end of one may take.
    pub(crate) async fn gone(&self) {
        // Each process holds a receiver.
        let _ = tokio::time::timeout(GRACE + KILL, self.must_end.closed()).await;
    }
}

/// What a stage executes.
#[derive(Debug)]
pub(crate) struct Executable {
    /// The file, after all links. A path among the files that come with the stage is relative.
    pub(crate) file: PathBuf,
    /// The files that come with the stage.
    pub(crate) shipped: Option<Arc<Shipped>>,
    /// The environment, apart from the variables of an item.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The bounds of a process and all that descends from it.
    pub(crate) bounds: Bounds,
    /// What the processes of the node share.
    pub(crate) processes: Processes,
}

/// Where a process runs.
#[derive(Default)]
pub(crate) struct Place {
    /// The processors that it is bound to. Empty for all.
    pub(crate) processors: Vec<usize>,
    /// What must be kept until its last process has ended.
    pub(crate) _keep: Option<Arc<dyn Send + Sync>>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Place").field("processors", &self.processors).finish_non_exhaustive()
    }
}

/// The node's ends of the three streams of a process.
pub(crate) type Streams = (pipe::Sender, pipe::Receiver, pipe::Receiver);

/// A process that runs in its folder. If it is dropped, it is asked to end and is ended after a grace, with all that it started, and
/// the folder is removed.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` once it is dropped.
    parts: Option<(End, Orders, Folder)>,
    /// The cgroup that its shepherd has made for it.
    cgroup: Option<PathBuf>,
    /// The files that came with its stage, which stay as long as it runs.
    shipped: Option<Arc<Copy>>,
    place: Place,
    /// Held until nothing of it is left.
    living: watch::Receiver<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((mut end, orders, folder)) = self.parts.take() else { return };
        let (shipped, cgroup) = (self.shipped.take(), self.cgroup.take());
        let Ok(runtime) = Handle::try_current() else { return };
        let (place, living) = (std::mem::take(&mut self.place), self.living.clone());
        if end.has_ended() {
            end.release(orders);
            drop(place);
            runtime.spawn(async move {
                remove(folder).await;
                drop((shipped, living));
            });
            return;
        }
        orders.terminate();
        runtime.spawn(async move {
            {
                let mut gone = std::pin::pin!(end.gone());
                if tokio::time::timeout(GRACE, &mut gone).await.is_err() {
                    orders.kill();
                    // It may write until its last process has ended.
                    gone.await;
                }
            }
            if !end.has_ended()
                && let Some(cgroup) = cgroup
            {
                // Its shepherd was killed.
                let removed = tokio::task::spawn_blocking(move || cgroup::remove(&cgroup)).await;
                if let Ok(Err(error)) = removed {
                    tracing::warn!(%error, "the cgroup of a program cannot be removed");
                }
            }
            end.release(orders);
            drop(place);
            remove(folder).await;
            drop(shipped);
            drop(living);
        });
    }
}

impl Running {
    /// Returns its end, and what it can be told.
    pub(crate) fn parts(&mut self) -> (&mut End, &Orders) {
        let Some((end, orders, _)) = &mut self.parts else { unreachable!("taken on drop alone") };
        (end, orders)
    }
}

impl Executable {
    /// Starts a process in an empty folder. Returns it with the other ends of its three streams.
    ///
    /// It inherits the descriptors of `more`. The variable beside each tells it the number.
    ///
    /// # Errors
    ///
    /// The failure of the item for which it is started.
    pub(crate) async fn start(
        &self,
        arguments: Vec<OsString>,
        variables: Vec<(OsString, OsString)>,
        place: Place,
        more: &[(&str, BorrowedFd<'_>)],
    ) -> Result<(Running, Streams), Failure> {
        let processes = &self.processes;
        let shipped = match &self.shipped {
            Some(shipped) => {
                Some(shipped.copy().await.map_err(|problem| Failure::transient(FailureKind::Node, problem))?)
            }
            None => None,
        };
        let (its, streams) = pipes().map_err(|error| here("its pipes cannot be made", &error))?;
        let inherited = more.iter().map(|(_, descriptor)| descriptor.try_clone_to_owned());
        let inherited: Vec<_> =
            inherited.collect::<io::Result<_>>().map_err(|error| here("its pipes cannot be made", &error))?;
        let folder = processes.folders.create().map_err(|error| here("a working folder cannot be made", &error))?;
        let home = folder.path().as_os_str().to_owned();
        // A later value of a variable replaces an earlier one.
        let mut environment = vec![("HOME".into(), home.clone()), ("TMPDIR".into(), home.clone())];
        environment.extend(self.environment.iter().cloned().chain(variables));
        let mut file = self.file.clone();
        if let Some(copy) = &shipped {
            // An absolute path stays as it is.
            file = copy.path().join(file);
            environment.push(("PCLUSTER_FILES".into(), copy.path().into()));
            if let Err(error) = copy.link_into(folder.path()) {
                remove(folder).await;
                return Err(here("the files of the stage cannot be linked into its working folder", &error));
            }
        }
        let number = processes.started.fetch_add(1, Relaxed);
        let cgroup = processes.cgroups.as_ref().map(|cgroups| cgroups.path(number));
        let launch = Launch {
            file: file.as_os_str().to_owned(),
            arguments,
            environment,
            inherited: more.iter().map(|(variable, _)| OsString::from(*variable)).collect(),
            folder: home,
            cgroup: cgroup.as_ref().map(|path| path.as_os_str().to_owned()),
            cores: place.processors.clone(),
            bounds: self.bounds,
        };
        let (guards, living) = (Arc::clone(&processes.guards), processes.must_end.subscribe());
        // If nobody waits for it any more, it still ends with all that it has.
        let running = tokio::spawn(async move {
            let inherited: Vec<_> = inherited.iter().map(OwnedFd::as_fd).collect();
            match guards.launch(&launch, its.each_ref().map(OwnedFd::as_fd), &inherited).await {
                Ok(Process { end, orders }) => {
                    Ok(Running { parts: Some((end, orders, folder)), cgroup, shipped, place, living })
                }
                Err(error) => {
                    remove(folder).await;
                    Err(refused(&file, &error))
                }
            }
        });
        let running = running.await.map_err(|error| here("it was not started", &error))??;
        Ok((running, streams))
    }
}

/// Makes the three streams of a process. Returns its ends and the node's.
fn pipes() -> io::Result<([OwnedFd; 3], Streams)> {
    let (input, output, error) = (io::pipe()?, io::pipe()?, io::pipe()?);
    let its = [input.0.into(), output.1.into(), error.1.into()];
    let input = pipe::Sender::from_owned_fd(input.1.into())?;
    let output = pipe::Receiver::from_owned_fd(output.0.into())?;
    let error = pipe::Receiver::from_owned_fd(error.0.into())?;
    Ok((its, (input, output, error)))
}

/// Asks a program to end, and ends it after a grace. Returns once it has `ended`.
pub(crate) async fn stop(
    mut ended: Pin<&mut impl Future<Output = io::Result<Ended>>>,
    orders: &Orders,
) -> io::Result<Ended> {
    orders.terminate();
    tokio::select! {
        biased;
        ended = &mut ended => return ended,
        () = tokio::time::sleep(GRACE) => orders.kill(),
    }
    ended.await
}

/// Reads what a program says to its end. Returns its last words.
pub(crate) async fn listen(mut from: pipe::Receiver, mut words: Words<impl FnMut(String)>) -> String {
    let mut part = vec![0; PART];
    while let Ok(bytes @ 1..) = from.read(&mut part).await {
        words.add(&part[..bytes]);
        // Many lines take long. Meanwhile the time of the item may be over.
        tokio::task::yield_now().await;
    }
    words.finish();
    words.last()
}

/// Removes a working folder.
async fn remove(folder: Folder) {
    let removed = tokio::task::spawn_blocking(move || folder.remove()).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "the working folder of a program cannot be removed");
    }
}

/// Returns the failure of an item for which this node lacks something. It is no attempt of the item.
pub(crate) fn here(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::transient(FailureKind::Node, format!("{what}: {error}"))
}

/// Returns the failure of an item whose program was not started. All but too long arguments is for the node to put right.
fn refused(file: &Path, error: &LaunchError) -> Failure {
    let name = file.display();
    match error {
        LaunchError::Refused(error) if error.kind() == io::ErrorKind::ArgumentListTooLong => Failure::fatal(
            FailureKind::Error,
            format!("`{name}`: its arguments and variables together are longer than the system takes"),
        ),
        LaunchError::Refused(error) => here(&format!("`{name}` cannot be executed"), &Explained(error, file.exists())),
        LaunchError::Guard(_) => here(&format!("`{name}` was not started"), error),
        // It may have begun, so it is an attempt.
        LaunchError::Lost(_) => Failure::transient(FailureKind::Trap, format!("`{name}` was ended: {error}")),
    }
}

/// An error of the system beside what it most often means. Then, whether the file is there.
#[derive(Debug)]
struct Explained<'a>(&'a io::Error, bool);

impl std::error::Error for Explained<'_> {}

impl std::fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(error, is_there) = self;
        let hint = match error.raw_os_error() {
            Some(libc::ENOEXEC) => {
                " (a script begins with `#!` and an interpreter; a program is for one kind of machine)"
            }
            Some(libc::ENOENT) if *is_there => " (the interpreter that the file names is not there)",
            Some(libc::EACCES) => " (the user of the node may not execute it, or a folder on its path)",
            _ => "",
        };
        write!(f, "{error}{hint}")
    }
}
