//! Which hierarchies are mounted where, and where in them the process is.

use std::path::PathBuf;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Controllers (and `name=`) of a v1 hierarchy; none for the unified one.
    pub(super) controllers: Option<Vec<String>>,
    pub(super) mountpoint: PathBuf,
    /// The process's own group, as a path below the mountpoint.
    pub(super) own: PathBuf,
}

/// Takes `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub(super) fn parse(own: &str, mountinfo: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let mut right = right.split(' ');
        let (Some(typ), Some(super_options)) = (right.next(), right.nth(1)) else {
            continue;
        };
        let (Some(root), Some(mountpoint)) = (left.get(3), left.get(4)) else {
            continue;
        };
        let unified = match typ {
            "cgroup2" => true,
            "cgroup" => false,
            _ => continue,
        };
        for line in own.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let ours = if unified {
                names.is_empty()
            } else {
                let mut has = super_options.split(',');
                !names.is_empty()
                    && names
                        .split(',')
                        .all(|name| has.clone().any(|option| option == name))
                    || has.any(|option| option == names)
            };
            // Inside a cgroup namespace or a bind, the mount shows only a part of the hierarchy.
            let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
            let controllers = (!unified).then(|| names.split(',').map(str::to_owned).collect());
            let mountpoint = PathBuf::from(unescape(mountpoint));
            // A second mount of the same hierarchy shows nothing new.
            if ours && !found.iter().any(|known| known.controllers == controllers) {
                found.push(Found {
                    controllers,
                    mountpoint,
                    own: PathBuf::from(inside),
                });
            }
        }
    }
    found
}

/// mountinfo writes blanks as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(controllers: Option<&[&str]>, mountpoint: &str, own: &str) -> Found {
        let controllers = controllers.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        Found {
            controllers,
            mountpoint: mountpoint.into(),
            own: own.into(),
        }
    }

    #[test]
    fn hybrid_with_paths_that_differ() {
        let own = "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n";
        let mountinfo = "\
30 20 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n\
31 30 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
32 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
33 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
34 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(
            parse(own, mountinfo),
            [
                found(None, "/sys/fs/cgroup/unified", "/"),
                found(Some(&["name=systemd"]), "/sys/fs/cgroup/systemd", "/"),
                found(Some(&["memory"]), "/sys/fs/cgroup/memory", "/a/b"),
                found(Some(&["cpu", "cpuacct"]), "/sys/fs/cgroup/cpu,cpuacct", "/"),
            ]
        );
    }

    #[test]
    fn unified_inside_a_container() {
        let own = "0::/docker/abc/x\n";
        let mountinfo = "31 30 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(parse(own, mountinfo), [found(None, "/sys/fs/cgroup", "/x")]);
    }

    #[test]
    fn none() {
        assert_eq!(parse("", "1 0 0:1 / / rw - ext4 /dev/a rw\n"), []);
        assert_eq!(parse("0::/\n", "nonsense\n\n"), []);
    }
}
