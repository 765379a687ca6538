//! Blobs of all sizes: written, resumed, shared, and torn.

use super::*;
use crate::testing;

fn large(seed: u8) -> Vec<u8> {
    (0..200_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}

#[test]
fn small_and_large_blobs() {
    let (_dir, store) = testing::store();
    for bytes in [Vec::new(), b"small".to_vec(), large(0)] {
        let digest = store.blobs().put_bytes(&bytes).unwrap();
        assert_eq!(digest, Digest::sha256_of(&bytes));
        assert_eq!(store.blobs().read(&digest).unwrap().unwrap(), bytes);
        assert!(store.blobs().list().unwrap().contains(&digest));
    }
    assert!(!store.blobs().contains(&Digest::sha256_of(b"absent")).unwrap());
}

#[test]
fn resumes_where_a_killed_writer_ended() {
    let (_dir, store) = testing::store();
    let bytes = large(1);
    let digest = Digest::sha256_of(&bytes);
    let size = Some(bytes.len() as u64);
    let mut writer = store.blobs().writer(&digest, size).unwrap().unwrap();
    writer.write_all(&bytes[..70_000]).unwrap();
    drop(writer);
    let mut writer = store.blobs().writer(&digest, size).unwrap().unwrap();
    assert_eq!(writer.offset(), 70_000);
    writer.write_all(&bytes[70_000..]).unwrap();
    writer.commit().unwrap();
    assert_eq!(store.blobs().read(&digest).unwrap().unwrap(), bytes);
    assert!(store.blobs().writer(&digest, size).unwrap().is_none());
}

#[test]
fn wrong_bytes_get_no_name() {
    let (_dir, store) = testing::store();
    let digest = Digest::sha256_of(b"right");
    let mut writer = store.blobs().writer(&digest, Some(5)).unwrap().unwrap();
    writer.write_all(b"wrong").unwrap();
    assert!(matches!(writer.commit(), Err(Error::DigestMismatch { .. })));
    let mut writer = store.blobs().writer(&digest, Some(5)).unwrap().unwrap();
    assert_eq!(writer.offset(), 0, "the wrong bytes are gone");
    writer.write_all(b"righ").unwrap();
    assert!(matches!(
        writer.commit(),
        Err(Error::SizeMismatch {
            wanted: 5,
            found: 4,
            ..
        })
    ));
    let mut writer = store.blobs().writer(&digest, Some(5)).unwrap().unwrap();
    assert!(writer.write_all(b"right and more").is_err());
    writer.restart().unwrap();
    writer.write_all(b"right").unwrap();
    writer.commit().unwrap();
    assert!(store.blobs().contains(&digest).unwrap());
}

#[test]
fn two_writers_of_one_blob_cooperate() {
    let (_dir, store) = testing::store();
    let bytes = large(2);
    let digest = Digest::sha256_of(&bytes);
    let written: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| match store.blobs().writer(&digest, None).unwrap() {
                    Some(mut writer) => {
                        writer.write_all(&bytes).unwrap();
                        writer.commit().unwrap();
                        1
                    }
                    None => 0,
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(written, 1);
    assert_eq!(store.blobs().read(&digest).unwrap().unwrap(), bytes);
}

#[test]
fn a_blob_torn_by_power_loss_is_found_and_a_whole_one_kept() {
    let (dir, store) = testing::store();
    let torn = store.blobs().put_bytes(&large(3)).unwrap();
    let whole = store.blobs().put_bytes(&large(4)).unwrap();
    let small = store.blobs().put_bytes(b"small").unwrap();
    let mut zeros = large(3);
    zeros[100_000..].fill(0);
    std::fs::write(store.blobs().path(&torn), zeros).unwrap();
    std::fs::write(store.blobs().path(&small), b"").unwrap();
    drop(store);
    let store = testing::open(dir.path(), "bbbb");
    assert!(store.blobs().get(&torn).unwrap().is_none());
    assert!(store.blobs().get(&small).unwrap().is_none());
    assert!(store.blobs().get(&whole).unwrap().is_some());
    assert_eq!(store.take_warnings().len(), 2);
    assert!(!store.blobs().path(&torn).exists());
}

#[test]
fn a_synced_blob_is_not_hashed_again() {
    let (dir, store) = testing::store();
    let digest = store.blobs().put_bytes(&large(5)).unwrap();
    store.sync().unwrap();
    drop(store);
    let store = testing::open(dir.path(), "bbbb");
    // Bytes changed behind the store's back show that it trusted the stamp: only `verify` reads them.
    std::fs::write(store.blobs().path(&digest), vec![0; 200_000]).unwrap();
    assert!(store.blobs().get(&digest).unwrap().is_some());
}
