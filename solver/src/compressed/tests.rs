use std::io::Read as _;

use kiln_image::layer::UnpackOptions;

use super::*;
use crate::testing::{TempDir, dir, file, listing};

/// A layer that was built here.
fn built(store: &Store) -> LayerId {
    let draft = store.layers().draft().unwrap();
    std::fs::create_dir(draft.diff_path().join("d")).unwrap();
    std::fs::write(draft.diff_path().join("d/f"), "content").unwrap();
    let listing = listing(vec![dir("d"), file("d/f", "content")]);
    let id = LayerId::from_content(&listing.content_hash());
    store.layers().commit(draft, &id, listing).unwrap();
    id
}

/// A layer that was pulled as a gzip blob whose tar is one that nobody here would write.
fn pulled(store: &Store) -> (LayerId, Descriptor) {
    let mut tar = vec![0_u8; 512 * 20];
    tar[..6].copy_from_slice(b"hello/");
    tar[100..107].copy_from_slice(b"0000755");
    tar[108..115].copy_from_slice(b"0000000");
    tar[116..123].copy_from_slice(b"0000000");
    tar[124..135].copy_from_slice(b"00000000000");
    tar[136..147].copy_from_slice(b"00000000001");
    tar[156] = b'5';
    tar[257..265].copy_from_slice(b"ustar  \0");
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let blob = kiln_image::compress::compress(&tar[..], Compression::Gzip, Some(1), Vec::new()).unwrap();
    let draft = store.layers().draft().unwrap();
    let root = Root::open(&draft.diff_path()).unwrap();
    let unpacked = layer::unpack(&tar[..], &root, &UnpackOptions::default()).unwrap();
    assert_eq!(unpacked.diff_id, Digest::sha256_of(&tar));
    let id = LayerId::from_diff_id(&unpacked.diff_id);
    store.layers().commit(draft, &id, unpacked.listing).unwrap();
    let digest = store.blobs().put_bytes(&blob).unwrap();
    let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, blob.len() as u64);
    let diff_id = unpacked.diff_id;
    let variant = Variant {
        diff_id,
        form: ORIGINAL.to_owned(),
        blob: blob.clone(),
        repositories: std::collections::BTreeSet::new(),
    };
    store.variants().put(&variant).unwrap();
    (id, blob)
}

fn plain(store: &Store, blob: &Descriptor) -> Vec<u8> {
    let file = store.blobs().get(&blob.digest).unwrap().unwrap();
    let mut bytes = Vec::new();
    layer::decompress(file).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn ask(store: &Arc<Store>, id: &LayerId, wanted: impl Into<LayerCompression>) -> Descriptor {
    let blobs = LayerBlobs::new(Arc::clone(store), DecoderMemory::new());
    blobs
        .get(id, wanted.into(), &Growth::new(), &Cancel::new())
        .unwrap()
}

#[test]
fn a_layer_is_compressed_once_in_each_form() {
    let scratch = TempDir::new();
    let store = scratch.store();
    let id = built(&store);
    let gzip = ask(&store, &id, Compression::Gzip);
    assert_eq!(gzip.media_type, media_type::OCI_LAYER_GZIP);
    let diff_id = store.layers().require(&id).unwrap().diff_id().unwrap();
    assert_eq!(Digest::sha256_of(&plain(&store, &gzip)), diff_id);
    let zstd = ask(&store, &id, Compression::Zstd);
    assert_eq!(zstd.media_type, media_type::OCI_LAYER_ZSTD);
    let best = LayerCompression {
        level: Some(9),
        ..Compression::Gzip.into()
    };
    ask(&store, &id, best);
    assert_eq!(plain(&store, &zstd), plain(&store, &gzip));
    assert_eq!(store.variants().of(&diff_id).unwrap().len(), 3);
    // Its files are gone: only what was kept can answer.
    std::fs::remove_dir_all(store.layers().require(&id).unwrap().diff_path()).unwrap();
    assert_eq!(ask(&store, &id, Compression::Gzip), gzip);
    assert_eq!(ask(&store, &id, Compression::Zstd), zstd);
    // The store lost the bytes: there is nothing to answer with.
    std::fs::remove_file(store.blobs().path(&gzip.digest)).unwrap();
    let blobs = LayerBlobs::new(Arc::clone(&store), DecoderMemory::new());
    assert!(
        blobs
            .get(&id, Compression::Gzip.into(), &Growth::new(), &Cancel::new())
            .is_err()
    );
}

#[test]
fn a_pulled_layer_stays_as_it_came_unless_forced_and_its_tar_stays_in_any_case() {
    let scratch = TempDir::new();
    let store = scratch.store();
    let (id, original) = pulled(&store);
    assert_eq!(ask(&store, &id, Compression::Zstd), original);
    let forced = LayerCompression {
        force: true,
        ..Compression::Zstd.into()
    };
    let blob = ask(&store, &id, forced);
    assert_eq!(blob.media_type, media_type::OCI_LAYER_ZSTD);
    assert_eq!(plain(&store, &blob), plain(&store, &original));
    // Without the original there is only a tar of our own, which is another one.
    std::fs::remove_file(store.blobs().path(&original.digest)).unwrap();
    std::fs::remove_file(store.blobs().path(&blob.digest)).unwrap();
    let blobs = LayerBlobs::new(Arc::clone(&store), DecoderMemory::new());
    let error = blobs
        .get(&id, forced, &Growth::new(), &Cancel::new())
        .unwrap_err();
    assert!(matches!(error, CompressError::DiffId { .. }), "{error}");
}

#[test]
fn threads_that_want_the_same_blob_make_it_once_and_cancelled_ones_make_none() {
    let scratch = TempDir::new();
    let store = scratch.store();
    let id = built(&store);
    let blobs = LayerBlobs::new(Arc::clone(&store), DecoderMemory::new());
    let raised = Cancel::new();
    raised.raise();
    let error = blobs
        .get(&id, Compression::Gzip.into(), &Growth::new(), &raised)
        .unwrap_err();
    assert!(matches!(error, CompressError::Canceled), "{error}");
    let all: Vec<Descriptor> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    blobs
                        .get(&id, Compression::Gzip.into(), &Growth::new(), &Cancel::new())
                        .unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_blob_is_followed_while_it_is_made() {
    let scratch = TempDir::new();
    let store = scratch.store();
    let id = built(&store);
    let blobs = LayerBlobs::new(Arc::clone(&store), DecoderMemory::new());
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let growth = Growth::new();
        let (blob, followed) = std::thread::scope(|scope| {
            let following = scope.spawn(|| {
                let mut bytes = Vec::new();
                growth.follow().unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            });
            let blob = blobs.get(&id, compression.into(), &growth, &Cancel::new());
            (blob.unwrap(), following.join().unwrap())
        });
        assert!(growth.is_whole());
        assert_eq!(Digest::sha256_of(&followed), blob.digest);
        // Nothing comes of what is there.
        let growth = Growth::new();
        let again = blobs.get(&id, compression.into(), &growth, &Cancel::new());
        assert_eq!(again.unwrap(), blob);
        assert!(growth.follow().is_none());
    }
    let (growth, raised) = (Growth::new(), Cancel::new());
    raised.raise();
    let best = LayerCompression {
        level: Some(9),
        ..Compression::Gzip.into()
    };
    blobs.get(&id, best, &growth, &raised).unwrap_err();
    assert!(growth.follow().is_none() && !growth.is_whole());
}
