//! What a store needs from time to time, and nobody waits for.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::fs::FlockOperation;

use crate::{
    LayerId, Result, Retention, Store, error, files,
    layers::{self, MetaRead},
    lease, records, remove,
};

/// Damaged things are kept this long for whoever wants to look into them.
const DAMAGED_KEPT_SECS: i64 = 30 * 24 * 60 * 60;

/// Maintenance that runs in the background. Dropped, it is told to stop and not waited for; being cut off by the
/// end of the process harms nothing.
#[derive(Debug)]
pub struct Maintenance {
    stop: Arc<AtomicBool>,
    done: mpsc::Receiver<()>,
}

impl Maintenance {
    /// Waits for the end, at most so long. Returns whether it has ended.
    pub fn wait(&self, patience: Duration) -> bool {
        !matches!(
            self.done.recv_timeout(patience),
            Err(mpsc::RecvTimeoutError::Timeout)
        )
    }

    /// Tells it to stop soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn start(store: Arc<Store>) -> Maintenance {
    let stop = Arc::new(AtomicBool::new(false));
    let (send, done) = mpsc::channel();
    let told = Arc::clone(&stop);
    let work = move || {
        run(&store, &told);
        drop(store);
        // The other end may be gone: nobody waits, then.
        let _ = send.send(());
    };
    // No thread to be had: the next process does the work.
    let _ = std::thread::Builder::new()
        .name("kiln-maintenance".into())
        .spawn(work);
    Maintenance { stop, done }
}

type Task = fn(&Store, &AtomicBool) -> Result<()>;

fn run(store: &Store, stop: &AtomicBool) {
    let tasks: [(&str, Task); 5] = [
        ("tmp", |store, stop| {
            store.temp().sweep(&|| stop.load(Ordering::Relaxed)).map(drop)
        }),
        ("synced", drop_unsynced),
        ("builds", |store, _| {
            store.builds().prune(Retention::default()).map(drop)
        }),
        ("damaged", |store, _| {
            drop_old_damage(&store.root().join("damaged"))
        }),
        ("index", |store, stop| {
            if store.index().has_work_beside_builds()? {
                store.index().merge(stop);
            }
            Ok(())
        }),
    ];
    for (folder, task) in tasks {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = task(store, stop) {
            let path = store.root().join(folder);
            let reason = format!("maintenance failed: {error}");
            store.shared.warn(crate::Warning {
                path,
                reason,
                moved_to: None,
            });
        }
    }
}

/// Once a boot: deletes the layers and records that an earlier boot left unsynced. They are ignored anyway; this
/// gives their space back. What one process does not get done, the next one goes on with.
fn drop_unsynced(store: &Store, stop: &AtomicBool) -> Result<()> {
    let shared = &store.shared;
    let marker = shared.root.join("synced/cleaned");
    let boot = shared.durability.boot().as_str();
    if files::read_opt(&marker)?.is_some_and(|known| known == boot.as_bytes()) {
        return Ok(());
    }
    let lock_path = shared.root.join("locks/clean");
    let lock = files::open_lock(&lock_path)?;
    if !files::try_flock(&lock, FlockOperation::NonBlockingLockExclusive, &lock_path)? {
        return Ok(());
    }
    // `<boot> <the last folder of records that is done>`
    let half = shared.root.join("synced/cleaning");
    let known = files::read_opt(&half)?.and_then(|text| String::from_utf8(text).ok());
    let done = known
        .as_deref()
        .and_then(|text| text.strip_prefix(boot))
        .map(str::trim);
    for shard in store.records().shards()? {
        if done.is_some_and(|done| shard.as_str() <= done) {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        drop_unsynced_records(store, &shard)?;
        shared
            .temp
            .publish(format!("{boot} {shard}").as_bytes(), &half, false)?;
    }
    for id in store.layers().list()? {
        drop_layer_if_untrusted(store, &id)?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    files::write_beside(&marker, boot.as_bytes())?;
    files::remove_if_there(&half)
}

fn drop_unsynced_records(store: &Store, shard: &str) -> Result<()> {
    for key in store.records().of_shard(shard)? {
        let Some(bytes) = files::read_opt(&store.records().path(&key))? else {
            continue;
        };
        if let Ok((_, stamp)) = records::parse(&bytes)
            && !store.shared.durability.trusted(&stamp)
        {
            store.records().remove(&key)?;
        }
    }
    Ok(())
}

fn drop_layer_if_untrusted(store: &Store, id: &LayerId) -> Result<()> {
    let shared = &store.shared;
    let path = store.layers().path(id);
    let worthless = || -> Result<bool> {
        Ok(match layers::read_meta(&path, id)? {
            MetaRead::Good(meta) => !shared.durability.trusted(&meta.stamp),
            _ => false,
        })
    };
    if !worthless()? {
        return Ok(());
    }
    // Who replaces a layer holds this lock too, so what is judged here is what is renamed here.
    let turn = lease::short(&shared.root, "layers")?;
    if !worthless()? {
        return Ok(());
    }
    let away = shared.temp.away();
    std::fs::rename(&path, &away).map_err(error::io("delete", &path))?;
    drop(turn);
    remove::tree(&away).map_err(error::io("delete", away))
}

fn drop_old_damage(folder: &Path) -> Result<()> {
    for name in files::names(folder)? {
        let path = folder.join(name);
        // A rename changes the ctime: that is when it was set aside.
        let now = i64::try_from(files::now_ms() / 1000).unwrap_or(i64::MAX);
        if std::fs::symlink_metadata(&path).is_ok_and(|meta| now - meta.ctime() > DAMAGED_KEPT_SECS) {
            remove::tree(&path).map_err(error::io("delete", path))?;
        }
    }
    Ok(())
}
