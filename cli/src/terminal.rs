//! This program's terminal while a container's process runs in the foreground: raw mode, window size, signals.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use kiln_executor::{ExitStatus, Running, Signal, WindowSize};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::report::Failure;

/// So many Ctrl-C make an end whatever the process does with the signal, as with Docker.
const FORCE_AFTER: usize = 3;

/// Whether standard input is a terminal.
pub(crate) fn is_input() -> bool {
    std::io::stdin().is_terminal()
}

/// The size of this program's terminal.
pub(crate) fn size() -> Option<WindowSize> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Passes signals (and, with a terminal, keys and output) on until the process ends.
pub(crate) fn attend(running: Running, interactive: bool) -> Result<ExitStatus, Failure> {
    let running = Arc::new(running);
    forward_signals(&running)?;
    let output = match &running.terminal {
        None => None,
        Some(terminal) => {
            let copy = |file: &File| {
                file.try_clone()
                    .map_err(|error| Failure::io("use", "the terminal", error))
            };
            let raw = if interactive { RawMode::enter() } else { None };
            if interactive {
                let keys = copy(terminal)?;
                spawn("keys", move || pass(std::io::stdin(), keys))?;
            }
            let screen = copy(terminal)?;
            // The raw mode ends when the last byte is out.
            Some(spawn("screen", move || {
                pass(screen, std::io::stdout());
                drop(raw);
            })?)
        }
    };
    let status = running.wait()?;
    if let Some(output) = output {
        // A panic there has been reported by then.
        let _ = output.join();
    }
    Ok(status)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Failure> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Failure::io("start", "a thread", error))
}

/// Copies until either side ends; a terminal's end is an error (`EIO`) that means just that.
fn pass(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
            break;
        }
    }
}

fn forward_signals(running: &Arc<Running>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH])
        .map_err(|error| Failure::io("handle", "signals", error))?;
    let running = Arc::clone(running);
    spawn("signals", move || {
        let mut interrupts = 0;
        for signal in signals.forever() {
            if signal == SIGWINCH {
                if let Some(size) = size() {
                    // A terminal that is gone needs no size.
                    let _ = running.resize(size);
                }
                continue;
            }
            interrupts += usize::from(signal == SIGINT || signal == SIGTERM);
            let sent = match Signal::try_from(signal) {
                _ if interrupts >= FORCE_AFTER => running.kill_all(),
                Ok(signal) => running.kill(signal),
                Err(_) => Ok(()),
            };
            // The process may have ended meanwhile.
            drop(sent);
        }
    })
    .map(drop)
}

/// The terminal's raw mode, undone when dropped.
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A closed terminal has no mode to restore.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Flush, &self.before);
    }
}

/// A line that is typed without being shown. Ctrl-C ends it, with the terminal as it was.
pub(crate) fn hidden_line() -> Result<String, Failure> {
    let hidden = Hidden::enter();
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        let count = std::io::stdin()
            .lock()
            .read(&mut byte)
            .map_err(|error| Failure::io("read", "the terminal", error))?;
        match (count, byte[0]) {
            (0, _) | (_, b'\n' | b'\r' | 0x04) => break,
            (_, 0x03) => return Err(Failure::canceled()),
            (_, 0x08 | 0x7f) => {
                line.pop();
            }
            (_, 0x15) => line.clear(),
            (_, other) => line.push(other),
        }
    }
    drop(hidden);
    String::from_utf8(line).map_err(|_| Failure::message("what was typed is no text"))
}

/// The terminal without echo and without lines and signals of its own, until dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut hidden = before.clone();
        hidden
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &hidden).ok()?;
        Some(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A closed terminal has no mode to restore.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Flush, &self.before);
    }
}
