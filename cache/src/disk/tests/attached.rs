//! What hangs on layers and records goes with them, and nothing that nobody refers to stays.

use super::*;

#[test]
fn lists_of_files_go_with_the_last_record_that_refers_to_them() {
    let (dir, store) = testing::store();
    let list = |text: &str| {
        store
            .blobs()
            .put_bytes(&text.repeat(30_000).into_bytes())
            .unwrap()
    };
    let (own, shared, lost) = (list("own"), list("shared"), list("lost"));
    let base = step(&store, "base", 1000, &[]);
    let one = step_with_lists(&store, "one", 1000, &base, &[own, shared]);
    let two = step_with_lists(&store, "two", 2000, &base, &[shared]);
    image(&store, "app", &base);
    age_layer(&store, &one[1], 9000);
    age_layer(&store, &two[1], 5000);
    drop(store);
    let store = other(&dir);
    assert_agrees(&store);
    let items = Catalog::read(&store).unwrap().items;
    let blobs: Vec<&str> = of_kind(&items, ItemType::Internal)
        .map(|item| item.id.as_str())
        .collect();
    assert_eq!(
        blobs,
        [lost.to_string()],
        "no item of its own while a record needs it"
    );
    let bytes = |name: &str| items.iter().find(|item| item.description == name).unwrap().bytes / 1000;
    assert!(
        (90..130).contains(&bytes("RUN one")),
        "with its own list: {}",
        bytes("RUN one")
    );
    assert!(
        (180..220).contains(&bytes("RUN two")),
        "with the shared list: {}",
        bytes("RUN two")
    );

    let only = |id: &LayerId| Prune {
        filter: Filter {
            ids: vec![id.to_string()],
            ..Filter::default()
        },
        ..Prune::default()
    };
    let has = |digest: &Digest| store.blobs().path(digest).exists();
    // The one that the shared list was counted with goes first: the other one still needs it.
    let freed = pruned(&store, &only(&two[1])).bytes;
    assert!(freed < 50_000 && has(&own) && has(&shared), "{freed}");
    assert_agrees(&store);
    let freed = pruned(&store, &only(&one[1])).bytes;
    assert!(freed > 250_000 && !has(&own) && !has(&shared), "{freed}");
    assert!(has(&lost));
    pruned(&store, &Prune::default());
    assert!(!has(&lost));
    assert_agrees(&store);
}

#[test]
fn a_list_that_somebody_just_wrote_again_stays() {
    let (dir, store) = testing::store();
    let list = store.blobs().put_bytes(b"list").unwrap();
    step_with_lists(&store, "one", 1000, &[], &[list]);
    drop(store);
    // Another process is about to write a record that refers to it.
    let builder = other(&dir);
    builder.blobs().put_bytes(b"list").unwrap();
    let deleter = other(&dir);
    assert_eq!(names(&pruned(&deleter, &Prune::default())), ["RUN one"]);
    assert!(deleter.blobs().path(&list).exists());
    drop(builder);
    pruned(&deleter, &Prune::default());
    assert!(!deleter.blobs().path(&list).exists());
}

fn of_kind(items: &[Item], kind: ItemType) -> impl Iterator<Item = &Item> {
    items.iter().filter(move |item| item.kind == kind)
}

/// A layer's blob in a form, as a push makes it.
pub(super) fn variant(store: &Store, layer: &LayerId, form: &str, size: usize) -> Digest {
    let diff_id = Digest::sha256_of(layer.as_str().as_bytes());
    store
        .layers()
        .require(layer)
        .unwrap()
        .set_diff_id(&diff_id)
        .unwrap();
    let bytes = format!("{layer} {form}").repeat(size / 80).into_bytes();
    let blob = store.blobs().put_bytes(&bytes).unwrap();
    store
        .variants()
        .put(&crate::Variant {
            diff_id,
            form: form.to_owned(),
            blob: kiln_image::Descriptor::new("m/t", blob, bytes.len() as u64),
            repositories: std::collections::BTreeSet::new(),
        })
        .unwrap();
    blob
}

#[test]
fn a_layers_blobs_go_first_and_with_it() {
    let (dir, store) = testing::store();
    let base = step(&store, "base", 100_000, &[]);
    let app = step(&store, "app", 100_000, &base);
    let left = step(&store, "left", 100_000, &[]);
    let blobs = [
        variant(&store, &app[1], "gzip-6", 200_000),
        variant(&store, &left[0], "gzip-6", 200_000),
        variant(&store, &left[0], "zstd-3", 200_000),
    ];
    image(&store, "app", &app);
    // Used later than everything else, and yet the first to go: it can be made again.
    age_layer(&store, &left[0], 9000);
    drop(store);
    let store = other(&dir);
    assert_agrees(&store);
    let catalog = Catalog::read(&store).unwrap();
    let order: Vec<&str> = catalog
        .items
        .iter()
        .map(|item| item.description.as_str())
        .take(4)
        .collect();
    let form = |form: &str, id: &LayerId| format!("{form} of {id}");
    let mut wanted = vec![
        form("gzip-6", &app[1]),
        form("gzip-6", &left[0]),
        form("zstd-3", &left[0]),
    ];
    let mut first = order[..3].to_vec();
    first.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(first, wanted);
    assert_eq!(order[3], "RUN left");
    let has = |digest: &Digest| store.blobs().path(digest).exists();

    // One that is being pushed stays, even if its layer goes; then it is nobody's, and goes the next time.
    let pusher = other(&dir);
    assert!(pusher.blobs().contains(&blobs[2]).unwrap());
    let steps = Prune {
        filter: Filter {
            kinds: vec![ItemType::Regular],
            ..Filter::default()
        },
        ..Prune::default()
    };
    let gone = pruned(&store, &steps);
    assert_eq!(gone.items.len(), 2, "{:?}", names(&gone));
    assert!(gone.bytes > 300_000, "{}", gone.bytes);
    assert!(has(&blobs[0]) && !has(&blobs[1]) && has(&blobs[2]));
    let folder = |layer: &LayerId| {
        dir.path()
            .join("variants")
            .join(Digest::sha256_of(layer.as_str().as_bytes()).hex())
    };
    assert!(!folder(&left[0]).exists() && folder(&app[1]).exists());
    assert_agrees(&store);
    drop(pusher);
    // Of the image only what can be made again goes.
    assert_eq!(pruned(&store, &Prune::default()).items.len(), 2);
    assert!(!has(&blobs[0]) && !has(&blobs[2]) && !folder(&app[1]).exists());
    assert_eq!(files::names(&dir.path().join("variants")).unwrap(), [""; 0]);
    assert_agrees(&store);
}

#[test]
fn what_nothing_refers_to_goes() {
    let (dir, store) = testing::store();
    let gone = step(&store, "gone", 1000, &[]);
    let blob = variant(&store, &gone[0], "original", 100_000);
    let (layer, blob_path) = (store.layers().path(&gone[0]), store.blobs().path(&blob));
    drop(store);
    let store = other(&dir);
    // As after a crash between two deletions, or a repair.
    std::fs::remove_dir_all(layer).unwrap();
    std::fs::remove_file(blob_path).unwrap();
    let stamp = dir.path().join("blobs/stamps").join(blob.hex());
    assert!(stamp.exists());
    store
        .remotes()
        .put(
            "https://u:p@h/f",
            &crate::RemoteFile {
                shown: "https://h/f".to_owned(),
                digest: blob,
                size: 1,
                etag: None,
                last_modified: None,
                settled: false,
            },
        )
        .unwrap();
    let bare = Record {
        key: key("bare"),
        kind: RecordKind::Definition,
        parts: vec![],
        output: vec![],
        step: "nothing".to_owned(),
        created_ms: files::now_ms(),
        duration_ms: 1,
    };
    store.records().put(&bare).unwrap();
    assert_agrees(&store);
    let items = Catalog::read(&store).unwrap().items;
    let mut all: Vec<&str> = items.iter().map(|item| item.description.as_str()).collect();
    all.sort_unstable();
    assert_eq!(
        all,
        ["https://h/f", "nothing", "original of a layer that is gone"]
    );
    let mut filter = Filter::default();
    filter.kinds.push(ItemType::Http);
    let request = Prune {
        filter,
        ..Prune::default()
    };
    assert_eq!(names(&pruned(&store, &request)), ["https://h/f"]);
    assert_eq!(pruned(&store, &Prune::default()).items.len(), 2);
    assert!(!stamp.exists());
    for folder in ["remotes", "variants", "blobs/sha256"] {
        assert_eq!(
            files::names(&dir.path().join(folder)).unwrap(),
            [""; 0],
            "{folder}"
        );
    }
    assert_eq!(store.records().list().unwrap(), []);
    assert_agrees(&store);
}
