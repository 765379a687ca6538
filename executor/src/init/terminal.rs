//! The terminal of a sandbox, in its own devpts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::mounts::{attach as attach_mount, clone_tree};
use super::resolve::Root;
use super::{Failure, Outcome};
use crate::WindowSize;

/// The side of the terminal that the process uses.
pub(super) struct Console(OwnedFd);

/// Makes a terminal and shows it as `/dev/console`. The second descriptor is the master.
pub(super) fn create(root: &mut Root, size: Option<WindowSize>, uid: u32) -> io::Result<(Console, OwnedFd)> {
    let master = root.open(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = ioctl_tiocgptpeer(&master, flags)?;
    if let Some(size) = size {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size)?;
    }
    rustix::fs::fchown(&peer, Some(rustix::fs::Uid::from_raw(uid)), None)?;
    let name = ptsname(&master, Vec::new())?;
    let name = name.to_str().map_err(io::Error::other)?;
    let node = root.open(Path::new(name), OFlags::PATH)?;
    let place = root.mountpoint(Path::new("/dev/console"), false)?;
    attach_mount(clone_tree(node.as_fd(), false)?.as_fd(), place.as_fd())?;
    Ok((Console(peer), master))
}

/// Makes it the controlling terminal and all three standard streams.
pub(super) fn attach(console: &Console) -> Outcome<()> {
    let step = |action: &'static str| move |error: rustix::io::Errno| Failure::setup(action, error);
    rustix::process::ioctl_tiocsctty(&console.0).map_err(step("take the controlling terminal"))?;
    let attach = step("attach the terminal");
    rustix::stdio::dup2_stdin(&console.0).map_err(attach)?;
    rustix::stdio::dup2_stdout(&console.0).map_err(attach)?;
    rustix::stdio::dup2_stderr(&console.0).map_err(attach)
}
