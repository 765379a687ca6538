//! What a stamp is worth after a power loss, and after the disk has failed.

use super::*;
use crate::testing::Scratch;

fn open(dir: &Scratch, boot: &str) -> Durability {
    Durability::new(dir.path(), None, boot.parse().unwrap()).unwrap()
}

fn stamp(durability: &Durability) -> Stamp {
    durability.publish(|stamp| Ok(stamp.clone())).unwrap()
}

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path().join("synced/boots")).unwrap();
    scratch
}

#[test]
fn unsynced_things_die_with_their_boot() {
    let dir = scratch();
    let first = open(&dir, "aa");
    let early = stamp(&first);
    assert!(!first.on_disk(&early));
    first.sync().unwrap();
    assert!(first.on_disk(&early));
    let late = stamp(&first);
    assert!(first.trusted(&late), "the running boot trusts its own");
    assert!(!first.on_disk(&late));

    let second = open(&dir, "bb");
    assert!(second.trusted(&early));
    assert!(!second.trusted(&late));
    // A sync in the second boot does not make the first boot's rest good.
    stamp(&second);
    second.sync().unwrap();
    assert!(!open(&dir, "cc").trusted(&late));
}

#[test]
fn another_process_sees_a_sync() {
    let dir = scratch();
    let one = open(&dir, "aa");
    let two = open(&dir, "aa");
    let made = stamp(&one);
    assert!(!two.on_disk(&made));
    one.sync().unwrap();
    assert!(two.on_disk(&made));
}

#[test]
fn damaged_epoch_files_only_lose_trust() {
    for damage in [&b""[..], b"garbage", b"\xff\xff", b"aa 7\n"] {
        let dir = scratch();
        let one = open(&dir, "aa");
        let made = stamp(&one);
        one.sync().unwrap();
        std::fs::write(dir.path().join("synced/epoch"), damage).unwrap();
        let late = stamp(&one);
        assert!(
            late.epoch > made.epoch,
            "never stamps with an epoch that counts as synced"
        );
        std::fs::write(dir.path().join("synced/boots/aa"), damage).unwrap();
        assert!(!open(&dir, "bb").trusted(&made));
    }
}

#[test]
fn a_stamp_that_a_sync_covers_was_published_before_it() {
    // Publishers hold the epoch still: while one is at work, a sync waits.
    let dir = scratch();
    let shared = std::sync::Arc::new(open(&dir, "aa"));
    let (started, wait) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let publisher = std::thread::spawn({
        let shared = std::sync::Arc::clone(&shared);
        move || {
            shared
                .publish(|stamp| {
                    started.send(()).unwrap();
                    gone.recv().unwrap();
                    Ok(stamp.clone())
                })
                .unwrap()
        }
    });
    wait.recv().unwrap();
    let syncer = std::thread::spawn({
        let shared = std::sync::Arc::clone(&shared);
        move || shared.sync().unwrap()
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!syncer.is_finished());
    go.send(()).unwrap();
    let made = publisher.join().unwrap();
    syncer.join().unwrap();
    assert!(shared.on_disk(&made));
}

#[test]
fn what_a_failing_disk_was_to_take_is_believed_by_nobody_who_comes_later() {
    let dir = scratch();
    let first = open(&dir, "aa");
    let safe = stamp(&first);
    first.sync().unwrap();
    let torn = stamp(&first);
    first.epochs.failed(Errno::IO);

    let later = open(&dir, "aa");
    assert!(later.lost_any());
    assert!(later.trusted(&safe) && later.on_disk(&safe));
    assert!(!later.trusted(&torn) && !later.on_disk(&torn));
    // What comes now is not mixed up with it, and a sync does not make it good.
    let new = stamp(&later);
    assert!(later.trusted(&new));
    later.sync().unwrap();
    for boot in ["aa", "bb"] {
        let next = open(&dir, boot);
        assert!(next.on_disk(&safe) && next.on_disk(&new), "{boot}");
        assert!(!next.trusted(&torn) && !next.on_disk(&torn), "{boot}");
    }
}

#[test]
fn whoever_runs_while_the_disk_fails_cannot_sync() {
    let dir = scratch();
    let (one, two) = (open(&dir, "aa"), open(&dir, "aa"));
    stamp(&two);
    one.epochs.failed(Errno::NOSPC);
    let is_told = |done: Result<()>| matches!(done, Err(Error::NotWritten { .. }));
    assert!(is_told(one.publish(|_| Ok(()))), "it goes on at once");
    assert!(is_told(one.sync()) && is_told(one.sync()), "it is told once");
    let made = stamp(&two);
    assert!(is_told(two.sync()) && is_told(two.sync()));
    assert!(!open(&dir, "aa").on_disk(&made));
}
