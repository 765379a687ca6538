//! Which user and group ids exist inside a user namespace.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::{NamespaceError, user_namespace_error};
use crate::sys::fork::{exec_when_told, write_when_told};
use crate::sys::unshare::unshare;

/// Where the set-uid helpers are looked for. Not `$PATH`: the caller's environment is not read.
const HELPER_DIRECTORIES: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// The ids that exist in the process's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdMapping {
    /// Many: files of an image keep their owners.
    Full,
    /// Only root: every owner is stored as root, and changing to another user fails.
    Single,
}

impl IdMapping {
    /// Of the user namespace the calling process is in.
    pub fn current() -> Self {
        let mapped: u64 = std::fs::read_to_string("/proc/self/uid_map")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok())
            .sum();
        if mapped == 1 { Self::Single } else { Self::Full }
    }
}

/// A range of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id outside.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// The ranges that a file in the format of `/etc/subuid` allots to a user, by name or by number.
pub(crate) fn ranges_of(text: &str, name: Option<&str>, uid: u32) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let start = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let ours = Some(owner) == name || owner.parse() == Ok(uid);
            (ours && count > 0).then_some(IdRange { start, count })
        })
        .collect()
}

/// The name that `/etc/passwd` gives a user id.
pub fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The arguments of newuidmap and newgidmap after the process id: the own id as root, then the
/// subordinate ranges from 1 on.
fn map_arguments(own: u32, ranges: &[IdRange]) -> Vec<String> {
    let mut arguments = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside: u32 = 1;
    for range in ranges {
        arguments.extend([
            inside.to_string(),
            range.start.to_string(),
            range.count.to_string(),
        ]);
        inside = inside.saturating_add(range.count);
    }
    arguments
}

/// Maps the ids of this user namespace to themselves in the one that the process `pid` has just made below it.
pub(crate) fn same_ids(pid: Pid) -> io::Result<()> {
    for (own, file) in [
        ("/proc/self/uid_map", "uid_map"),
        ("/proc/self/gid_map", "gid_map"),
    ] {
        let map = identity(&std::fs::read_to_string(own)?);
        std::fs::write(format!("/proc/{}/{file}", pid.as_raw_nonzero()), map)?;
    }
    Ok(())
}

/// The map of a namespace as the map of one below it in which every id keeps its number.
fn identity(map: &str) -> String {
    map.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (inside, count) = (fields.next()?, fields.nth(1)?);
            Some(format!("{inside} {inside} {count}\n"))
        })
        .collect()
}

/// Finds one of the set-uid helpers.
pub(crate) fn helper(name: &str) -> Option<PathBuf> {
    HELPER_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}

/// The ranges of the calling user in `/etc/subuid` and `/etc/subgid`.
pub(crate) fn subordinate_ids(uid: u32) -> (Vec<IdRange>, Vec<IdRange>) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = user_name(&passwd, uid);
    let read = |path| ranges_of(&std::fs::read_to_string(path).unwrap_or_default(), name, uid);
    (read("/etc/subuid"), read("/etc/subgid"))
}

/// A helper that was forked before the namespace was made (so that it stays outside) and waits.
struct Helper {
    program: &'static str,
    pid: Pid,
    stderr: File,
}

impl Helper {
    fn fork(
        program: &'static str,
        own: u32,
        ranges: &[IdRange],
        go: &(OwnedFd, OwnedFd),
    ) -> io::Result<Option<Self>> {
        let Some(path) = helper(program) else {
            return Ok(None);
        };
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut arguments = vec![
            CString::new(program)?,
            CString::new(std::process::id().to_string())?,
        ];
        for argument in map_arguments(own, ranges) {
            arguments.push(CString::new(argument)?);
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let pid = exec_when_told(&path, &arguments, go.0.as_fd(), go.1.as_fd(), write.as_fd())?;
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no process id"))?;
        Ok(Some(Self {
            program,
            pid,
            stderr: File::from(read),
        }))
    }

    /// Waits for it; `Err` has its error output.
    fn finish(mut self) -> Result<(), String> {
        let mut text = String::new();
        // What it said is only for the note; without it, the exit status has to do.
        let _ = self.stderr.read_to_string(&mut text);
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) if status.exit_status() == Some(0) => return Ok(()),
                Err(rustix::io::Errno::INTR) | Ok(None) => {}
                Ok(Some(_)) | Err(_) => {
                    let text = text.trim();
                    let text = if text.is_empty() {
                        "failed without a message"
                    } else {
                        text
                    };
                    return Err(format!("{}: {text}", self.program));
                }
            }
        }
    }
}

/// A child that was forked before the namespace was made, and gives it all ids of the surrounding one: root of a
/// container may do that, without subordinate ids and helpers.
struct AllIds(Pid);

impl AllIds {
    fn fork(go: &(OwnedFd, OwnedFd)) -> io::Result<Self> {
        let own = std::process::id();
        let map = |kind: &str| -> io::Result<(CString, String)> {
            let text = identity(&std::fs::read_to_string(format!("/proc/self/{kind}"))?);
            Ok((CString::new(format!("/proc/{own}/{kind}"))?, text))
        };
        let maps = [map("uid_map")?, map("gid_map")?];
        let files = maps
            .each_ref()
            .map(|(path, text)| (path.as_c_str(), text.as_bytes()));
        let pid = write_when_told(&files, go.0.as_fd(), go.1.as_fd())?;
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no process id"))?;
        Ok(Self(pid))
    }

    /// Waits for it. False when the kernel took not everything.
    fn finish(self) -> bool {
        loop {
            match waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => return status.exit_status() == Some(0),
                Err(rustix::io::Errno::INTR) | Ok(None) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Makes and enters a user and a mount namespace, and maps ids. The note says why not all.
pub(super) fn enter_user_namespace(single: bool) -> Result<(IdMapping, Option<String>), NamespaceError> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let step = |action: &str| {
        let action = action.to_owned();
        move |source: io::Error| NamespaceError::step(action, source)
    };
    if single {
        unshare_both()?;
        write_single("uid_map", uid).map_err(step("write uid_map"))?;
        write_single_gid(gid).map_err(step("write gid_map"))?;
        return Ok((IdMapping::Single, None));
    }
    let (uids, gids) = subordinate_ids(uid);
    let mut note = None;
    let mut helpers = None;
    let mut all_ids = None;
    let go = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| NamespaceError::step("make a pipe", errno))?;
    if uids.is_empty() || gids.is_empty() {
        if uid == 0 {
            all_ids = Some(AllIds::fork(&go).map_err(step("start a process that maps ids"))?);
        }
        note = Some(format!(
            "no subordinate ids for user id {uid} in /etc/subuid and /etc/subgid: run `usermod --add-subuids \
             100000-165535 --add-subgids 100000-165535 USER` as root"
        ));
    } else {
        let users = Helper::fork("newuidmap", uid, &uids, &go).map_err(step("start newuidmap"))?;
        let groups = Helper::fork("newgidmap", gid, &gids, &go).map_err(step("start newgidmap"))?;
        match (users, groups) {
            (Some(users), Some(groups)) => helpers = Some((users, groups)),
            _ => note = Some("newuidmap and newgidmap are missing: install the package uidmap".to_owned()),
        }
    }
    unshare_both()?;
    if let Some(all_ids) = all_ids {
        rustix::io::write(&go.1, b"g")
            .map_err(|errno| NamespaceError::step("wake the process that maps ids", errno))?;
        // Where the container's root may not, it has one id like any user.
        if all_ids.finish() {
            return Ok((IdMapping::Full, None));
        }
    }
    let Some((users, groups)) = helpers else {
        // One of both may have been taken.
        if is_unwritten("uid_map") {
            write_single("uid_map", uid).map_err(step("write uid_map"))?;
        }
        if is_unwritten("gid_map") {
            write_single_gid(gid).map_err(step("write gid_map"))?;
        }
        return Ok((IdMapping::Single, note));
    };
    rustix::io::write(&go.1, b"gg")
        .map_err(|errno| NamespaceError::step("wake the id map helpers", errno))?;
    drop(go);
    let (users, groups) = (users.finish(), groups.finish());
    if users.is_err() {
        write_single("uid_map", uid).map_err(step("write uid_map"))?;
    }
    if groups.is_err() {
        write_single_gid(gid).map_err(step("write gid_map"))?;
    }
    match (users, groups) {
        (Ok(()), Ok(())) => Ok((IdMapping::Full, None)),
        (Err(reason), _) | (_, Err(reason)) => Ok((IdMapping::Single, Some(reason))),
    }
}

fn unshare_both() -> Result<(), NamespaceError> {
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|errno| user_namespace_error(errno.into()))
}

fn write_single(map: &str, id: u32) -> io::Result<()> {
    std::fs::write(Path::new("/proc/self").join(OsStr::new(map)), format!("0 {id} 1"))
}

fn is_unwritten(map: &str) -> bool {
    let map = std::fs::read_to_string(Path::new("/proc/self").join(OsStr::new(map)));
    map.is_ok_and(|map| map.is_empty())
}

/// Without privilege the kernel wants setgroups given up before a gid map is written.
fn write_single_gid(gid: u32) -> io::Result<()> {
    match std::fs::write("/proc/self/setgroups", "deny") {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    write_single("gid_map", gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "# c\nalice:100000:65536\nbob:165536:65536\n1000:300000:10\nalice:400000:5\nbroken:x:1\nalice:1:0\n";
        let range = |start, count| IdRange { start, count };
        assert_eq!(
            ranges_of(text, Some("alice"), 1),
            [range(100_000, 65536), range(400_000, 5)]
        );
        assert_eq!(ranges_of(text, Some("carol"), 1000), [range(300_000, 10)]);
        assert_eq!(ranges_of(text, None, 7), []);
    }

    #[test]
    fn a_namespace_below_keeps_the_numbers() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity(map), "0 0 1\n1 1 65536\n");
        assert_eq!(identity("0 0 4294967295\n"), "0 0 4294967295\n");
    }

    #[test]
    fn names_come_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nu:x:1000:1001::/home/u:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("u"));
        assert_eq!(user_name(passwd, 1001), None);
    }

    #[test]
    fn arguments_put_ranges_one_after_the_other() {
        let ranges = [
            IdRange {
                start: 100,
                count: 10,
            },
            IdRange { start: 300, count: 5 },
        ];
        assert_eq!(
            map_arguments(1000, &ranges),
            ["0", "1000", "1", "1", "100", "10", "11", "300", "5"]
        );
    }
}
