//! The shepherd of a program: starts it, waits for it, and ends all that descends from it. Then it is free for the next.
//!
//! A shepherd is the reaper of its program's processes, so none can leave it. It ends them as soon as the first process ends, the
//! node orders it, or the node has gone. It holds if the guard is killed; if the shepherd is killed, the guard ends what it had.

use std::convert::Infallible;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, WaitOptions, WaitStatus, chdir, getpid, getrlimit, pidfd_open,
    set_child_subreaper, setrlimit, setsid, wait,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{CpuSet, sched_setaffinity, set_no_new_privs};

use super::message::{self, Bounds, Ended, Event, Exceeded, Launch, Order, Status};
use super::pass::receive;
use super::spawn::{Image, spawn};
use super::system;
use super::tree::Tree;
use super::watch::Watch;

/// How often a shepherd reaps the orphans of its program.
const REAP: Duration = Duration::from_secs(1);
/// How long a file may be held open for writing by a process that another thread is about to start.
const BUSY: Duration = Duration::from_secs(5);

/// Runs one program after another as the node orders them, until it has gone.
pub(crate) fn run(control: OwnedFd) -> io::Result<()> {
    let control = UnixStream::from(control);
    set_child_subreaper(Some(getpid()))?;
    while let Some((launch, descriptors)) = next(&control)? {
        shepherd(&control, launch, descriptors)?;
    }
    Ok(())
}

/// Waits for the next program. Returns it with its descriptors, and `None` at the end of the stream.
fn next(mut control: &UnixStream) -> io::Result<Option<(Launch, Vec<OwnedFd>)>> {
    loop {
        let mut head = [0; 4];
        let (bytes, descriptors) = receive(control.as_fd(), &mut head)?;
        if bytes == 0 {
            return Ok(None);
        }
        control.read_exact(&mut head[bytes..])?;
        match message::read_behind(head, control)? {
            Order::Launch => return Ok(Some((message::read(control)?, descriptors))),
            // It was meant for the program before, which had just ended.
            Order::Terminate | Order::Kill => {}
        }
    }
}

/// Runs a program. The descriptors are those of standard input, output and error, and further ones that the program inherits under
/// their own numbers.
fn shepherd(control: &UnixStream, mut launch: Launch, descriptors: Vec<OwnedFd>) -> io::Result<()> {
    let started = started(&mut launch, descriptors);
    let (tree, process) = match started {
        Ok(started) => started,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            return message::write(control, &Event::Refused { errno });
        }
    };
    message::write(control, &Event::Started)?;
    let ended = watch(&tree, process, control, launch.bounds, Path::new(&launch.folder));
    // The item goes on while the tree is removed.
    message::write(control, &Event::Ended(ended))
}

/// Starts a program. Its descriptors are closed here.
fn started(launch: &mut Launch, descriptors: Vec<OwnedFd>) -> io::Result<(Tree, Pid)> {
    let mut descriptors = descriptors.into_iter();
    // They are missing if too many files are open here.
    let mut next = || descriptors.next().ok_or_else(|| io::Error::from(Errno::MFILE));
    let streams = [next()?, next()?, next()?];
    let inherited: Vec<OwnedFd> = descriptors.collect();
    // Only here are their numbers known.
    let numbers = inherited.iter().map(|descriptor| descriptor.as_raw_fd().to_string().into());
    launch.environment.extend(launch.inherited.iter().cloned().zip(numbers));
    start(launch, &streams, &inherited)
}

/// Starts the program.
fn start(launch: &Launch, streams: &[OwnedFd; 3], inherited: &[OwnedFd]) -> io::Result<(Tree, Pid)> {
    let tree = Tree::new(launch.cgroup.as_deref(), launch.bounds);
    let image = Image::new(&launch.file, &launch.arguments, &launch.environment)?;
    let began = Instant::now();
    loop {
        match spawn(tree.cgroup(), || execute(launch, streams, inherited, &image)) {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && began.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            started => return Ok((tree, started?)),
        }
    }
}

/// Makes this process the program. Returns only if that fails.
fn execute(launch: &Launch, streams: &[OwnedFd; 3], inherited: &[OwnedFd], image: &Image) -> io::Result<Infallible> {
    let [input, output, error] = streams;
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(error)?;
    chdir(Path::new(&launch.folder))?;
    setsid()?;
    set_no_new_privs(true)?;
    if !launch.cores.is_empty() {
        let mut cores = CpuSet::new();
        launch.cores.iter().for_each(|core| cores.set(*core));
        sched_setaffinity(None, &cores)?;
    }
    if let Some(bytes) = launch.bounds.folder {
        // What the node was started with may be less, and not every user may raise it.
        let bytes = getrlimit(Resource::Fsize).maximum.map_or(bytes, |most| most.min(bytes));
        setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
    }
    system::close_on_execute();
    for descriptor in inherited {
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    system::reset_signals();
    Err(image.execute())
}

/// Waits for the end of the program, and ends all that is left of it.
fn watch(tree: &Tree, process: Pid, control: &UnixStream, bounds: Bounds, folder: &Path) -> Ended {
    let mut watch = Watch::new(bounds, folder);
    let (mut status, mut exceeded) = (None, None);
    // Without it the end shows at the next reaping.
    let end = pidfd_open(process, PidfdFlags::empty()).ok();
    let mut note = |ended: Pid, how: WaitStatus| {
        if ended == process {
            status = how.exit_status().map(Status::Exit).or_else(|| how.terminating_signal().map(Status::Signal));
        }
        ended == process
    };
    'running: loop {
        while let Ok(Some((ended, how))) = wait(WaitOptions::NOHANG) {
            if note(ended, how) {
                break 'running;
            }
        }
        exceeded = watch.look(tree);
        if let Some(bytes) = watch.take_grown() {
            let _ = message::write(control, &Event::Grown(bytes));
        }
        if exceeded.is_some() || !orders(control, tree) {
            break;
        }
        let wait = watch.next().map_or(REAP, |next| next.saturating_duration_since(Instant::now()).min(REAP));
        let wait = Timespec::try_from(wait).ok();
        let mut ready = vec![PollFd::new(control, PollFlags::IN)];
        ready.extend(end.as_ref().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)));
        let _ = poll(&mut ready, wait.as_ref());
    }
    tree.kill(|ended, how| {
        note(ended, how);
    });
    let status = status.unwrap_or(Status::Signal(libc::SIGKILL));
    if status != Status::Exit(0) && exceeded.is_none() {
        exceeded = tree.memory_exceeded().map(Exceeded::Memory);
    }
    Ended { status, exceeded }
}

/// Follows the orders that have come. Returns `false` if the program must end.
fn orders(control: &UnixStream, tree: &Tree) -> bool {
    loop {
        let mut ready = [PollFd::new(control, PollFlags::IN)];
        match poll(&mut ready, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => return true,
            Ok(_) => match message::read(control) {
                Ok(Order::Terminate) => tree.terminate(),
                Ok(Order::Launch | Order::Kill) | Err(_) => return false,
            },
            Err(_) => return false,
        }
    }
}
