//! `user[:group]` resolved against the account files of a root file system.
//!
//! Rules as in Docker: numbers need no entry; a name must have one; a user without a group gets the primary
//! group of its entry, and 0 where there is none; supplementary groups come from the group file when no group
//! was given.

use crate::Root;

/// Account files are read up to this size; real ones are a few KiB.
const MAX_ACCOUNT_FILE: u64 = 4 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Home directory; `/` without an entry.
    pub home: String,
}

/// Why a user or group cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The name has no entry in the account file.
    #[error("no {kind} {name:?} in {file} of the image")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The account file.
        file: &'static str,
    },
    /// The account file exists and cannot be read.
    #[error("failed to read {file} of the image")]
    Read {
        /// The account file.
        file: &'static str,
        /// The cause.
        source: crate::Error,
    },
}

/// Whom a process runs as when `spec` is its `USER`; empty means root.
pub fn identity(root: &Root, spec: &str) -> Result<Identity, AccountError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = lines(root, "/etc/passwd")?;
    let entry = passwd
        .iter()
        .filter_map(|line| PasswdEntry::parse(line))
        // A number is always an id, even where it is somebody's name.
        .find(|entry| {
            user.parse()
                .map_or(entry.name == user, |uid: u32| entry.uid == uid)
        });
    let uid = match (&entry, user.parse::<u32>()) {
        (_, Ok(uid)) => uid,
        (Some(entry), _) => entry.uid,
        (None, Err(_)) if user == "root" => 0,
        (None, Err(_)) => {
            return Err(AccountError::Unknown {
                kind: "user",
                name: user.to_owned(),
                file: "/etc/passwd",
            });
        }
    };
    let groups = lines(root, "/etc/group")?;
    let gid = match group {
        Some(group) => group_id(&groups, group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let supplementary = match (&entry, group) {
        (Some(entry), None) => groups
            .iter()
            .filter_map(|line| GroupEntry::parse(line))
            .filter(|candidate| candidate.members.contains(&entry.name))
            .map(|candidate| candidate.gid)
            .collect(),
        _ => Vec::new(),
    };
    // The primary group is always among them, as with containerd: without it, a process could drop the group and
    // so lose a denial that depends on it (CVE-2022-36109).
    let mut supplementary: Vec<u32> = supplementary;
    if !supplementary.contains(&gid) {
        supplementary.insert(0, gid);
    }
    let home = entry.map_or("/", |entry| entry.home).to_owned();
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(Identity {
        uid,
        gid,
        groups: supplementary,
        home,
    })
}

/// The owner that `COPY --chown=spec` gives. A numeric user without a group owns the group of the same number.
pub fn owner(root: &Root, spec: &str) -> Result<(u32, u32), AccountError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    match (user.parse::<u32>(), group) {
        (Ok(uid), None) => Ok((uid, uid)),
        (Ok(uid), Some(group)) => match group.parse::<u32>() {
            Ok(gid) => Ok((uid, gid)),
            Err(_) => Ok((uid, group_id(&lines(root, "/etc/group")?, group)?)),
        },
        (Err(_), _) if user == "root" && group.is_none_or(|group| group == "root") => Ok((0, 0)),
        _ => identity(root, spec).map(|identity| (identity.uid, identity.gid)),
    }
}

fn group_id(groups: &[String], group: &str) -> Result<u32, AccountError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let found = groups
        .iter()
        .filter_map(|line| GroupEntry::parse(line))
        .find(|entry| entry.name == group);
    match found {
        Some(entry) => Ok(entry.gid),
        None if group == "root" => Ok(0),
        None => Err(AccountError::Unknown {
            kind: "group",
            name: group.to_owned(),
            file: "/etc/group",
        }),
    }
}

/// The lines of an account file of the image; a missing file has none.
fn lines(root: &Root, file: &'static str) -> Result<Vec<String>, AccountError> {
    let bytes = root
        .read_opt(file, MAX_ACCOUNT_FILE)
        .map_err(|source| AccountError::Read { file, source })?
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes)
        .lines()
        .map(str::to_owned)
        .collect())
}

/// `name:password:uid:gid:comment:home:shell`, passwd(5).
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or_default(),
        })
    }
}

/// `name:password:gid:member,member`, group(5).
struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields
            .next()
            .unwrap_or_default()
            .split(',')
            .filter(|member| !member.is_empty())
            .collect();
        Some(Self { name, gid, members })
    }
}

#[cfg(test)]
mod tests;
