//! `Store`: opens the folder and hands out its parts.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Blobs, BootId, Builds, CacheMounts, Error, Hashes, Images, IndexHandle, Layers, Maintenance, Records,
    Remotes, Result, Stamp, Temp, Variants, Warning, durability::Durability, error, files, lease::Lease,
    maintenance, uses::Uses,
};

/// The format of the whole store: the set of folders and what they mean. Single files have versions of their own.
const FORMAT: u32 = 1;

const FOLDERS: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "blobs/stamps",
    "builds",
    "damaged",
    "hashes",
    "images",
    "images/ids",
    "images/indexes",
    "images/names",
    "index",
    "index/journal",
    "layers",
    "locks",
    "mounts",
    "records",
    "synced",
    "synced/boots",
    "tmp",
    "tmp/partial",
];

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Whether layers use `user.overlay.*` attributes (inside a user namespace) instead of `trusted.overlay.*`.
    /// Fixed when the store is made.
    pub userxattr: bool,
    /// The running boot: [`crate::boot::id`].
    pub boot: BootId,
    /// A folder of this user's that lies in memory, such as `/run/kiln`, made when needed: what a failing disk did not
    /// take is told there, too. Without one, only that disk may know.
    pub runtime: Option<PathBuf>,
}

/// The store. Threads share one; any number of processes may have the same root open.
#[derive(Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    layers: Layers,
    index: IndexHandle,
}

/// What all parts of the store need.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) userxattr: bool,
    pub(crate) durability: Durability,
    pub(crate) temp: Temp,
    pub(crate) lease: Lease,
    pub(crate) uses: Uses,
    /// Bytes of the layers and blobs that this process has published.
    pub(crate) published: AtomicU64,
    warnings: Mutex<Vec<Warning>>,
}

impl Store {
    /// Opens the store at `root`, and makes it first if there is none. Opening an existing one costs a handful of
    /// system calls: it reads the `version` file and takes the shared lease.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Arc<Self>> {
        let root = std::path::absolute(root).map_err(error::io("resolve", root))?;
        match read_version(&root)? {
            Some(stored) => check_version(&root, &stored, options.userxattr)?,
            None => create(&root, options.userxattr)?,
        }
        let lease = Lease::shared(&root)?;
        let shared = Arc::new(Shared {
            userxattr: options.userxattr,
            durability: Durability::new(&root, options.runtime.as_deref(), options.boot)?,
            temp: Temp::new(&root),
            lease,
            uses: Uses::new(&root),
            published: AtomicU64::new(0),
            warnings: Mutex::new(Vec::new()),
            root,
        });
        Ok(Arc::new(Self {
            layers: Layers::new(Arc::clone(&shared)),
            index: IndexHandle::new(Arc::clone(&shared)),
            shared,
        }))
    }

    /// The folder of the store, absolute.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Whether layers use `user.overlay.*` attributes.
    pub fn userxattr(&self) -> bool {
        self.shared.userxattr
    }

    /// The content store: manifests, configs, compressed layers.
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::new(&self.shared)
    }

    /// The unpacked layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The cache records.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.shared, &self.layers, &self.index)
    }

    /// The images and their names.
    pub fn images(&self) -> Images<'_> {
        Images::new(&self.shared, &self.layers)
    }

    /// The memory of file hashes of build contexts.
    pub fn hashes(&self) -> Hashes<'_> {
        Hashes::new(&self.shared)
    }

    /// The directories that steps keep from build to build.
    pub fn cache_mounts(&self) -> CacheMounts<'_> {
        CacheMounts::new(&self.shared)
    }

    /// What layers are as blobs.
    pub fn variants(&self) -> Variants<'_> {
        Variants::new(&self.shared)
    }

    /// What is known of files that were downloaded.
    pub fn remotes(&self) -> Remotes<'_> {
        Remotes::new(&self.shared)
    }

    /// The history of builds.
    pub fn builds(&self) -> Builds<'_> {
        Builds::new(&self.shared)
    }

    /// The index of everything that is searched rather than looked up.
    pub fn index(&self) -> &IndexHandle {
        &self.index
    }

    /// Temporary folders of this process.
    pub fn temp(&self) -> &Temp {
        &self.shared.temp
    }

    /// Makes everything published so far survive a power loss: one `syncfs`, some milliseconds. To be called at
    /// the end of a build, before its image gets its name.
    pub fn sync(&self) -> Result<()> {
        self.shared.durability.sync()
    }

    /// [`Store::sync`], only if this process published something since the last one. A fully cached build did not.
    pub fn sync_if_needed(&self) -> Result<()> {
        if self.shared.durability.dirty() {
            self.sync()
        } else {
            Ok(())
        }
    }

    /// Tells of bytes that were written below the root and are not published yet: much of it goes to the disk at once,
    /// so that [`Store::sync`] has less to wait for.
    pub fn wrote(&self, bytes: u64) {
        self.shared.durability.wrote(bytes);
    }

    /// Bytes of the layers and blobs that this process has published so far, about.
    pub fn published_bytes(&self) -> u64 {
        self.shared.published.load(Ordering::Relaxed)
    }

    /// Starts the work that nobody waits for, in a thread of its own: sweeping what dead processes left, dropping
    /// what a power loss made worthless, bounding the build history, merging journals into the index.
    pub fn maintenance(self: &Arc<Self>) -> Maintenance {
        maintenance::start(Arc::clone(self))
    }

    /// What was found not to be as it should since the last call. To be shown to the user; nothing of it is fatal.
    pub fn take_warnings(&self) -> Vec<Warning> {
        std::mem::take(
            &mut *self
                .shared
                .warnings
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl Shared {
    /// Counts what was published.
    pub(crate) fn add_published(&self, bytes: u64) {
        self.published.fetch_add(bytes, Ordering::Relaxed);
        self.durability.wrote(bytes);
    }

    pub(crate) fn warn(&self, warning: Warning) {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(warning);
    }

    /// Moves a damaged thing to `damaged/`, where nothing looks any more, and says so.
    pub(crate) fn set_aside(&self, path: &Path, reason: impl Into<String>) -> Warning {
        let name = path
            .file_name()
            .map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned());
        let name: String = name.chars().take(150).collect();
        let target = self
            .root
            .join("damaged")
            .join(format!("{name}-{}", files::random_name()));
        let moved = files::publish(path, &target);
        Warning {
            path: path.to_owned(),
            reason: reason.into(),
            moved_to: moved.is_ok().then_some(target),
        }
    }

    /// Publishes a small file that carries a stamp.
    pub(crate) fn publish_stamped(
        &self,
        target: &Path,
        bytes: impl FnOnce(&Stamp) -> Result<Vec<u8>>,
    ) -> Result<()> {
        self.durability
            .publish(|stamp| self.temp.publish(&bytes(stamp)?, target, false))
    }
}

fn read_version(root: &Path) -> Result<Option<String>> {
    let path = root.join("version");
    let Some(bytes) = files::read_opt(&path)? else {
        return Ok(None);
    };
    let reason = || Error::VersionFile {
        root: root.to_owned(),
        reason: "it is no text".to_owned(),
    };
    String::from_utf8(bytes).map(Some).map_err(|_| reason())
}

fn version_text(userxattr: bool) -> String {
    format!(
        "kiln-store {FORMAT}\noverlay {}\n",
        if userxattr { "user" } else { "trusted" }
    )
}

fn check_version(root: &Path, text: &str, userxattr: bool) -> Result<()> {
    if text == version_text(userxattr) {
        return Ok(());
    }
    let bad = |reason: &str| Error::VersionFile {
        root: root.to_owned(),
        reason: reason.to_owned(),
    };
    let mut lines = text.lines();
    let found = lines
        .next()
        .and_then(|line| line.strip_prefix("kiln-store "))
        .and_then(|number| number.parse::<u32>().ok())
        .ok_or_else(|| bad("it does not begin with `kiln-store <number>`"))?;
    if found != FORMAT {
        return Err(Error::Version {
            root: root.to_owned(),
            found,
            known: FORMAT,
        });
    }
    match lines.next() {
        Some("overlay user") => Err(Error::XattrMode {
            root: root.to_owned(),
            stored_userxattr: true,
        }),
        Some("overlay trusted") => Err(Error::XattrMode {
            root: root.to_owned(),
            stored_userxattr: false,
        }),
        _ => Err(bad("it does not say which overlay attributes the layers use")),
    }
}

/// Makes the folders, then the version file, so that whoever finds the version file finds the folders. Several
/// processes may do this at once.
fn create(root: &Path, userxattr: bool) -> Result<()> {
    std::fs::create_dir_all(root).map_err(error::io("create", root))?;
    for folder in FOLDERS {
        let path = root.join(folder);
        match rustix::fs::mkdir(&path, 0o755.into()) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(error::errno("create", path)(errno)),
        }
    }
    // The creators take turns; the first one's answer stands.
    let _turn = crate::lease::short(root, "create")?;
    match read_version(root)? {
        Some(stored) => check_version(root, &stored, userxattr),
        None => files::write_beside(&root.join("version"), version_text(userxattr).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn opens_what_it_made() {
        let (dir, store) = testing::store();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("version")).unwrap(),
            "kiln-store 1\noverlay trusted\n"
        );
        drop(store);
        testing::open(dir.path(), "bbbb");
    }

    #[test]
    fn refuses_other_versions_and_modes() {
        let (dir, store) = testing::store();
        drop(store);
        let options = StoreOptions {
            userxattr: true,
            boot: "aa".parse().unwrap(),
            runtime: None,
        };
        let open = || Store::open(dir.path(), options.clone()).unwrap_err();
        assert!(matches!(
            open(),
            Error::XattrMode {
                stored_userxattr: false,
                ..
            }
        ));
        for (text, newer) in [
            ("kiln-store 2\nwhatever\n", true),
            ("kiln-store 0\n", true),
            ("", false),
            ("x", false),
        ] {
            std::fs::write(dir.path().join("version"), text).unwrap();
            let error = open();
            assert_eq!(matches!(error, Error::Version { .. }), newer, "{text:?}: {error}");
            assert_eq!(
                matches!(error, Error::VersionFile { .. }),
                !newer,
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn many_processes_may_create_it_at_once() {
        let dir = testing::Scratch::new();
        let root = dir.path().join("deep/store");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| testing::open(&root, "aaaa"));
            }
        });
    }
}
