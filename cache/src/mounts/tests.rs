use super::*;
use crate::{Store, testing};

fn identity(id: &str) -> MountIdentity {
    MountIdentity {
        namespace: String::new(),
        id: id.to_owned(),
        base: MountBase::default(),
    }
}

fn take(store: &Arc<Store>, id: &str, sharing: MountSharing) -> Option<CacheMount> {
    store
        .cache_mounts()
        .acquire(&identity(id), sharing, |_| Ok::<(), Error>(()))
        .unwrap()
}

/// The number of the directory.
fn number(mount: &CacheMount) -> &str {
    mount.path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn what_is_written_is_there_the_next_time_under_the_same_identity_only() {
    let (dir, store) = testing::store();
    let first = take(&store, "a", MountSharing::Shared).unwrap();
    std::fs::write(first.data().join("file"), "x").unwrap();
    drop(first);
    let store = {
        drop(store);
        testing::open(dir.path(), "bbbb")
    };
    let again = take(&store, "a", MountSharing::Locked).unwrap();
    assert!(again.data().join("file").exists());
    let mut others = Vec::new();
    let changes: [fn(&mut MountIdentity); 6] = [
        |identity| identity.namespace = "n".to_owned(),
        |identity| identity.id = "b".to_owned(),
        |identity| identity.base.mode = Some(0o700),
        |identity| identity.base.uid = Some(0),
        |identity| identity.base.gid = Some(0),
        |identity| identity.base.seed = Some(ContentHash::of(b"")),
    ];
    for change in changes {
        let mut other = identity("a");
        change(&mut other);
        others.push(other.key());
    }
    others.push(identity("a").key());
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 7, "each part of the identity counts");
}

#[test]
fn a_new_directory_is_filled_once() {
    let (_dir, store) = testing::store();
    let mut filled = 0;
    for _ in 0..2 {
        let mount = store
            .cache_mounts()
            .acquire(&identity("a"), MountSharing::Private, |path| {
                filled += 1;
                std::fs::write(path.join("seed"), "x").map_err(error::io("write", path))
            });
        assert!(mount.unwrap().unwrap().data().join("seed").exists());
    }
    assert_eq!(filled, 1);
    let failed = store
        .cache_mounts()
        .acquire(&identity("b"), MountSharing::Private, |path| {
            Err(Error::Busy {
                path: path.to_owned(),
            })
        });
    assert!(failed.is_err());
    assert_eq!(
        store.cache_mounts().list().unwrap().len(),
        1,
        "a failed one leaves nothing"
    );
}

#[test]
fn sharing_decides_who_gets_what() {
    let (_dir, store) = testing::store();
    let one = take(&store, "a", MountSharing::Shared).unwrap();
    let two = take(&store, "a", MountSharing::Shared).unwrap();
    assert_eq!(one.path, two.path);
    assert!(
        take(&store, "a", MountSharing::Locked).is_none(),
        "others have it"
    );
    let private = take(&store, "a", MountSharing::Private).unwrap();
    let another = take(&store, "a", MountSharing::Private).unwrap();
    assert_eq!(
        [number(&one), number(&private), number(&another)],
        ["0", "1", "2"]
    );
    drop((one, two, private));
    assert_eq!(number(&take(&store, "a", MountSharing::Private).unwrap()), "0");
    let locked = take(&store, "a", MountSharing::Locked).unwrap();
    assert_eq!(number(&locked), "0");
    assert_eq!(number(&take(&store, "a", MountSharing::Shared).unwrap()), "1");
}

#[test]
fn many_at_once_agree() {
    let (_dir, store) = testing::store();
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| take(&store, "a", MountSharing::Shared).unwrap().path.clone()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(paths.iter().all(|path| path == &paths[0]), "{paths:?}");
    let held = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut rounds = 0;
                while rounds < 20 {
                    let Some(_mount) = take(&store, "b", MountSharing::Locked) else {
                        std::thread::yield_now();
                        continue;
                    };
                    rounds += 1;
                    assert_eq!(held.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn lists_and_removes_what_nobody_uses() {
    let (dir, store) = testing::store();
    let used = take(&store, "a", MountSharing::Shared).unwrap();
    drop(take(&store, "b", MountSharing::Shared).unwrap());
    let mounts = store.cache_mounts();
    let entries = mounts.list().unwrap();
    let ids = |entries: &[MountEntry]| {
        let mut ids: Vec<String> = entries
            .iter()
            .map(|entry| entry.record.as_ref().unwrap().identity.id.clone())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&entries), ["a", "b"]);
    for entry in &entries {
        let is_b = entry.record.as_ref().unwrap().identity.id == "b";
        assert_eq!(mounts.remove(entry).unwrap(), is_b);
    }
    assert_eq!(ids(&mounts.list().unwrap()), ["a"]);
    assert!(used.data().exists());
    assert_eq!(std::fs::read_dir(dir.path().join("mounts")).unwrap().count(), 1);
}

#[test]
fn a_damaged_sidecar_is_found_set_aside_and_written_anew() {
    let (_dir, store) = testing::store();
    let mount = take(&store, "a", MountSharing::Shared).unwrap();
    let sidecar = mount.path.join(SIDECAR);
    std::fs::write(mount.data().join("kept"), "x").unwrap();
    drop(mount);
    std::fs::write(&sidecar, "nonsense").unwrap();
    let verify = || crate::verify::run(&store, crate::verify::Options::default(), &|_| {}).unwrap();
    let report = verify();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert!(report.damage[0].to_string().contains(SIDECAR));
    crate::verify::repair(&store, &report).unwrap();
    assert!(store.cache_mounts().list().unwrap()[0].record.is_none());
    let mount = take(&store, "a", MountSharing::Shared).unwrap();
    assert!(mount.data().join("kept").exists());
    assert_eq!(verify().damage, []);
}
