//! The user namespace of a sandbox that registers an interpreter for itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::RecvFlags;
use rustix::thread::UnshareFlags;

use super::{Failure, Outcome, Report, mounts};
use crate::emulation::{self, Emulator};
use crate::message::Message;
use crate::sys;
use crate::sys::mount_setattr::mount_setattr;

/// In every procfs, whether something is mounted there or not.
const MOUNTPOINT: &str = "/proc/sys/fs/binfmt_misc";

/// Opens the interpreter, while paths still mean the host's.
pub(super) fn open(emulator: &Emulator) -> Outcome<OwnedFd> {
    let path = &emulator.interpreter;
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failure::setup(format!("open the interpreter {}", path.display()), errno))
}

/// Enters a new user namespace with the same ids, and registers the interpreter there. All mounts are made by now;
/// the copies in the new mount namespace cannot be taken apart any more.
pub(super) fn enter(emulator: &Emulator, interpreter: &OwnedFd, report: &Report) -> Outcome<()> {
    let step = |action: &'static str| move |error: rustix::io::Errno| Failure::setup(action, error);
    sys::unshare::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(step("make a user namespace for the interpreter"))?;
    map_ids(report)?;
    let mount = emulation::mount().map_err(step("make a binfmt_misc of the sandbox"))?;
    let line = emulator
        .registration(interpreter)
        .ok_or_else(|| Failure::setup("register the interpreter", io::ErrorKind::InvalidInput))?;
    let register = rustix::fs::openat(
        &mount,
        "register",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(step("open the register of binfmt_misc"))?;
    // One write is one registration.
    rustix::io::write(&register, &line).map_err(step("register the interpreter"))?;
    drop(register);
    // The registration lives as long as the mount, so that must be somewhere.
    let place = rustix::fs::open(
        Path::new(MOUNTPOINT),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(step("open /proc/sys/fs/binfmt_misc"))?;
    mounts::attach(mount.as_fd(), place.as_fd()).map_err(step("mount binfmt_misc"))?;
    mount_setattr(mount.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0)
        .map_err(|error| Failure::setup("make binfmt_misc read-only", error))
}

/// Has the parent, which is outside, give the new namespace the ids of the old one.
fn map_ids(report: &Report) -> Outcome<()> {
    report
        .send(&Message::UserNamespace, None)
        .map_err(|error| Failure::setup("report", error))?;
    let mut answer = [0u8; 4];
    let (length, _) = rustix::net::recv(&report.0, &mut answer[..], RecvFlags::empty())
        .map_err(|errno| Failure::setup("wait for the ids of the user namespace", errno))?;
    match answer.get(..length) {
        Some(errno) if length == 4 => {
            let errno = errno.try_into().map_or(libc::EINVAL, i32::from_ne_bytes);
            if errno == 0 {
                return Ok(());
            }
            Err(Failure::setup(
                "map the ids of the user namespace",
                io::Error::from_raw_os_error(errno),
            ))
        }
        _ => Err(Failure::setup(
            "map the ids of the user namespace",
            io::ErrorKind::UnexpectedEof,
        )),
    }
}
