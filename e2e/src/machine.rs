//! What the tests know about the machine they run on.

use crate::Result;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The checkout's folder.
pub fn checkout() -> PathBuf {
    let manifest = std::env::var_os("KILN_E2E_CHECKOUT").map(PathBuf::from);
    manifest.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

/// The folder `testdata` of the checkout.
pub fn testdata() -> PathBuf {
    checkout().join("testdata")
}

/// The binary under test: `KILN_BIN`, or the one that cargo put beside the tests.
pub fn kiln() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KILN_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe()?;
    let beside = test.ancestors().nth(2).map(|folder| folder.join("kiln"));
    match beside.filter(|path| path.exists()) {
        Some(path) => Ok(path),
        None => Err("no kiln binary: run `cargo build -p kiln-cli`, or name one with KILN_BIN".into()),
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program on the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    // Debian keeps some daemons where an ordinary user does not look.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| {
            candidate
                .metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        })
}

/// A command that sees nothing of the developer's environment: own HOME, no configuration, no locale.
pub fn command(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        .env("TMPDIR", temp_folder());
    command.stdin(Stdio::null());
    command
}

/// Where temporary folders are made: `KILN_E2E_TMP`, or the system's folder for them.
pub fn temp_folder() -> PathBuf {
    std::env::var_os("KILN_E2E_TMP").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A temporary folder that goes away with the value; `KILN_E2E_KEEP` leaves it for a look.
#[derive(Debug)]
pub struct TempFolder {
    path: PathBuf,
}

impl TempFolder {
    /// Makes one whose name starts as given.
    pub fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "kiln-e2e-{}-{}-{number}",
            name.replace('/', "-"),
            std::process::id()
        );
        let path = temp_folder().join(name);
        std::fs::create_dir_all(&path).map_err(|error| format!("create {}: {error}", path.display()))?;
        Ok(Self { path })
    }

    /// Makes one with a path as short as can be, for programs that need that.
    pub fn short() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("kiln-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("create {}: {error}", path.display()))?;
        Ok(Self { path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if std::env::var_os("KILN_E2E_KEEP").is_some() || std::fs::remove_dir_all(&self.path).is_ok() {
            return;
        }
        // An ordinary user's store holds files of the user's sub-ids: only a namespace with those may remove them.
        let _ = Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf"])
            .arg(&self.path)
            .stderr(Stdio::null())
            .status();
    }
}

/// A small file system, which only root can make; it is taken away with the value.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of a size such as `24m` at a folder.
    pub fn at(path: &Path, size: &str) -> Result<Self> {
        let options = format!("size={size},mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .output()?;
        if !mounted.status.success() {
            return Err(String::from_utf8_lossy(&mounted.stderr).into());
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A mount that stays is seen by whoever removes the folder.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// The mounts of this thread's mount namespace that name a path.
pub fn mounts_naming(path: &Path) -> Result<Vec<String>> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    let needle = path.display().to_string();
    Ok(mounts
        .lines()
        .filter(|line| line.contains(&needle))
        .map(str::to_owned)
        .collect())
}

/// The processes whose command line or environment names a word, this process and its parents left out.
pub fn processes_naming(word: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        // A process that ends meanwhile is none that was left behind.
        let text = ["cmdline", "environ"]
            .map(|file| std::fs::read(entry.path().join(file)).unwrap_or_default())
            .concat();
        if String::from_utf8_lossy(&text).contains(word) {
            found.push(format!(
                "{pid}: {}",
                String::from_utf8_lossy(&text[..text.len().min(120)]).replace('\0', " ")
            ));
        }
    }
    Ok(found)
}
