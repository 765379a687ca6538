//! Deleting beside building: four builders and three deleters on one store, and some of them killed. What a builder
//! found or made stays whole as long as the builder lives, whatever the deleters do.
//! The helper processes are this test program itself, started again with variables set.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    fs::File,
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kiln_cache::{
    ImageLayer, ImageRecord, Key, KeyPart, LayerId, Record, RecordKind, Store,
    disk::{self, Amount, Catalog, DiskLimits, Keeper, Prune},
    verify,
};
use kiln_tree::walk;

use common::{Scratch, open};

const ROOT: &str = "KILN_CACHE_EVICT_ROOT";
const ROLE: &str = "KILN_CACHE_EVICT_ROLE";
/// Steps that the builders want again and again.
const STEPS: u64 = 12;
const FILES: u64 = 8;

fn start(root: &Path, role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper", "--nocapture"])
        .env(ROOT, root)
        .env(ROLE, role)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn content(step: u64, file: u64) -> String {
    format!("content {step} {file}\n").repeat(20)
}

/// The step's layer from the cache, or made. Returns whether it was a hit.
fn run(store: &Store, step: u64) -> (LayerId, bool) {
    let parts = vec![KeyPart::new("step", step.to_string())];
    let key = Key::of("test", &parts);
    if let Some(record) = store.records().get(&key).unwrap() {
        return (record.output[0].clone(), true);
    }
    let draft = store.layers().draft().unwrap();
    for file in 0..FILES {
        std::fs::write(
            draft.diff_path().join(format!("file-{file}")),
            content(step, file),
        )
        .unwrap();
    }
    let listing = walk::layer(File::open(draft.diff_path()).unwrap().as_fd()).unwrap();
    let id = LayerId::from_content(&listing.content_hash());
    store.layers().commit(draft, &id, listing).unwrap();
    let record = Record {
        key,
        kind: RecordKind::Definition,
        parts,
        output: vec![id.clone()],
        step: format!("RUN {step}"),
        created_ms: 1,
        duration_ms: 0,
    };
    store.records().put(&record).unwrap();
    (id, false)
}

/// Everything that was found is there, and right.
fn look(store: &Store, step: u64, id: &LayerId) {
    let layer = store.layers().require(id).unwrap();
    assert_eq!(layer.listing().unwrap().len() as u64, FILES);
    for file in 0..FILES {
        let path = layer.diff_path().join(format!("file-{file}"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, content(step, file));
    }
}

/// A build of a few steps, looking at all of them until its end; then an image of them, sometimes.
fn build(root: &Path, seed: u64) -> u64 {
    let store = open(root);
    let steps: Vec<u64> = (0..4).map(|n| (seed * 7 + n * 5) % STEPS).collect();
    let mut hits = 0;
    let mut done: Vec<(u64, LayerId)> = Vec::new();
    for step in steps {
        let (id, hit) = run(&store, step);
        hits += u64::from(hit);
        done.push((step, id));
        for (step, id) in &done {
            look(&store, *step, id);
        }
    }
    let config = store
        .blobs()
        .put_bytes(format!("config {seed}").as_bytes())
        .unwrap();
    assert!(store.blobs().read(&config).unwrap().is_some());
    if seed.is_multiple_of(3) {
        let record = ImageRecord {
            id: config,
            config,
            layers: done
                .iter()
                .map(|(_, layer)| ImageLayer {
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
        let name = format!("docker.io/library/test-{}:latest", seed % 5);
        store.images().put(&record, &[name]).unwrap();
    }
    for (step, id) in &done {
        look(&store, *step, id);
    }
    hits
}

fn all() -> Prune {
    Prune {
        all: true,
        ..Prune::default()
    }
}

#[test]
fn helper() {
    let (Ok(root), Ok(role)) = (std::env::var(ROOT), std::env::var(ROLE)) else {
        return;
    };
    let root = Path::new(&root);
    let end = Instant::now() + Duration::from_secs(6);
    let mut seed = u64::from(std::process::id());
    let (mut hits, mut misses, mut deleted) = (0, 0, 0);
    while Instant::now() < end {
        seed += 1;
        match role.as_str() {
            "build" => {
                let found = build(root, seed);
                hits += found;
                misses += 4 - found;
            }
            "prune" => {
                let store = open(root);
                deleted += disk::prune(&store, &all()).unwrap().items.len();
                // Otherwise nothing would ever be found again.
                std::thread::sleep(Duration::from_millis(3 + seed % 20));
            }
            // Mostly by the index, which one process has at a time.
            "keep" => {
                let store = open(root);
                let limits = DiskLimits {
                    max_size: Some(Amount::Bytes(1)),
                    ..DiskLimits::default()
                };
                // What was tried in vain just now is tried again.
                let _ = std::fs::remove_file(root.join("index/futile"));
                deleted += Keeper::new(limits).hold(&store, &|| false).unwrap().items.len();
                std::thread::sleep(Duration::from_millis(3 + seed % 20));
            }
            "untag" => {
                let store = open(root);
                match store.images().remove(&format!("test-{}", seed % 5), false) {
                    Ok(_) | Err(kiln_cache::Error::ImageNotFound(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            role => panic!("{role}"),
        }
    }
    match role.as_str() {
        "build" => assert!(
            hits > 0 && misses > 0,
            "{hits} hits, {misses} misses: no race was run"
        ),
        "prune" | "keep" => assert!(deleted > 0),
        _ => {}
    }
}

fn whole(root: &Path) {
    let store = open(root);
    let report = verify::run(&store, verify::Options::default(), &|_| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(store.take_warnings(), []);
}

#[test]
fn builders_and_deleters_do_not_meet() {
    let scratch = Scratch::new("evict");
    let roles = [
        "build", "build", "build", "build", "prune", "keep", "keep", "untag",
    ];
    let children: Vec<Child> = roles.iter().map(|role| start(&scratch.0, role)).collect();
    for (mut child, role) in children.into_iter().zip(roles) {
        assert!(child.wait().unwrap().success(), "{role}");
    }
    whole(&scratch.0);
}

#[test]
fn killed_deleters_and_builders_leave_rubbish_only() {
    let scratch = Scratch::new("evict-killed");
    for kill in 0..25_u64 {
        let roles = ["build", "build", "prune", "keep", "keep", "untag"];
        let mut children: Vec<Child> = roles.iter().map(|role| start(&scratch.0, role)).collect();
        std::thread::sleep(Duration::from_millis(40 + (kill * 37) % 160));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        whole(&scratch.0);
        // What the dead held is free, and what they were deleting goes.
        let store = open(&scratch.0);
        assert!(store.maintenance().wait(Duration::from_mins(1)));
        if kill % 5 == 4 {
            for image in store.images().list().unwrap() {
                store.images().remove(&image.id.to_string(), true).unwrap();
            }
            disk::prune(&store, &all()).unwrap();
            assert_eq!(store.layers().list().unwrap(), []);
            assert_eq!(store.records().list().unwrap(), []);
            assert_eq!(Catalog::read(&store).unwrap().items.len(), 0);
        }
    }
}
