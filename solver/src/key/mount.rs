//! What of a mount goes into a key beside its type and target, and beside what it shows.

use crate::graph::MountKind;

/// Names and values. What is absent has no part, so that it may gain a default without changing keys.
pub(super) fn details(kind: &MountKind) -> Vec<(&'static str, String)> {
    let present = |pairs: Vec<(&'static str, Option<String>)>| {
        let pairs = pairs.into_iter();
        pairs.filter_map(|(name, value)| Some((name, value?))).collect()
    };
    let number = |value: &u32| value.to_string();
    let octal = |mode: &u32| format!("{mode:o}");
    match kind {
        MountKind::Bind { .. } => Vec::new(),
        // Neither which directory it is nor who else uses it.
        MountKind::Cache { mode, uid, gid, .. } => present(vec![
            ("mode", mode.as_ref().map(octal)),
            ("uid", uid.as_ref().map(number)),
            ("gid", gid.as_ref().map(number)),
        ]),
        MountKind::Tmpfs { size } => present(vec![("size", size.map(|size| size.to_string()))]),
        // Never the secret itself: a step must not come out otherwise for another one.
        MountKind::Secret {
            id,
            environment,
            file,
            required,
            mode,
            uid,
            gid,
        } => present(vec![
            ("id", Some(id.clone())),
            ("environment", environment.clone()),
            ("file", Some(file.to_string())),
            ("required", Some(required.to_string())),
            ("mode", Some(octal(mode))),
            ("uid", Some(number(uid))),
            ("gid", Some(number(gid))),
        ]),
        MountKind::Ssh {
            id,
            required,
            mode,
            uid,
            gid,
        } => present(vec![
            ("id", Some(id.clone())),
            ("required", Some(required.to_string())),
            ("mode", Some(octal(mode))),
            ("uid", Some(number(uid))),
            ("gid", Some(number(gid))),
        ]),
    }
}

/// The path below the input, as written.
pub(super) fn source(kind: &MountKind) -> &str {
    match kind {
        MountKind::Bind { source, .. } | MountKind::Cache { source, .. } => source,
        MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => "",
    }
}
