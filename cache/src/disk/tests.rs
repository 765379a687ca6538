use std::{os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use kiln_image::Digest;
use kiln_tree::walk;

use super::*;
use crate::{
    CacheMount, ImageLayer, ImageRecord, Key, KeyPart, LayerId, MountBase, MountIdentity, MountSharing,
    Record, RecordKind, Store, files, testing,
    testing::{Scratch, du},
};

mod attached;
mod oldest;

fn assert_agrees(store: &Store) {
    let catalog = Catalog::read(store).unwrap();
    let (said, there) = (catalog.total(), du(store.root()));
    assert!(
        said.abs_diff(there) * 100 <= there,
        "the catalog says {said}, the disk {there}"
    );
    let sums: u64 = catalog.sums().iter().map(|sum| sum.bytes).sum();
    assert_eq!(sums, said, "the sums are of everything: {:?}", catalog.sums());
}

/// A layer with `size` bytes, and the record of the step that made it on `below`.
fn step(store: &Store, name: &str, size: usize, below: &[LayerId]) -> Vec<LayerId> {
    step_with_lists(store, name, size, below, &[])
}

/// The same, where the record refers to lists of files.
fn step_with_lists(
    store: &Store,
    name: &str,
    size: usize,
    below: &[LayerId],
    lists: &[Digest],
) -> Vec<LayerId> {
    let draft = store.layers().draft().unwrap();
    std::fs::write(draft.diff_path().join(name.replace('/', "-")), vec![b'x'; size]).unwrap();
    let listing = walk::layer(std::fs::File::open(draft.diff_path()).unwrap().as_fd()).unwrap();
    let id = LayerId::from_content(&listing.content_hash());
    store.layers().commit(draft, &id, listing).unwrap();
    let output: Vec<LayerId> = below.iter().cloned().chain([id]).collect();
    let mut parts = vec![KeyPart::new("step", name)];
    parts.extend(lists.iter().map(|list| KeyPart {
        listing: Some(*list),
        ..KeyPart::new("copy files", list.to_string())
    }));
    store
        .records()
        .put(&Record {
            key: key(name),
            kind: RecordKind::Definition,
            parts,
            output: output.clone(),
            step: format!("RUN {name}"),
            created_ms: files::now_ms(),
            duration_ms: 1,
        })
        .unwrap();
    output
}

fn key(name: &str) -> Key {
    Key::of("test", &[KeyPart::new("step", name)])
}

fn image(store: &Store, name: &str, layers: &[LayerId]) -> ImageRecord {
    let config = store
        .blobs()
        .put_bytes(format!("config of {name}").as_bytes())
        .unwrap();
    let record = ImageRecord {
        id: config,
        config,
        layers: layers
            .iter()
            .map(|layer| ImageLayer {
                layer: layer.clone(),
                diff_id: config,
                blob: None,
            })
            .collect(),
        manifests: vec![],
        repo_digests: vec![],
        platform: serde_json::from_str("{}").unwrap(),
        created: None,
        size: 0,
        names: vec![],
    };
    store
        .images()
        .put(&record, &[format!("docker.io/library/{name}:latest")])
        .unwrap();
    record
}

/// The directory of a cache mount, in use until it is dropped.
fn cache_mount(store: &Store, id: &str) -> CacheMount {
    let identity = MountIdentity {
        namespace: String::new(),
        id: id.to_owned(),
        base: MountBase::default(),
    };
    store
        .cache_mounts()
        .acquire::<crate::Error>(&identity, MountSharing::Shared, |_| Ok(()))
        .unwrap()
        .unwrap()
}

/// Another process, as far as the store can tell: it holds nothing yet.
fn other(dir: &Scratch) -> Arc<Store> {
    testing::open(dir.path(), "aaaa")
}

/// Lets a thing look as if it was last used so long ago.
fn age(path: &Path, seconds: u64) {
    let time = std::time::SystemTime::now() - Duration::from_secs(seconds);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn age_layer(store: &Store, id: &LayerId, seconds: u64) {
    age(&store.layers().path(id).join("meta.json"), seconds);
}

fn names(pruned: &Pruned) -> Vec<&str> {
    pruned
        .items
        .iter()
        .map(|item| item.description.as_str())
        .collect()
}

fn pruned(store: &Store, request: &Prune) -> Pruned {
    prune(store, request).unwrap()
}

#[test]
fn what_is_published_counts_for_no_less_than_it_takes() {
    let (_dir, store) = testing::store();
    let (before, published) = (du(store.root()), store.published_bytes());
    let mut layers = Vec::new();
    for number in 0..20 {
        layers = step(&store, &format!("step{number}"), number * 10_000, &layers);
    }
    let (grown, counted) = (du(store.root()) - before, store.published_bytes() - published);
    assert!(
        counted >= grown && counted < 2 * grown,
        "{counted} for {grown} bytes"
    );
}

#[test]
fn the_catalog_is_what_the_disk_has() {
    let (dir, store) = testing::store();
    assert_agrees(&store);
    let base = step(&store, "base", 700_000, &[]);
    let app = step(&store, "app", 30_000, &base);
    step(&store, "left", 50_000, &base);
    image(&store, "app", &app);
    store.blobs().put_bytes(&vec![3; 100_000]).unwrap();
    let mount = cache_mount(&store, "/root/.cache");
    std::fs::write(mount.data().join("file"), vec![1; 200_000]).unwrap();
    drop(mount);
    std::fs::create_dir_all(dir.path().join("git/aa/objects")).unwrap();
    std::fs::write(dir.path().join("git/aa/objects/pack"), vec![1; 10_000]).unwrap();
    std::fs::write(dir.path().join("unknown"), vec![1; 10_000]).unwrap();
    assert_agrees(&store);

    let catalog = Catalog::read(&store).unwrap();
    let [image] = catalog.images.as_slice() else {
        panic!("{:?}", catalog.images)
    };
    assert!((730_000..800_000).contains(&image.bytes), "{image:?}");
    assert_eq!(image.shared_bytes, 0);
    let find = |kind| {
        let of = catalog.items.iter().filter(|item| item.kind == kind);
        of.map(|item| (item.description.as_str(), item.bytes / 1000, item.is_shared()))
            .collect::<Vec<_>>()
    };
    let mut steps = find(ItemType::Regular);
    steps.sort_unstable();
    assert_eq!(
        steps.iter().map(|step| step.0).collect::<Vec<_>>(),
        ["RUN app", "RUN base", "RUN left"]
    );
    assert_eq!(
        steps.iter().map(|step| step.2).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert!(matches!(
        find(ItemType::CacheMount).as_slice(),
        [("/root/.cache", 200..230, false)]
    ));
    assert!(matches!(find(ItemType::Git).as_slice(), [(_, 10..30, false)]));
    assert!(matches!(
        find(ItemType::Internal).as_slice(),
        [(_, 100..120, false)]
    ));
}

#[test]
fn sizes_of_layers_are_kept_and_a_broken_one_is_measured_again() {
    let (dir, store) = testing::store();
    let layers = step(&store, "a", 100_000, &[]);
    let folder = store.layers().path(&layers[0]);
    let before = Catalog::read(&store).unwrap().total();
    assert!(!folder.join("usage").exists(), "too young to be final");
    // The layer was made long ago.
    let meta = std::fs::read(folder.join("meta.json")).unwrap();
    let mut meta: crate::layers::LayerMeta = crate::sealed::open("layer", 1, &meta).unwrap();
    meta.created_ms -= 100_000;
    std::fs::write(
        folder.join("meta.json"),
        crate::sealed::seal("layer", 1, &meta).unwrap(),
    )
    .unwrap();
    let with_file = Catalog::read(&store).unwrap().total();
    assert!(folder.join("usage").exists());
    assert!(with_file.abs_diff(before) < 10_000);
    // It is believed: what is in the folder is not looked at again.
    std::fs::write(folder.join("diff/more"), vec![1; 500_000]).unwrap();
    assert!(Catalog::read(&store).unwrap().total() < before + 100_000);
    std::fs::write(folder.join("usage"), "broken").unwrap();
    assert!(Catalog::read(&store).unwrap().total() > before + 400_000);
    assert_agrees(&store);
    drop(dir);
}

#[test]
fn what_is_in_use_or_of_an_image_stays() {
    let (dir, store) = testing::store();
    let base = step(&store, "base", 10_000, &[]);
    let app = step(&store, "app", 10_000, &base);
    let left = step(&store, "left", 10_000, &base);
    image(&store, "app", &app);
    let deleter = other(&dir);
    let all = Prune {
        all: true,
        ..Prune::default()
    };
    // This process made them all and uses them, and so may go on to.
    assert_eq!(names(&pruned(&deleter, &Prune::default())), [""; 0]);
    assert!(store.layers().get(&left[1]).unwrap().is_some());
    drop(store);
    let reader = other(&dir);
    assert!(reader.records().get(&key("left")).unwrap().is_some());
    assert_eq!(names(&pruned(&deleter, &Prune::default())), [""; 0]);
    drop(reader);
    assert_eq!(names(&pruned(&deleter, &Prune::default())), ["RUN left"]);
    let reader = other(&dir);
    assert!(reader.records().get(&key("left")).unwrap().is_none());
    assert!(reader.records().get(&key("app")).unwrap().is_some());
    drop(reader);
    // The records of an image's steps go with --all, the image does not.
    assert_eq!(pruned(&deleter, &all).items.len(), 2);
    let reader = other(&dir);
    assert!(reader.records().get(&key("app")).unwrap().is_none());
    assert!(
        reader
            .layers()
            .lowers(&crate::Snapshot { layers: app })
            .unwrap()
            .len()
            == 2
    );
    assert_eq!(
        crate::verify::run(&reader, crate::verify::Options::default(), &|_| {})
            .unwrap()
            .damage,
        []
    );
    drop(reader);
    // Whoever is about to push it says so first; it may be removed meanwhile.
    let pusher = other(&dir);
    let record = pusher.images().require("app").unwrap();
    assert!(pusher.images().hold(&record).unwrap());
    deleter.images().remove("app", false).unwrap();
    assert_eq!(pruned(&deleter, &all).items.len(), 0);
    assert!(!pusher.images().hold(&record).unwrap(), "it is gone by now");
    drop(pusher);
    assert_eq!(pruned(&deleter, &all).items.len(), 3, "two layers and the config");
    assert_eq!(deleter.layers().list().unwrap(), []);
    assert_agrees(&deleter);
}

#[test]
fn the_least_recently_used_goes_first_and_what_stands_on_it_before() {
    let (dir, store) = testing::store();
    let base = step(&store, "base", 100_000, &[]);
    let old = step(&store, "old", 100_000, &base);
    let new = step(&store, "new", 100_000, &base);
    for (id, seconds) in [(&base[0], 9000), (&old[1], 5000), (&new[1], 1000)] {
        age_layer(&store, id, seconds);
    }
    drop(store);
    let store = other(&dir);
    let order = |store: &Store| {
        let catalog = Catalog::read(store).unwrap();
        let steps = catalog.items.iter().map(|item| item.description.clone());
        steps.collect::<Vec<_>>()
    };
    assert_eq!(order(&store), ["RUN old", "RUN new", "RUN base"]);
    // A use makes it young.
    let user = other(&dir);
    user.records().get(&key("old")).unwrap().unwrap();
    drop(user);
    assert_eq!(order(&store), ["RUN new", "RUN old", "RUN base"]);

    let keep = |bytes| Prune {
        keep: Keep {
            max_used: Some(bytes),
            ..Keep::default()
        },
        ..Prune::default()
    };
    let dry = Prune {
        dry_run: true,
        ..keep(250_000)
    };
    let before = du(dir.path());
    assert_eq!(names(&pruned(&store, &dry)), ["RUN new"]);
    assert_eq!(du(dir.path()), before, "nothing was deleted");
    assert_eq!(names(&pruned(&store, &keep(250_000))), ["RUN new"]);
    assert_eq!(names(&pruned(&store, &keep(250_000))), [""; 0]);
    assert_agrees(&store);
    assert_eq!(names(&pruned(&store, &Prune::default())), ["RUN old", "RUN base"]);
}

#[test]
fn filters() {
    let (dir, store) = testing::store();
    let base = step(&store, "base", 10_000, &[]);
    let old = step(&store, "old", 10_000, &[]);
    age_layer(&store, &old[0], 7200);
    store.blobs().put_bytes(b"a blob").unwrap();
    drop(store);
    let store = other(&dir);
    let dry = |filter: Filter| {
        let request = Prune {
            filter,
            dry_run: true,
            ..Prune::default()
        };
        let pruned = pruned(&store, &request);
        let mut ids: Vec<String> = pruned.items.into_iter().map(|item| item.id).collect();
        ids.sort_unstable();
        ids
    };
    let blob = Digest::sha256_of(b"a blob").to_string();
    let mut layers = vec![base[0].to_string(), old[0].to_string()];
    layers.sort_unstable();
    let until = Filter {
        unused_for: Some(Duration::from_hours(1)),
        ..Filter::default()
    };
    assert_eq!(dry(until), [old[0].to_string()]);
    let kinds = |kinds: &[ItemType]| Filter {
        kinds: kinds.to_vec(),
        ..Filter::default()
    };
    assert_eq!(dry(kinds(&[ItemType::Internal])), [blob]);
    assert_eq!(dry(kinds(&[ItemType::Regular])), layers);
    assert_eq!(dry(kinds(&[ItemType::Git])), [""; 0]);
    let ids = Filter {
        ids: vec![base[0].as_str()[..20].to_owned()],
        ..Filter::default()
    };
    assert_eq!(dry(ids), [base[0].to_string()]);
    let shared = Filter {
        shared: Some(true),
        ..Filter::default()
    };
    assert_eq!(dry(shared), [""; 0]);
}

#[test]
fn a_keeper_holds_the_ceiling_and_the_floor() {
    let (dir, store) = testing::store();
    let mut all = Vec::new();
    for n in 0..10_u64 {
        let layers = step(&store, &format!("s{n}"), 1_000_000, &[]);
        age_layer(&store, &layers[0], 10_000 - n * 100);
        all.extend(layers);
    }
    drop(store);
    let store = other(&dir);
    let total = Catalog::read(&store).unwrap().total();
    let limits = |max_size, min_free| DiskLimits {
        max_size,
        min_free,
        min_free_spares: Duration::from_secs(9550),
    };
    let mut keeper = Keeper::new(limits(Some(Amount::Bytes(total)), None));
    assert_eq!(keeper.hold(&store, &never).unwrap().bytes, 0);
    // What is published from now on has to make room for itself.
    step(&store, "large", 2_000_000, &[]);
    let pruned = keeper.hold(&store, &never).unwrap();
    assert_eq!(
        names(&pruned),
        ["RUN s0", "RUN s1", "RUN s2"],
        "the oldest, and a bit more than needed"
    );
    assert!(Catalog::read(&store).unwrap().total() <= total);
    assert_eq!(keeper.hold(&store, &never).unwrap().bytes, 0);
    // The disk can never be free enough: what is younger than the limit stays all the same.
    let mut keeper = Keeper::new(limits(None, Some(Amount::Percent(100))));
    let space = Space::of(&store).unwrap();
    assert!(space.free < space.size);
    assert_eq!(names(&keeper.hold(&store, &never).unwrap()), ["RUN s3", "RUN s4"]);
    assert_eq!(keeper.hold(&store, &never).unwrap().bytes, 0);
    // A ceiling that cannot be held does not delete what is in use.
    let user = other(&dir);
    user.layers().require(&all[9]).unwrap();
    let mut keeper = Keeper::new(limits(Some(Amount::Bytes(1)), None));
    keeper.hold(&store, &never).unwrap();
    // The next process does not look at everything just to find the same.
    let maker = other(&dir);
    step(&maker, "later", 1_000_000, &[]);
    drop(maker);
    let mut next = Keeper::new(limits(Some(Amount::Bytes(1)), None));
    assert_eq!(names(&next.hold(&other(&dir), &never).unwrap()), [""; 0]);
    let mut left = store.layers().list().unwrap();
    left.retain(|id| all.contains(id));
    assert_eq!(left, [all[9].clone()]);
    assert_agrees(&store);
}

#[test]
fn records_without_layers_are_misses_and_go() {
    let (dir, store) = testing::store();
    let base = step(&store, "base", 1000, &[]);
    step(&store, "app", 1000, &base);
    drop(store);
    let store = other(&dir);
    let by_id = Prune {
        filter: Filter {
            ids: vec![base[0].to_string()],
            ..Filter::default()
        },
        ..Prune::default()
    };
    assert_eq!(names(&pruned(&store, &by_id)), ["RUN base"]);
    assert!(matches!(
        store.records().lookup(&key("app")).unwrap(),
        crate::Lookup::Miss(crate::records::Miss::LayerMissing(_))
    ));
    assert!(
        store.records().peek(&key("app")).unwrap().is_some(),
        "it can still tell why"
    );
    let report = crate::verify::run(&store, crate::verify::Options::default(), &|_| {}).unwrap();
    assert_eq!((report.damage.as_slice(), report.stale), (&[][..], 1));
    drop(store);
    let store = other(&dir);
    pruned(&store, &Prune::default());
    assert_eq!(store.records().list().unwrap(), []);
}

#[test]
fn a_newer_programs_image_stops_the_deleting() {
    let (dir, store) = testing::store();
    let layers = step(&store, "a", 1000, &[]);
    let record = image(&store, "a", &layers);
    let path = store.images().id_path(&record.id);
    std::fs::write(&path, crate::seal_for_tests("image", 99, b"{}")).unwrap();
    drop(store);
    let store = other(&dir);
    let error = prune(&store, &Prune::default()).unwrap_err();
    assert!(error.to_string().contains("newer program"), "{error}");
    assert_eq!(store.layers().list().unwrap().len(), 1);
}

#[test]
fn a_mount_or_repository_in_use_stays() {
    let (dir, store) = testing::store();
    let mount = cache_mount(&store, "m");
    std::fs::create_dir_all(dir.path().join("git/aa")).unwrap();
    let lock_path = dir.path().join("git/aa.lock");
    let lock = files::open_lock(&lock_path).unwrap();
    files::flock(&lock, rustix::fs::FlockOperation::LockExclusive, &lock_path).unwrap();
    assert_eq!(pruned(&store, &Prune::default()).items.len(), 0);
    assert!(mount.data().exists() && dir.path().join("git/aa").exists());
    drop((mount, lock));
    assert_eq!(pruned(&store, &Prune::default()).items.len(), 2);
    assert!(!dir.path().join("git/aa").exists());
}
