use super::*;

/// A line that is wanted the first so many times that it is asked.
struct Line(u64, std::cell::Cell<u64>);

impl Printed for Line {
    fn is_wanted(&self) -> bool {
        self.1.replace(self.1.get().saturating_sub(1)) > 0
    }
}

fn pipe() -> (io::PipeReader, Sink) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    (reader, Sink { file, tells_unread: cfg!(target_os = "linux"), end: Arc::default() })
}

#[test]
fn a_line_that_waits_for_room_is_not_begun_once_it_is_not_wanted() {
    let (_reader, sink) = pipe();
    while sink.poll(AT_ONCE).expect("an answer").contains(PollFlags::OUT) {
        rustix::io::write(&sink.file, &[0; PIECE]).expect("room");
    }
    let mut written = 0;
    assert!(!sink.write(b"a", &Line(1, 2.into()), &mut written).expect("no failure"));
    assert_eq!(written, 0);
}

#[test]
fn told_to_stop_it_leaves_whole_lines_to_the_pipe_and_gives_back_the_rest() {
    let (reader, sink) = pipe();
    let (lines, receiver) = channel();
    let (events, mut heard) = mpsc::unbounded_channel();
    let end = Arc::clone(&sink.end);
    let window = Window { lines: u64::MAX, ..Window::default() };
    let thread = Thread { sink, lines: receiver, events, unread: VecDeque::new(), window };
    for (number, length) in [(1, 10), (2, 1 << 22), (3, 10)] {
        lines.send((vec![0; length], Line(number, u64::MAX.into()))).expect("a thread");
    }
    let running = std::thread::spawn(move || thread.run());
    while rustix::io::ioctl_fionread(&reader).expect("a number") <= 10 {
        std::thread::sleep(LOOK_MAX);
    }
    end.is_urgent.store(true, Relaxed);
    drop(lines);
    running.join().expect("its end");
    let told = std::iter::from_fn(|| heard.try_recv().ok()).map(|event| match event {
        Event::Written(line) => (line.0, true),
        Event::Unwanted(line) => (line.0, false),
        Event::Failed(error) => panic!("{error}"),
    });
    assert_eq!(told.collect::<std::collections::BTreeMap<_, _>>(), [(1, true), (2, false), (3, false)].into());
}

#[test]
fn more_is_written_ahead_the_more_is_read() {
    let mut window = Window::default();
    for _ in 0..2 * AHEAD - 1 {
        window.read();
    }
    assert_eq!(window.lines, 1, "a reader of a few lines takes one at a time");
    for _ in 0..10 * AHEAD {
        window.read();
    }
    assert_eq!(window.lines, 11);
}
