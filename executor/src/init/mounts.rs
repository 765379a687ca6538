//! Carries out the steps of a plan: one small loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat, makedev, mknodat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};

use super::resolve::Root;
use super::terminal::{self, Console};
use super::{Failure, Outcome, Report};
use crate::message::Message;
use crate::plan::{AccessTime, Attributes, Plan, Step};
use crate::sys::mount_setattr::mount_setattr;

/// Moves into the root and makes everything in it. Returns the terminal when the plan has one.
pub(super) fn set_up(plan: &Plan, root: OwnedFd, report: &Report) -> Outcome<Option<Console>> {
    let step = |action: &'static str| move |error: Errno| Failure::setup(action, error);
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(step("make the mounts private"))?;
    // Opened while host paths still mean host paths.
    let mut sources = Vec::new();
    for plan_step in &plan.steps {
        if let Step::Bind { source, .. } = plan_step {
            let fd = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| Failure::setup(format!("open the source {} of a bind", source.display()), e))?;
            sources.push(fd);
        }
    }
    let old = enter_root(root.as_fd())?;
    let mut root = Root::new(root).map_err(step("look at the root"))?;
    let result = run_steps(plan, &mut root, sources.into_iter(), report);
    // Even when a step failed: the parent cleans up by this.
    if !root.created().is_empty() {
        report
            .send(&Message::Created(root.created().to_vec()), None)
            .map_err(|e| Failure::setup("report", e))?;
    }
    let console = result?;
    // The old root was only hidden. Nothing of it must be reachable from here on.
    fchdir(&old).map_err(step("return to the old root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("detach the old root"))?;
    rustix::process::chdir("/").map_err(step("enter the root"))?;
    Ok(console)
}

/// Stacks the new root on the old one and swaps them. Returns the old root, still mounted: a user
/// namespace gets a new procfs only while an unobscured one is visible.
fn enter_root(root: BorrowedFd<'_>) -> Outcome<OwnedFd> {
    let step = |action: &'static str| move |error: Errno| Failure::setup(action, error);
    let old = rustix::fs::open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(step("open the old root"))?;
    move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(step("attach the root"))?;
    fchdir(root).map_err(step("enter the root"))?;
    pivot_root(".", ".").map_err(step("pivot into the root"))?;
    Ok(old)
}

fn run_steps(
    plan: &Plan,
    root: &mut Root,
    mut sources: impl Iterator<Item = OwnedFd>,
    report: &Report,
) -> Outcome<Option<Console>> {
    let mut console = None;
    for step in &plan.steps {
        let result = match step {
            Step::Mount {
                filesystem,
                target,
                options,
                attributes,
            } => mount(root, filesystem, target, options, *attributes),
            Step::Bind {
                target,
                recursive,
                attributes,
                ..
            } => match sources.next() {
                Some(source) => bind(root, source.as_fd(), target, *recursive, *attributes),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            Step::Node { .. } => node(root, step),
            Step::Symlink { target, to } => symlink(root, target, to),
            Step::Terminal { size } => match terminal::create(root, *size, plan.command.uid) {
                Ok((new, master)) => {
                    console = Some(new);
                    report.send(&Message::Terminal, Some(master.as_fd()))
                }
                Err(error) => Err(error),
            },
            Step::Remount { target, attributes } => open(root, target)
                .map_err(io::Error::from)
                .and_then(|fd| set_attributes(fd.as_fd(), target, false, *attributes)),
            Step::Mask { target } => mask(root, target),
            Step::ReadOnly { target } => read_only(root, target),
            Step::ReadOnlyRoot => {
                let attributes = Attributes {
                    read_only: true,
                    ..Attributes::default()
                };
                set_attributes(root.fd(), Path::new("/"), false, attributes)
            }
            Step::Sysctl { name, value } => sysctl(root, name, value),
        };
        result.map_err(|error| Failure::setup(step.to_string(), error))?;
    }
    Ok(console)
}

fn open(root: &Root, path: &Path) -> rustix::io::Result<OwnedFd> {
    root.open(path, OFlags::PATH)
}

/// Puts a detached mount onto a place.
pub(super) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// A detached copy of the mount at an open path.
pub(super) fn clone_tree(fd: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(fd, "", flags)
}

fn new_filesystem(
    filesystem: &str,
    options: &[(String, Option<String>)],
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    let context = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", filesystem)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), key),
        }
        .map_err(|errno| io::Error::other(format!("option {key}: {}", io::Error::from(errno))))?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(attributes.bits() as u32);
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

fn mount(
    root: &mut Root,
    filesystem: &str,
    target: &Path,
    options: &[(String, Option<String>)],
    attributes: Attributes,
) -> io::Result<()> {
    let mount = new_filesystem(filesystem, options, attributes)?;
    let place = root.mountpoint(target, true)?;
    Ok(attach(mount.as_fd(), place.as_fd())?)
}

fn bind(
    root: &mut Root,
    source: BorrowedFd<'_>,
    target: &Path,
    recursive: bool,
    attributes: Attributes,
) -> io::Result<()> {
    let directory = is_directory(source)?;
    let mount = clone_tree(source, recursive)?;
    let place = root.mountpoint(target, directory)?;
    attach(mount.as_fd(), place.as_fd())?;
    if attributes == Attributes::default() {
        return Ok(());
    }
    set_attributes(mount.as_fd(), target, recursive, attributes)
}

fn is_directory(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Adds attributes to a mount that is attached at `target`.
fn set_attributes(
    mount: BorrowedFd<'_>,
    target: &Path,
    recursive: bool,
    attributes: Attributes,
) -> io::Result<()> {
    let clear = if attributes.access_time == AccessTime::Relative {
        0
    } else {
        libc::MOUNT_ATTR__ATIME
    };
    match mount_setattr(mount, recursive, attributes.bits(), clear) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
        other => return other,
    }
    // Linux before 5.12: only this mount, and by path, which is inside the root by now.
    let mut flags = MountFlags::BIND;
    for (on, flag) in [
        (attributes.read_only, MountFlags::RDONLY),
        (attributes.no_suid, MountFlags::NOSUID),
        (attributes.no_dev, MountFlags::NODEV),
        (attributes.no_exec, MountFlags::NOEXEC),
    ] {
        flags.set(flag, on);
    }
    Ok(mount_remount(target, flags, "")?)
}

fn node(root: &mut Root, step: &Step) -> io::Result<()> {
    let Step::Node {
        target,
        kind,
        major,
        minor,
        mode,
        uid,
        gid,
    } = step
    else {
        return Ok(());
    };
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = root.mountpoint(parent, true)?;
    let file_type = match kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    mknodat(
        &parent,
        name,
        file_type,
        Mode::from_raw_mode(*mode),
        makedev(*major, *minor),
    )?;
    if (*uid, *gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
        chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn symlink(root: &mut Root, target: &Path, to: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = root.mountpoint(parent, true)?;
    match symlinkat(to, &parent, name) {
        Err(Errno::EXIST) => {
            unlinkat(&parent, name, AtFlags::empty())?;
            Ok(symlinkat(to, &parent, name)?)
        }
        other => Ok(other?),
    }
}

/// What is to be masked or protected; `None` when the kernel does not have it.
fn existing(root: &Root, target: &Path) -> io::Result<Option<OwnedFd>> {
    match open(root, target) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn mask(root: &Root, target: &Path) -> io::Result<()> {
    let Some(place) = existing(root, target)? else {
        return Ok(());
    };
    let cover = if is_directory(place.as_fd())? {
        let attributes = Attributes {
            read_only: true,
            no_suid: true,
            no_dev: true,
            no_exec: true,
            access_time: AccessTime::Relative,
        };
        let mode = ("mode".to_owned(), Some("755".to_owned()));
        new_filesystem("tmpfs", &[mode], attributes)?
    } else {
        let null = open(root, Path::new("/dev/null"))?;
        clone_tree(null.as_fd(), false)?
    };
    Ok(attach(cover.as_fd(), place.as_fd())?)
}

fn read_only(root: &Root, target: &Path) -> io::Result<()> {
    let Some(place) = existing(root, target)? else {
        return Ok(());
    };
    let mount = clone_tree(place.as_fd(), true)?;
    attach(mount.as_fd(), place.as_fd())?;
    let attributes = Attributes {
        read_only: true,
        ..Attributes::default()
    };
    set_attributes(mount.as_fd(), target, true, attributes)
}

fn sysctl(root: &Root, name: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    let file = root.open(&path, OFlags::WRONLY)?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}
