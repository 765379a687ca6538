//! Running programs of other processor architectures.
//!
//! The kernel hands a program of another architecture to an interpreter (qemu) when one is registered in its
//! `binfmt_misc`. Two ways lead there:
//!
//! - the host has a registration with the flag `F`, which opens the interpreter once and for all roots. Then there is
//!   nothing to do;
//! - the host has a static qemu and no registration. Since Linux 6.7 each user namespace may have a `binfmt_misc` of
//!   its own. A sandbox with an [`Emulator`] gets one, in a user namespace made for it alone, as the last thing before
//!   its command is executed: mounts and device nodes are made with all rights before. Nothing is registered on the
//!   host, and it all ends with the sandbox.
//!
//! What the process of such a sandbox cannot do, even as root: make device nodes, use a port below 1024 of the host's
//! network, raise hard limits.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use serde::{Deserialize, Serialize};

use crate::message::proc_fd_path;
use crate::namespace::in_user_namespace;

mod machine;

pub(crate) use machine::MACHINES;
pub use machine::Machine;

/// Where the host's registrations are shown.
const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";
/// Where interpreters are looked for. Not `$PATH`: the caller's environment is not read.
const INTERPRETERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
/// The first kernel with a `binfmt_misc` a user namespace.
const PRIVATE_SINCE: (u32, u32) = (6, 7);

/// An interpreter that a sandbox is to register for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The static program on the host.
    pub interpreter: PathBuf,
    /// The architecture that it interprets, in Go's names.
    pub architecture: String,
}

/// How programs of an architecture can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// The host hands them to this registered interpreter.
    Registered(String),
    /// A sandbox can register this one for itself.
    Private(Emulator),
    /// Not at all.
    None {
        /// Why not.
        reason: String,
        /// What would change that.
        remedy: String,
    },
}

/// How programs of `architecture` (in Go's names), which is not this machine's own, can run here.
pub fn support(architecture: &str) -> Support {
    let Some(machine) = Machine::find(architecture) else {
        return Support::None {
            reason: format!("no interpreter for the architecture {architecture} is known"),
            remedy: "build it on a machine of that architecture".to_owned(),
        };
    };
    if let Some(name) = registered(machine, &host_formats()) {
        return Support::Registered(name);
    }
    let package = format!(
        "install the package qemu-user-static (it has qemu-{}-static)",
        machine.qemu
    );
    let Some(interpreter) = interpreter(machine) else {
        return Support::None {
            reason: format!(
                "no interpreter is registered with the kernel, and qemu-{}-static is not installed",
                machine.qemu
            ),
            remedy: package,
        };
    };
    if let Err(reason) = private_possible() {
        let interpreter = interpreter.display();
        return Support::None {
            reason: format!("{interpreter} is not registered with the kernel, and {reason}"),
            remedy: "let the administrator register it with the flag F (systemd-binfmt, or update-binfmts --enable)"
                .to_owned(),
        };
    }
    Support::Private(Emulator {
        interpreter,
        architecture: architecture.to_owned(),
    })
}

impl Emulator {
    /// What is written to `register`; the interpreter is open as `fd`.
    pub(crate) fn registration(&self, fd: &OwnedFd) -> Option<Vec<u8>> {
        use std::os::fd::AsFd;
        let machine = Machine::find(&self.architecture)?;
        // P: keep the program's own argv[0] (qemu 6.0 knows how; programs of many names live by it), O: open the
        // program for the interpreter, C: with the rights of the program (set-uid), F: open the interpreter now.
        Some(
            format!(
                ":kiln-{}:M:0:{}:{}:{}:POCF",
                machine.architecture,
                escaped(&machine.magic()),
                escaped(&machine.mask()),
                proc_fd_path(fd.as_fd()).display()
            )
            .into_bytes(),
        )
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}\\x{byte:02x}"))
}

/// A registration of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Format {
    name: String,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Format {
    /// Reads what the kernel shows of a registration, if it is usable in any root: enabled, by magic number, and with
    /// the interpreter open.
    fn parse(name: &str, text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "enabled" {
            return None;
        }
        let (mut flags, mut offset, mut magic, mut mask) = ("", 0, Vec::new(), Vec::new());
        for line in lines {
            match line.split_once(' ')? {
                ("flags:", value) => flags = value,
                ("offset", value) => offset = value.parse().ok()?,
                ("magic", value) => magic = unhex(value)?,
                ("mask", value) => mask = unhex(value)?,
                _ => {}
            }
        }
        if mask.is_empty() {
            mask = vec![0xff; magic.len()];
        }
        let usable = flags.contains('F') && !magic.is_empty() && mask.len() == magic.len();
        usable.then(|| Self {
            name: name.to_owned(),
            offset,
            magic,
            mask,
        })
    }

    fn takes(&self, header: &[u8]) -> bool {
        let Some(bytes) = header.get(self.offset..) else {
            return false;
        };
        bytes.len() >= self.magic.len()
            && self
                .magic
                .iter()
                .zip(&self.mask)
                .zip(bytes)
                .all(|((magic, mask), byte)| magic & mask == byte & mask)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn registered(machine: &Machine, formats: &[Format]) -> Option<String> {
    let header = machine.header();
    let format = formats.iter().find(|format| format.takes(&header))?;
    Some(format.name.clone())
}

/// The host's registrations that work in any root.
fn host_formats() -> Vec<Format> {
    let shown = formats_in(Path::new(DIRECTORY));
    if !shown.is_empty() || Path::new(DIRECTORY).join("status").exists() || in_user_namespace() {
        return shown;
    }
    // Not mounted, as in many containers. In the first user namespace it is the host's own that is looked at; in
    // another one this would make a new one, and hide the host's.
    match mount() {
        Ok(mount) => {
            use std::os::fd::AsFd;
            formats_in(&proc_fd_path(mount.as_fd()))
        }
        Err(_) => Vec::new(),
    }
}

fn formats_in(directory: &Path) -> Vec<Format> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "register" && name != "status");
    names
        .filter_map(|name| Format::parse(&name, &std::fs::read_to_string(directory.join(&name)).ok()?))
        .collect()
}

/// The `binfmt_misc` of the user namespace, as a detached mount.
pub(crate) fn mount() -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A static qemu for the machine. One that needs libraries would look for them in the sandbox's root.
fn interpreter(machine: &Machine) -> Option<PathBuf> {
    let names = [
        format!("qemu-{}-static", machine.qemu),
        format!("qemu-{}", machine.qemu),
    ];
    names
        .iter()
        .flat_map(|name| {
            INTERPRETERS
                .iter()
                .map(move |folder| Path::new(folder).join(name))
        })
        .find(|path| is_static(path))
}

/// Whether an ELF program needs no dynamic loader.
fn is_static(path: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let Ok(file) = File::open(path) else { return false };
    let mut header = [0u8; 64];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"\x7fELF") {
        return false;
    }
    let wide = header[4] == 2;
    let little = header[5] == 1;
    let number = |bytes: &[u8]| {
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if little {
            bytes.iter().rev().fold(0, fold)
        } else {
            bytes.iter().fold(0, fold)
        }
    };
    let (offset, size, count) = if wide {
        (
            number(&header[32..40]),
            number(&header[54..56]),
            number(&header[56..58]),
        )
    } else {
        (
            number(&header[28..32]),
            number(&header[42..44]),
            number(&header[44..46]),
        )
    };
    let kind = |index: u64| {
        let mut bytes = [0u8; 4];
        let at = offset.checked_add(index * size)?;
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(number(&bytes))
    };
    (0..count).all(|index| kind(index).is_some_and(|kind| kind != u64::from(PT_INTERP)))
}

/// Whether a user namespace can have a `binfmt_misc` of its own, or why not.
fn private_possible() -> Result<(), String> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    if kernel_version(&release) < PRIVATE_SINCE {
        return Err(format!(
            "Linux {release} cannot register it for one sandbox alone (6.7 can)"
        ));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("binfmt_misc")) {
        return Err("the kernel has no binfmt_misc loaded (modprobe binfmt_misc)".to_owned());
    }
    match crate::namespace::user_namespace_hint() {
        Some(hint) if !in_user_namespace() => Err(format!("user namespaces cannot be made here: {hint}")),
        _ => Ok(()),
    }
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn registrations_are_understood() {
        let format = Format::parse("qemu-aarch64", AARCH64).unwrap();
        let machine = |name| Machine::find(name).unwrap();
        assert_eq!(
            registered(machine("arm64"), std::slice::from_ref(&format)).as_deref(),
            Some("qemu-aarch64")
        );
        assert_eq!(registered(machine("arm"), std::slice::from_ref(&format)), None);
        assert_eq!(registered(machine("riscv64"), &[format]), None);
        for (from, to) in [
            ("enabled", "disabled"),
            ("OCF", "OC"),
            ("magic 7f", "magic 7"),
            ("magic", "extension"),
        ] {
            assert_eq!(Format::parse("x", &AARCH64.replacen(from, to, 1)), None, "{to}");
        }
        assert_eq!(Format::parse("x", ""), None);
    }

    #[test]
    fn what_is_registered_is_what_the_kernel_would_show() {
        for machine in &MACHINES {
            let format = Format {
                name: machine.architecture.to_owned(),
                offset: 0,
                magic: machine.magic(),
                mask: machine.mask(),
            };
            for other in &MACHINES {
                assert_eq!(
                    format.takes(&other.header()),
                    machine == other,
                    "{machine:?} {other:?}"
                );
            }
            // A position-independent program and one with an OS ABI are taken, too.
            let mut header = machine.header();
            header[7] = 3;
            let kind = if machine.little_endian { 16 } else { 17 };
            header[kind] = 3;
            assert!(format.takes(&header), "{machine:?}");
        }
    }

    #[test]
    fn the_own_program_is_not_static_and_a_text_is_no_program() {
        assert!(!is_static(Path::new("/etc/passwd")));
        assert!(!is_static(Path::new("/nowhere")));
    }

    #[test]
    fn kernel_versions() {
        for (release, version) in [
            ("6.18.5-fc", (6, 18)),
            ("5.4.0", (5, 4)),
            ("7.0", (7, 0)),
            ("x", (0, 0)),
        ] {
            assert_eq!(kernel_version(release), version, "{release}");
        }
    }

    #[test]
    fn an_unknown_architecture_has_a_reason() {
        let Support::None { reason, remedy } = support("pdp11") else {
            panic!("nothing runs that")
        };
        assert!(reason.contains("pdp11") && !remedy.is_empty());
    }
}
