//! The keys of a terminal, each as it is pressed.

use std::io::{self, IsTerminal, Read};
use std::sync::{Arc, Mutex};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::sync::mpsc;

use crate::lock::lock;
use crate::shutdown;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// `q`: to end.
    Quit,
    /// `t`: to run the cases.
    Test,
}

/// The keys of the terminal, which has its modes back when this is dropped.
pub(super) struct Keys {
    pressed: mpsc::UnboundedReceiver<Key>,
    terminal: Arc<Terminal>,
}

/// The modes of the terminal before. `None` once it has them back, or if there is no terminal.
struct Terminal(Mutex<Option<Termios>>);

impl Terminal {
    fn restore(&self) {
        if let Some(before) = lock(&self.0).take() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Keys {
    /// Begins to read keys, if standard input is the terminal of this process. Else no key ever comes.
    pub(super) fn open() -> Self {
        let (sender, pressed) = mpsc::unbounded_channel();
        let terminal = Arc::new(Terminal(Mutex::new(modes())));
        if lock(&terminal.0).is_some() {
            std::thread::spawn(move || read(&sender));
            let restored = Arc::clone(&terminal);
            tokio::spawn(async move {
                // A second signal ends the process at once.
                shutdown::requested().await;
                restored.restore();
            });
        }
        Self { pressed, terminal }
    }

    /// Returns `true` if there is a terminal.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.terminal.0).is_some()
    }

    /// Waits for the next key.
    pub(super) async fn next(&mut self) -> Key {
        match self.pressed.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Waits for the key that ends. Others are passed over.
    pub(super) async fn quit(&mut self) {
        while self.next().await != Key::Quit {}
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.terminal.restore();
    }
}

/// Has the terminal hand on each key at once. Returns the modes from before; `None` if there is no terminal to read from.
fn modes() -> Option<Termios> {
    let stdin = io::stdin();
    // A process in the background must not touch it.
    let is_own = tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
    if !stdin.is_terminal() || !is_own {
        return None;
    }
    let before = tcgetattr(&stdin).ok()?;
    let mut changed = before.clone();
    changed.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    changed.special_codes[SpecialCodeIndex::VMIN] = 1;
    changed.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&stdin, OptionalActions::Now, &changed).ok()?;
    Some(before)
}

/// Reads keys until standard input or the receiver is gone.
fn read(sender: &mpsc::UnboundedSender<Key>) {
    let mut byte = [0];
    while io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {
        let key = match byte {
            [b'q' | b'Q'] => Key::Quit,
            [b't' | b'T'] => Key::Test,
            _ => continue,
        };
        if sender.send(key).is_err() {
            return;
        }
    }
}
