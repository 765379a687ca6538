//! Several processes on one store: publishing the same things at once, and being killed at any moment.
//! The helper processes are this test program itself, started again with a variable set.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_cache::{ImageLayer, ImageRecord, Key, KeyPart, LayerId, Record, RecordKind, Store, verify};
use kiln_image::Digest;
use kiln_tree::walk;

use common::{Scratch, open};

const ROOT: &str = "KILN_CACHE_TEST_ROOT";
const ROUNDS: &str = "KILN_CACHE_TEST_ROUNDS";

fn start(root: &Path, rounds: std::ops::Range<usize>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper", "--nocapture"])
        .env(ROOT, root)
        .env(ROUNDS, format!("{} {}", rounds.start, rounds.end))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn blob(round: usize) -> Vec<u8> {
    let mut bytes = format!("blob {round} ").into_bytes();
    // Every other one is large: with a stamp.
    bytes.resize(if round.is_multiple_of(2) { 100_000 } else { 100 }, b'x');
    bytes
}

/// Publishes one of everything, as a build does.
fn build(store: &Store, round: usize) {
    let bytes = blob(round);
    let digest = Digest::sha256_of(&bytes);
    if let Some(mut writer) = store.blobs().writer(&digest, Some(bytes.len() as u64)).unwrap() {
        let at = usize::try_from(writer.offset()).unwrap();
        for chunk in bytes[at..].chunks(9_000) {
            writer.write_all(chunk).unwrap();
        }
        writer.commit().unwrap();
    }
    let draft = store.layers().draft().unwrap();
    for n in 0..20 {
        let folder = draft.diff_path().join(format!("dir-{}", n % 4));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("file-{n}")), format!("content {round} {n}")).unwrap();
    }
    let listing = walk::layer(File::open(draft.diff_path()).unwrap().as_fd()).unwrap();
    let id = LayerId::from_content(&listing.content_hash());
    let layer = store.layers().commit(draft, &id, listing).unwrap();
    layer.set_diff_id(&digest).unwrap();
    let parts = vec![KeyPart::new("round", round.to_string())];
    let record = Record {
        key: Key::of("test", &parts),
        kind: RecordKind::Definition,
        parts,
        output: vec![id.clone()],
        step: format!("RUN {round}"),
        created_ms: round as u64,
        duration_ms: 0,
    };
    store.records().put(&record).unwrap();
    assert_eq!(
        store.records().get(&record.key).unwrap().unwrap().output,
        std::slice::from_ref(&id)
    );
    let image = ImageRecord {
        id: digest,
        config: digest,
        layers: vec![ImageLayer {
            layer: id,
            diff_id: digest,
            blob: None,
        }],
        manifests: vec![],
        repo_digests: vec![],
        platform: serde_json::from_str("{}").unwrap(),
        created: None,
        size: layer.size(),
        names: vec![],
    };
    store
        .images()
        .put(&image, &[format!("docker.io/library/test:{}", round % 7)])
        .unwrap();
}

#[test]
fn helper() {
    let (Ok(root), Ok(rounds)) = (std::env::var(ROOT), std::env::var(ROUNDS)) else {
        return;
    };
    let store = open(Path::new(&root));
    let (from, to) = rounds.split_once(' ').unwrap();
    for round in from.parse().unwrap()..to.parse().unwrap() {
        build(&store, round);
        if round % 5 == 4 {
            let _ = store.maintenance().wait(Duration::from_secs(5));
        }
    }
    assert_eq!(store.take_warnings(), []);
}

fn whole(root: &Path) -> verify::Report {
    let store = open(root);
    let report = verify::run(&store, verify::Options::default(), &|_| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(store.take_warnings(), []);
    report
}

#[test]
fn eight_processes_publish_the_same_things() {
    let scratch = Scratch::new("eight");
    let children: Vec<Child> = (0..8).map(|_| start(&scratch.0, 0..6)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let report = whole(&scratch.0);
    assert_eq!(
        (report.records, report.layers, report.images, report.blobs),
        (6, 6, 6, 6)
    );
    let left: Vec<_> = std::fs::read_dir(scratch.0.join("tmp"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["partial"], "everybody cleaned up");
    assert_eq!(
        std::fs::read_dir(scratch.0.join("tmp/partial")).unwrap().count(),
        0
    );
}

#[test]
fn killed_at_any_moment_the_store_is_whole() {
    let scratch = Scratch::new("killed");
    let mut published = 0;
    // A new store now and then, so that its making is hit too.
    for kill in 0..40_u64 {
        let root = scratch.0.join((kill / 20).to_string());
        let rounds = kill as usize * 1000..usize::MAX;
        let mut child = start(&root, rounds.clone());
        let other = (kill % 3 == 0).then(|| start(&root, rounds));
        std::thread::sleep(Duration::from_millis(10 + (kill * 37) % 150));
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(mut other) = other {
            other.kill().unwrap();
            other.wait().unwrap();
        }
        if kill % 4 == 3 {
            published += whole(&root).records;
            // The next build works, and sweeps what the dead left.
            let store = open(&root);
            build(&store, 3);
            assert!(store.maintenance().wait(Duration::from_mins(1)));
            let owners = std::fs::read_dir(root.join("tmp")).unwrap().flatten();
            let owners = owners.filter(|entry| entry.file_name().to_string_lossy().contains('-'));
            let young = |name: &str| name.starts_with("new-");
            let left: Vec<_> = owners
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            let own = format!("{}-", std::process::id());
            assert!(
                left.iter().all(|name| young(name) || name.starts_with(&own)),
                "{left:?}"
            );
        }
    }
    assert!(
        published > 20,
        "only {published} records were seen: the helpers did nothing"
    );
}
