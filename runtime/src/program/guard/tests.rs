//! A guard of its own for each test: this test program again.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::message::{Bounds, Exceeded, Status};
use super::*;

/// Not a test: what the guards of the tests run.
#[test]
fn guard_of_tests() {
    if std::env::args().any(|argument| argument == "--exact") && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        let requests = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
        if rustix::net::sockopt::socket_type(&requests) == Ok(SocketType::SEQPACKET) {
            serve::serve(requests).expect("served");
        }
    }
}

pub(in crate::program) fn guards() -> Guards {
    Guards::start_by(|| Ok(guard())).expect("a guard")
}

fn guard() -> Guard {
    let mut command = Command::new("/proc/self/exe");
    command.args(["program::guard::tests::guard_of_tests", "--exact", "--nocapture"]);
    Guard::start_as(command).expect("a guard")
}

fn launch(folder: &Path, script: &str) -> Launch {
    Launch {
        file: "/bin/sh".into(),
        arguments: ["sh", "-c", script].map(Into::into).into(),
        environment: [("PATH", "/nowhere"), ("PATH", "/usr/bin:/bin")].map(|(a, b)| (a.into(), b.into())).into(),
        inherited: Vec::new(),
        folder: folder.into(),
        cgroup: None,
        cores: Vec::new(),
        bounds: Bounds::default(),
    }
}

struct Started {
    process: Process,
    output: std::io::PipeReader,
}

async fn start(guard: &Guard, launch: &Launch) -> Result<Started, LaunchError> {
    let null = || OwnedFd::from(fs::File::open("/dev/null").expect("a file"));
    let (output, its) = std::io::pipe().expect("a pipe");
    let process = {
        let (input, error) = (null(), null());
        guard.launch(launch, [input.as_fd(), its.as_fd(), error.as_fd()], &[]).await?
    };
    Ok(Started { process, output })
}

fn read(mut output: std::io::PipeReader) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).expect("text");
    text
}

fn is_alive(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn gone(process: &str) {
    let began = Instant::now();
    while is_alive(process) {
        assert!(began.elapsed() < Duration::from_mins(1), "process {process} goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_inherits_what_it_is_to_under_numbers_that_variables_tell() {
    let folder = tempfile::tempdir().expect("a folder");
    let guard = guard();
    let (mut from, its) = (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    let null = || OwnedFd::from(fs::File::open("/dev/null").expect("a file"));
    let script = "read -r line <&$IN; echo \"$line back\" >&$OUT";
    let launch = Launch { inherited: vec!["IN".into(), "OUT".into()], ..launch(folder.path(), script) };
    let mut process = {
        let null = null();
        let (input, output) = (its.0.as_fd(), from.1.as_fd());
        guard.launch(&launch, [null.as_fd(); 3], &[input, output]).await.expect("started")
    };
    drop(from.1);
    std::io::Write::write_all(&mut its.1.try_clone().expect("a copy"), b"there\n").expect("written");
    assert_eq!(process.end.wait().await.expect("told").status, Status::Exit(0));
    let mut text = String::new();
    from.0.read_to_string(&mut text).expect("text");
    assert_eq!(text, "there back\n");
}

#[tokio::test]
async fn a_program_runs_with_what_it_is_given_and_tells_how_it_ends() {
    let (guard, folder) = (guard(), tempfile::tempdir().expect("a folder"));
    for (script, status) in
        [("exit 0", Status::Exit(0)), ("exit 65", Status::Exit(65)), ("kill -9 $$", Status::Signal(9))]
    {
        let mut started = start(&guard, &launch(folder.path(), script)).await.expect("started");
        assert_eq!(started.process.end.wait().await.expect("an end"), Ended { status, exceeded: None }, "{script}");
    }
    let mut started =
        start(&guard, &launch(folder.path(), "pwd; env; ls -l /proc/self/fd | wc -l; echo $$; ps -o sid= $$"))
            .await
            .expect("there");
    started.process.end.wait().await.expect("an end");
    let text = read(started.output);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], folder.path().to_str().expect("there"));
    assert!(lines.contains(&"PATH=/usr/bin:/bin") && !text.contains("HOME"), "{text}");
    // Three streams, the folder that `ls` reads, and the line of the sum.
    assert!(lines.contains(&"5"), "{text}");
    assert_eq!(lines[lines.len() - 1], lines[lines.len() - 2], "a session of its own: {text}");
}

#[tokio::test]
async fn a_file_that_cannot_be_executed_is_told_with_the_error_of_the_system() {
    let (guard, folder) = (guard(), tempfile::tempdir().expect("a folder"));
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        path
    };
    let (no_line, no_interpreter) = (file("no-line", "exit 0\n"), file("no-interpreter", "#!/nowhere\n"));
    for (file, errno) in [
        (Path::new("/nowhere"), libc::ENOENT),
        (Path::new("/etc/passwd"), libc::EACCES),
        (Path::new("/"), libc::EACCES),
        // No shell runs it.
        (&no_line, libc::ENOEXEC),
        (&no_interpreter, libc::ENOENT),
    ] {
        let refused = start(&guard, &Launch { file: file.into(), ..launch(folder.path(), "") }).await;
        let Err(LaunchError::Refused(error)) = refused.map(|_| ()) else { panic!("{}", file.display()) };
        assert_eq!(error.raw_os_error(), Some(errno), "{}", file.display());
    }
}

#[tokio::test]
async fn a_shepherd_is_used_again_unless_it_was_killed_meanwhile() {
    let (guard, folder) = (guard(), tempfile::tempdir().expect("a folder"));
    let run = async |script: &str| {
        let Started { process: Process { mut end, orders }, output } =
            start(&guard, &launch(folder.path(), script)).await.expect("started");
        end.wait().await.expect("an end");
        // It comes too late, and is for no other program.
        orders.kill();
        end.release(orders);
        read(output).trim().to_owned()
    };
    let first = run("echo $PPID").await;
    assert_eq!(run("echo $PPID").await, first);
    let refused = start(&guard, &Launch { file: "/nowhere".into(), ..launch(folder.path(), "") }).await;
    assert!(matches!(refused, Err(LaunchError::Refused(_))));
    assert_eq!(run("sleep 0.05; echo $PPID").await, first);
    let shepherd = rustix::process::Pid::from_raw(first.parse().expect("an id")).expect("an id");
    rustix::process::kill_process(shepherd, rustix::process::Signal::KILL).expect("there");
    let second = run("echo $PPID").await;
    assert_ne!(second, first);
    drop(guard);
    gone(&second).await;
}

#[tokio::test]
async fn all_that_a_program_leaves_ends_with_it() {
    let (guard, folder) = (guard(), tempfile::tempdir().expect("a folder"));
    let script = "(setsid sh -c 'echo $$; exec sleep 300' &) ; sh -c 'trap \"\" TERM; echo $$; sleep 300' & sleep 0.2";
    let mut started = start(&guard, &launch(folder.path(), script)).await.expect("started");
    let ended = started.process.end.wait().await.expect("an end");
    assert_eq!(ended.status, Status::Exit(0));
    let text = read(started.output);
    assert_eq!(text.lines().count(), 2, "{text}");
    for process in text.lines() {
        assert!(!is_alive(process), "{process}");
    }
}

#[tokio::test]
async fn a_program_ends_with_its_node_its_handle_and_its_shepherd() {
    let (guard, folder) = (guard(), tempfile::tempdir().expect("a folder"));
    // The child speaks first, however slow the machine is.
    let script = "trap '' TERM; rm -f spoken; setsid sh -c 'echo $$; : > spoken; exec sleep 300' & \
                  until [ -e spoken ]; do sleep 0.01; done; echo $$ $PPID; sleep 300";
    let start = async || {
        let mut started = start(&guard, &launch(folder.path(), script)).await.expect("started");
        let mut text = String::new();
        while text.lines().count() < 2 {
            let mut buffer = [0; 64];
            let read = started.output.read(&mut buffer).expect("output");
            text.push_str(std::str::from_utf8(&buffer[..read]).expect("there"));
        }
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        (started, words)
    };
    let (mut started, words) = start().await;
    started.process.orders.kill();
    assert_eq!(started.process.end.wait().await.expect("an end").status, Status::Signal(9));
    assert!(!words[..2].iter().any(|process| is_alive(process)));
    drop(started.process);

    let (started, words) = start().await;
    drop(started.process);
    gone(&words[0]).await;
    gone(&words[1]).await;

    let (mut started, words) = start().await;
    let shepherd = rustix::process::Pid::from_raw(words[2].parse().expect("there")).expect("there");
    rustix::process::kill_process(shepherd, rustix::process::Signal::KILL).expect("there");
    assert!(started.process.end.wait().await.is_err());
    gone(&words[0]).await;
    gone(&words[1]).await;

    let (started, words) = start().await;
    let id = guard.id().to_string();
    drop(guard);
    drop(started.process);
    gone(&words[0]).await;
    gone(&id).await;
}

#[tokio::test]
async fn a_program_that_takes_more_than_its_bounds_ends() {
    let (guard, folder) = (guard(), tempfile::tempdir().expect("a folder"));
    let with = async |bounds, script| {
        let mut started = start(&guard, &Launch { bounds, ..launch(folder.path(), script) }).await.expect("started");
        started.process.end.wait().await.expect("an end").exceeded
    };
    let bounds = Bounds { processes: Some(20), ..Bounds::default() };
    let bomb = "for n in $(seq 200); do sleep 60 & done; sleep 60";
    assert!(matches!(with(bounds, bomb).await, Some(Exceeded::Processes(21..))));
    let bounds = Bounds { memory: Some(64 << 20), ..Bounds::default() };
    let all = with(bounds, "tail /dev/zero").await;
    assert!(matches!(all, Some(Exceeded::Memory(bytes)) if bytes > 64 << 20), "{all:?}");
    let bounds = Bounds { folder: Some(8 << 20), ..Bounds::default() };
    let all = with(bounds, "for n in 1 2 3 4 5; do head -c 4000000 /dev/zero > $n; done; sleep 300").await;
    assert!(matches!(all, Some(Exceeded::Folder(bytes)) if bytes > 8 << 20), "{all:?}");
    assert_eq!(with(bounds, "head -c 9000000 /dev/zero > large; sleep 0").await, None, "the file ends there");
    assert!(fs::metadata(folder.path().join("large")).expect("there").len() <= 8 << 20);
}

#[tokio::test]
async fn a_cgroup_ends_what_forks_faster_than_it_can_be_ended() {
    let Some(parent) = super::super::cgroup::place() else { return };
    let (guard, folder) = (guard(), tempfile::tempdir().expect("a folder"));
    let cgroup = parent.join(format!("pcluster-test-{}", std::process::id()));
    // Each forks two more, some hundreds in all: without an end they would be a danger to the machine.
    let script = "f() { [ $1 -gt 0 ] && { f $(($1 - 1)) & f $(($1 - 1)) & }; sleep 300; }; f 7";
    let launch = Launch { cgroup: Some(cgroup.clone().into()), ..launch(folder.path(), script) };
    let mut started = start(&guard, &launch).await.expect("started");
    tokio::time::sleep(Duration::from_millis(50)).await;
    started.process.orders.kill();
    started.process.end.wait().await.expect("an end");
    // It is removed once the item has gone on.
    while cgroup.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
