//! From the mounts, devices and paths of a specification to steps.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Mount, Spec};

use super::options::{MountOptions, parse};
use super::{Attributes, CgroupView, Host, Step, has_namespace};
use crate::{Error, Result, WindowSize};

#[expect(
    clippy::option_option,
    reason = "no terminal; one of unknown size; one of a size"
)]
pub(super) fn steps(
    spec: &Spec,
    linux: &Linux,
    host: &Host,
    terminal: Option<Option<WindowSize>>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut has_dev = false;
    let mut read_only_at_end = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let options = parse(
            mount.destination(),
            mount.options().as_deref().unwrap_or_default(),
        )?;
        let is_dev = mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("tmpfs");
        if is_dev && options.attributes.read_only {
            // The nodes must get in first.
            read_only_at_end.push(Step::Remount {
                target: mount.destination().clone(),
                attributes: options.attributes,
            });
        }
        mount_steps(mount, options, linux, host, is_dev, &mut steps)?;
        if is_dev {
            has_dev = true;
            device_steps(linux, host, &mut steps)?;
        }
    }
    if !has_dev && !linux.devices().as_ref().is_none_or(Vec::is_empty) {
        device_steps(linux, host, &mut steps)?;
    }
    if let Some(size) = terminal {
        steps.push(Step::Terminal { size });
    }
    for (name, value) in sorted(linux.sysctl().iter().flatten()) {
        steps.push(Step::Sysctl {
            name: name.clone(),
            value: value.clone(),
        });
    }
    let path = |path: &String| PathBuf::from(path);
    steps.extend(
        linux
            .readonly_paths()
            .iter()
            .flatten()
            .map(|p| Step::ReadOnly { target: path(p) }),
    );
    steps.extend(
        linux
            .masked_paths()
            .iter()
            .flatten()
            .map(|p| Step::Mask { target: path(p) }),
    );
    steps.extend(read_only_at_end);
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        steps.push(Step::ReadOnlyRoot);
    }
    Ok(steps)
}

fn sorted<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(&'a String, &'a String)> {
    let mut pairs: Vec<_> = map.collect();
    pairs.sort();
    pairs
}

fn mount_steps(
    mount: &Mount,
    options: MountOptions,
    linux: &Linux,
    host: &Host,
    is_dev: bool,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let target = mount.destination().clone();
    if !target.is_absolute() || target == Path::new("/") {
        return Err(Error::spec(format!(
            "mount destination {} must be a path below /",
            target.display()
        )));
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(Error::spec(format!(
            "mount {}: id mappings are not supported",
            target.display()
        )));
    }
    let typ = mount.typ().as_deref().unwrap_or("none");
    let mut attributes = options.attributes;
    if options.bind || typ == "bind" {
        let source = mount.source().clone().unwrap_or_default();
        if !source.is_absolute() {
            let (target, source) = (target.display(), source.display());
            return Err(Error::spec(format!(
                "mount {target}: source {source} must be an absolute path"
            )));
        }
        steps.push(Step::Bind {
            source,
            target,
            recursive: options.recursive,
            attributes,
        });
        return Ok(());
    }
    let own_network = has_namespace(linux, LinuxNamespaceType::Network);
    match typ {
        "cgroup" | "cgroup2" => cgroup_steps(&target, attributes, host, steps),
        "sysfs" if host.user_namespace && !own_network => {
            // sysfs shows the network namespace, and that is not ours.
            steps.push(Step::Bind {
                source: PathBuf::from("/sys"),
                target,
                recursive: true,
                attributes,
            });
        }
        "devpts" => {
            let mut data = options.data;
            if host.single_id {
                // There is no such group: the kernel would refuse.
                data.retain(|(key, _)| key != "gid");
            }
            data.retain(|(key, _)| key != "newinstance");
            steps.push(Step::Mount {
                filesystem: typ.to_owned(),
                target,
                options: data,
                attributes,
            });
        }
        filesystem => {
            if is_dev {
                attributes.read_only = false;
            }
            steps.push(Step::Mount {
                filesystem: filesystem.to_owned(),
                target,
                options: options.data,
                attributes,
            });
        }
    }
    Ok(())
}

fn cgroup_steps(target: &Path, attributes: Attributes, host: &Host, steps: &mut Vec<Step>) {
    let mount = |filesystem: &str, target: PathBuf, options, attributes| Step::Mount {
        filesystem: filesystem.to_owned(),
        target,
        options,
        attributes,
    };
    match &host.cgroups {
        CgroupView::None => {}
        CgroupView::Unified => steps.push(mount("cgroup2", target.to_owned(), Vec::new(), attributes)),
        CgroupView::Legacy(hierarchies) => {
            let open = Attributes {
                read_only: false,
                ..attributes
            };
            let mode = vec![("mode".to_owned(), Some("755".to_owned()))];
            steps.push(mount("tmpfs", target.to_owned(), mode, open));
            for (directory, option) in hierarchies {
                let options = option
                    .split(',')
                    .map(|option| match option.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                        None => (option.to_owned(), None),
                    })
                    .collect();
                steps.push(mount("cgroup", target.join(directory), options, attributes));
            }
            if attributes.read_only {
                steps.push(Step::Remount {
                    target: target.to_owned(),
                    attributes,
                });
            }
        }
    }
}

fn device_steps(linux: &Linux, host: &Host, steps: &mut Vec<Step>) -> Result<()> {
    for device in linux.devices().iter().flatten() {
        steps.push(device_step(device, host)?);
    }
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/core", "/proc/kcore"),
    ];
    steps.extend(links.map(|(target, to)| Step::Symlink {
        target: target.into(),
        to: to.into(),
    }));
    Ok(())
}

fn device_step(device: &LinuxDevice, host: &Host) -> Result<Step> {
    let target = device.path().clone();
    let kind = match device.typ() {
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::C | LinuxDeviceType::U => 'c',
        LinuxDeviceType::P => 'p',
        LinuxDeviceType::A => {
            return Err(Error::spec(format!(
                "device {}: type `a` is no type",
                target.display()
            )));
        }
    };
    if host.user_namespace && kind != 'p' {
        // Making device nodes is refused in a user namespace.
        let attributes = Attributes::default();
        return Ok(Step::Bind {
            source: target.clone(),
            target,
            recursive: false,
            attributes,
        });
    }
    let number = |value: i64, name: &str| {
        u32::try_from(value)
            .map_err(|_| Error::spec(format!("device {}: {name} number {value}", target.display())))
    };
    Ok(Step::Node {
        kind,
        major: number(device.major(), "major")?,
        minor: number(device.minor(), "minor")?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        target,
    })
}
