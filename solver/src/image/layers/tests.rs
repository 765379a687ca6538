use std::io::Write as _;
use std::sync::mpsc::{Sender, channel};

use kiln_cache::{LayerId, Store};
use kiln_image::layer::{LARGEST_WINDOW, LayerError, Windows as _};
use kiln_image::{Digest, media_type};

use super::*;
use crate::event::{Event, EventKind, EventSink};
use crate::task::Reporter;
use crate::testing::TempDir;

/// Hears every event of a task.
struct Heard<F>(F);

impl<F: Fn(EventKind) + Send + Sync> EventSink for Heard<F> {
    fn event(&self, event: Event) {
        (self.0)(event.kind);
    }
}

fn task(hear: impl Fn(EventKind) + Send + Sync + 'static) -> Task {
    Reporter::new(Arc::new(Heard(hear))).announce("fetch", Vec::new(), None)
}

/// A layout without images, and what takes layers from it.
struct Place {
    dir: TempDir,
    store: Arc<Store>,
    images: Images,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new();
        dir.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        dir.write(
            "layout/index.json",
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
        );
        std::fs::create_dir_all(dir.path().join("layout/blobs/sha256")).unwrap();
        let store = dir.store();
        let images = Images::new(
            Arc::clone(&store),
            Box::new(|| panic!("no registry is to be asked")),
        );
        Self { dir, store, images }
    }

    fn layout(&self) -> std::path::PathBuf {
        self.dir.path().join("layout")
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.layout().join("blobs/sha256").join(digest.hex())
    }

    /// A layer of these bytes, which says that its tar is another.
    fn of_other_tar(&self, tar: &[u8], diff_id: Digest) -> SourceLayer {
        let digest = Digest::sha256_of(tar);
        std::fs::write(self.blob(&digest), tar).unwrap();
        SourceLayer {
            layer: LayerId::from_diff_id(&diff_id),
            diff_id,
            blob: Some(Descriptor::new(media_type::OCI_LAYER, digest, tar.len() as u64)),
        }
    }

    fn layer(&self, tar: &[u8]) -> SourceLayer {
        self.of_other_tar(tar, Digest::sha256_of(tar))
    }

    fn bring(&self, layers: &[SourceLayer], task: &Task, cancel: &Cancel) -> Result<(), PullError> {
        let layers: Vec<&SourceLayer> = layers.iter().collect();
        self.images
            .bring_layers(Origin::Layout(&self.layout()), &layers, task, cancel)
    }

    fn has(&self, layer: &SourceLayer) -> bool {
        self.store.layers().get(&layer.layer).unwrap().is_some()
    }

    /// What is unfinished in the store: drafts and parts of blobs.
    fn unfinished(&self) -> Vec<String> {
        let mut names = Vec::new();
        for folder in std::fs::read_dir(self.store.root().join("tmp")).unwrap() {
            for entry in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                names.push(entry.unwrap().path().display().to_string());
            }
        }
        names.retain(|name| !name.ends_with("/lock"));
        names
    }
}

fn make_pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A tar header.
fn header(name: &str, kind: u8, size: usize) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000001");
    put(148, "        ");
    put(257, "ustar\u{0}00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// A tar of a directory and a file of many pieces.
fn tar(name: &str) -> Vec<u8> {
    let content = name.repeat(200_000);
    let mut tar = [
        header(&format!("{name}/"), b'5', 0),
        header(&format!("{name}/f"), b'0', content.len()),
    ]
    .concat();
    tar.extend(content.as_bytes());
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// The start of a tar with a file of more holes than there may be.
fn of_holes() -> Vec<u8> {
    let record = |name: &str, value: &str| {
        let rest = format!(" {name}={value}\n");
        let length = (1..100_usize).find(|length| length.to_string().len() + rest.len() == *length);
        format!("{}{rest}", length.unwrap())
    };
    let records = [
        record("GNU.sparse.size", "1152921504606846976"),
        record("GNU.sparse.map", "0,1"),
        record("GNU.sparse.numblocks", "1"),
    ]
    .concat();
    let mut tar = header("pax", b'x', records.len());
    tar.extend(records.as_bytes());
    tar.resize(1024, 0);
    tar.extend(header("f", b'0', 1));
    tar
}

#[test]
fn many_layers_come_and_leave_nothing_behind() {
    let place = Place::new();
    let layers: Vec<SourceLayer> = (10..22)
        .map(|number| place.layer(&tar(&number.to_string())))
        .collect();
    place.bring(&layers, &task(|_| {}), &Cancel::new()).unwrap();
    for layer in &layers {
        assert!(place.has(layer));
        let blob = layer.blob.as_ref().unwrap();
        assert!(place.store.blobs().contains(&blob.digest).unwrap());
    }
    assert_eq!(place.unfinished(), [""; 0]);
    // Again, with the blobs there and some layers: there is nothing to follow.
    place.bring(&layers, &task(|_| {}), &Cancel::new()).unwrap();
}

/// A zstd stream of stored blocks, with a window of two to the power of `log`.
fn stored(bytes: &[u8], log: u8) -> Vec<u8> {
    let mut stream = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
    for block in bytes.chunks(100_000) {
        stream.extend(&(u32::try_from(block.len()).unwrap() << 3).to_le_bytes()[..3]);
        stream.extend(block);
    }
    stream.extend([1, 0, 0]);
    stream
}

/// Whoever waits for memory that others hold does not wait for them when there is nothing to unpack any more.
#[test]
fn waiting_for_memory_ends_with_the_download_and_with_the_pull() {
    let place = Place::new();
    let blob = |name: &str, log| {
        let tar = tar(name);
        let layer = place.of_other_tar(&stored(&tar, log), Digest::sha256_of(&tar));
        let path = place.blob(&layer.blob.as_ref().unwrap().digest);
        (layer, path)
    };
    let elsewhere = Cancel::new();
    let held = place.images.memory().until(&elsewhere);
    let held = held.reserve(LARGEST_WINDOW).unwrap();

    // The usual windows need nothing of it.
    let (usual, _) = blob("usual", 23);
    place.bring(&[usual], &task(|_| {}), &Cancel::new()).unwrap();

    let (layer, path) = blob("wrong", 24);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = place.bring(&[layer], &task(|_| {}), &Cancel::new()).unwrap_err();
    assert!(
        matches!(error, PullError::Store(kiln_cache::Error::DigestMismatch { .. })),
        "{error:?}"
    );

    let (layer, _) = blob("large", 24);
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let brought = scope.spawn(|| place.bring(std::slice::from_ref(&layer), &task(|_| {}), &cancel));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!brought.is_finished());
        cancel.raise();
        assert!(matches!(brought.join().unwrap(), Err(PullError::Canceled)));
    });
    assert_eq!(place.unfinished(), [""; 0]);

    drop(held);
    place
        .bring(std::slice::from_ref(&layer), &task(|_| {}), &Cancel::new())
        .unwrap();
    assert!(place.has(&layer));
}

#[test]
fn a_blob_that_is_there_is_unpacked() {
    let place = Place::new();
    let layer = place.layer(&tar("there"));
    let blob = place.blob(&layer.blob.as_ref().unwrap().digest);
    place
        .store
        .blobs()
        .put_bytes(&std::fs::read(&blob).unwrap())
        .unwrap();
    std::fs::remove_file(blob).unwrap();
    place
        .bring(std::slice::from_ref(&layer), &task(|_| {}), &Cancel::new())
        .unwrap();
    assert!(place.has(&layer));
}

#[test]
fn of_several_bad_layers_the_lowest_is_told() {
    for _ in 0..10 {
        let place = Place::new();
        let bad = |text: &str| place.of_other_tar(&tar(text), Digest::sha256_of(text.as_bytes()));
        let layers = [
            place.layer(&tar("good")),
            place.layer(&tar("better")),
            bad("bad"),
            place.layer(&b"no tar ".repeat(1000)),
            bad("worse"),
            place.layer(&tar("unseen")),
        ];
        match place.bring(&layers, &task(|_| {}), &Cancel::new()) {
            Err(PullError::DiffId { blob, .. }) => assert_eq!(blob, layers[2].blob.as_ref().unwrap().digest),
            other => panic!("{other:?}"),
        }
        assert!(place.has(&layers[0]) && place.has(&layers[1]));
        assert!(!layers[2..5].iter().any(|layer| place.has(layer)));
        assert_eq!(place.unfinished(), [""; 0]);
    }
}

#[test]
fn wrong_bytes_are_told_and_not_what_became_of_them() {
    let good = tar("spoiled");
    let spoiled_at = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    // A header, content that only the DiffID knows, and the very last byte; then none of it.
    for bytes in [
        spoiled_at(3),
        spoiled_at(5000),
        spoiled_at(good.len() - 1),
        vec![7; good.len()],
    ] {
        let place = Place::new();
        let layer = place.layer(&good);
        std::fs::write(place.blob(&layer.diff_id), bytes).unwrap();
        match place.bring(std::slice::from_ref(&layer), &task(|_| {}), &Cancel::new()) {
            Err(PullError::Store(kiln_cache::Error::DigestMismatch { .. })) => {}
            other => panic!("{other:?}"),
        }
        assert!(!place.has(&layer));
        assert_eq!(place.unfinished(), [""; 0]);
    }
}

#[test]
fn a_layer_beyond_the_limits_ends_its_copy() {
    let place = Place::new();
    let mut layer = place.layer(b"");
    let endless = Digest::sha256_of(b"endless");
    layer.blob = Some(Descriptor::new(media_type::OCI_LAYER, endless, 1 << 40));
    let path = place.blob(&endless);
    make_pipe(&path);
    let zeros = vec![0; 1 << 16];
    let feeding = thread::spawn(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        pipe.write_all(&of_holes()).unwrap();
        // Until nobody reads any more.
        (0..1 << 14).all(|_| {
            thread::sleep(std::time::Duration::from_micros(100));
            pipe.write_all(&zeros).is_ok()
        })
    });
    match place.bring(std::slice::from_ref(&layer), &task(|_| {}), &Cancel::new()) {
        Err(PullError::Unpack {
            source: LayerError::TooMuch { .. },
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!feeding.join().unwrap(), "all of it was read");
    assert!(!place.has(&layer));
    assert_eq!(place.unfinished(), [""; 0]);
}

#[test]
fn canceled_in_the_middle_nothing_is_unpacked() {
    let place = Place::new();
    let layers: Vec<SourceLayer> = (10..20)
        .map(|number| place.layer(&tar(&number.to_string())))
        .collect();
    let cancel = Cancel::new();
    let canceler = cancel.clone();
    let task = task(move |kind| {
        if matches!(kind, EventKind::Progress { .. }) {
            canceler.raise();
        }
    });
    assert!(matches!(
        place.bring(&layers, &task, &cancel),
        Err(PullError::Canceled)
    ));
    assert!(!layers.iter().any(|layer| place.has(layer)));
    let drafts = place
        .unfinished()
        .into_iter()
        .filter(|name| !name.contains("/partial/"));
    assert_eq!(drafts.count(), 0);
}

/// The bytes of a killed process are unpacked with the rest, if they are right.
#[test]
fn what_a_killed_process_left_is_no_hindrance() {
    let place = Place::new();
    let bytes = tar("left");
    let layer = place.layer(&bytes);
    for left in [&bytes[..70_000], b"something else"] {
        let mut writer = place.store.blobs().writer(&layer.diff_id, None).unwrap().unwrap();
        writer.write_all(left).unwrap();
    }
    place
        .bring(std::slice::from_ref(&layer), &task(|_| {}), &Cancel::new())
        .unwrap();
    assert!(place.has(&layer));
    assert_eq!(place.unfinished(), [""; 0]);
}

/// Unpacking goes on while the blob comes: the file is begun before the blob is there.
#[test]
fn a_layer_is_unpacked_while_it_comes() {
    let place = Place::new();
    let bytes = tar("slowly");
    let layer = place.layer(&bytes);
    let path = place.blob(&layer.diff_id);
    std::fs::remove_file(&path).unwrap();
    make_pipe(&path);
    let (unpacked, some_is_unpacked): (Sender<()>, _) = channel();
    let task = task(move |kind| {
        if let EventKind::Progress {
            part, done: false, ..
        } = kind
            && part.starts_with("unpacking")
        {
            // Nobody waits for the later ones.
            let _ = unpacked.send(());
        }
    });
    let feeding = thread::spawn(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let (start, rest) = bytes.split_at(bytes.len() / 2);
        pipe.write_all(start).unwrap();
        some_is_unpacked
            .recv_timeout(std::time::Duration::from_mins(1))
            .expect("something is unpacked before the rest comes");
        pipe.write_all(rest).unwrap();
    });
    place
        .bring(std::slice::from_ref(&layer), &task, &Cancel::new())
        .unwrap();
    feeding.join().unwrap();
    assert!(place.has(&layer));
}

#[test]
fn what_is_told_of_several_failures() {
    let place = Place::new();
    let layer = place.layer(b"");
    let jobs: Vec<Job<'_>> = (0..4)
        .map(|_| Job {
            layer: &layer,
            stop: Cancel::new(),
        })
        .collect();
    let told: Mutex<Told> = Mutex::default();
    let bad = || PullError::DiffId {
        blob: layer.diff_id,
        wanted: layer.diff_id,
        found: layer.diff_id,
    };
    let failures = [
        // (which fails, with what, the one that is told then, the first that is stopped)
        (3, PullError::Canceled, 3, 3),
        (2, bad(), 2, 2),
        (3, bad(), 2, 2),
        (1, bad(), 1, 1),
        (2, PullError::Canceled, 1, 1),
        (0, PullError::NotLocal("download".to_owned()), 0, 0),
        (0, bad(), 0, 0),
    ];
    for (at, failure, wanted, first_stopped) in failures {
        note(&told, &jobs, at, failure);
        assert_eq!(told.lock().unwrap().as_ref().map(|(at, _)| *at), Some(wanted));
        let stopped = jobs.iter().position(|job| job.stop.is_raised());
        assert_eq!(stopped, Some(first_stopped));
    }
    assert!(matches!(
        told.into_inner().unwrap(),
        Some((0, PullError::NotLocal(_)))
    ));
}
