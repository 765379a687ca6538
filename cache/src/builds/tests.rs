use std::io::{Read as _, Write as _};

use super::*;
use crate::testing;

fn id(n: u64) -> BuildId {
    BuildId(format!("{:012x}{:016x}", files::now_ms() - 10_000 + n, 9 - n))
}

fn read(log: &BuildLog, step: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reader = log.read(step).unwrap();
    reader.expect("a log").read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn keeps_lists_and_prunes() {
    let (_dir, store) = testing::store();
    let builds = store.builds();
    let ids: Vec<BuildId> = (1..=5).map(id).collect();
    for id in &ids {
        builds.put(id, &id.began_ms()).unwrap();
        let mut step = builds.log(id).step("../#1 RUN echo").unwrap();
        writeln!(step, "hello").unwrap();
        assert!(step.path().starts_with(builds.log_path(id)));
        drop(step);
    }
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    assert_eq!(builds.list().unwrap(), newest_first);
    assert_eq!(builds.get::<u64>(&ids[2]).unwrap(), Some(ids[2].began_ms()));
    assert_eq!(
        builds.get::<String>(&ids[2]).unwrap(),
        None,
        "another version of the caller"
    );
    let two = Retention {
        builds: 2,
        ..Retention::default()
    };
    assert_eq!(builds.prune(two).unwrap(), 3);
    assert_eq!(builds.list().unwrap(), newest_first[..2]);
    assert!(!builds.log_path(&ids[0]).exists());
    assert_eq!(builds.log(&ids[4]).steps().unwrap(), ["_..__1_RUN_echo"]);
    assert_eq!(read(&builds.log(&ids[4]), "../#1 RUN echo"), b"hello\n");
}

#[test]
fn age_and_logs_are_bounded() {
    let (_dir, store) = testing::store();
    let builds = store.builds();
    let old = BuildId(format!("{:012x}{:016x}", 5, 5));
    let ids: Vec<BuildId> = (1..=3).map(id).collect();
    for id in ids.iter().chain([&old]) {
        builds.put(id, &1).unwrap();
        builds.log(id).step("1").unwrap().write_all(b"x").unwrap();
    }
    let each = builds.log(&ids[0]).bytes().unwrap();
    let bounds = Retention {
        log_bytes: 2 * each,
        ..Retention::default()
    };
    assert_eq!(builds.prune(bounds).unwrap(), 1, "the one of 1970");
    assert_eq!(builds.list().unwrap().len(), 3, "the records stay");
    let logs: Vec<bool> = ids.iter().map(|id| builds.log_path(id).exists()).collect();
    assert_eq!(logs, [false, true, true], "the oldest log goes");
    let tiny = Retention {
        log_bytes: 0,
        ..Retention::default()
    };
    builds.prune(tiny).unwrap();
    let logs: Vec<bool> = ids.iter().map(|id| builds.log_path(id).exists()).collect();
    assert_eq!(logs, [false, false, true], "the newest stays, however long");
}

#[test]
fn what_is_under_way_stays() {
    let (_dir, store) = testing::store();
    let builds = store.builds();
    let id = id(1);
    let running = builds.begin(&id, &1).unwrap();
    assert!(builds.is_running(&id).unwrap());
    assert!(!builds.remove(&id).unwrap());
    let nothing = Retention {
        builds: 0,
        age: Duration::ZERO,
        log_bytes: 0,
    };
    assert_eq!(builds.prune(nothing).unwrap(), 0);
    assert_eq!(builds.get::<u32>(&id).unwrap(), Some(1));
    drop(running);
    assert!(!builds.is_running(&id).unwrap());
    assert_eq!(builds.prune(nothing).unwrap(), 1);
    assert!(builds.list().unwrap().is_empty());
}

#[test]
fn a_build_is_found_by_the_beginning_of_its_id() {
    let (_dir, store) = testing::store();
    let builds = store.builds();
    let ids: Vec<BuildId> = (1..=3).map(id).collect();
    for id in &ids {
        builds.put(id, &1).unwrap();
    }
    assert_eq!(builds.find("latest").unwrap(), [ids[2].clone()]);
    assert_eq!(builds.find(&ids[1].as_str()[..12]).unwrap(), [ids[1].clone()]);
    assert_eq!(builds.find(ids[0].as_str()).unwrap(), [ids[0].clone()]);
    assert_eq!(builds.find(&ids[0].as_str()[..2]).unwrap().len(), 3);
    for none in ["", "ffff", "../x"] {
        assert!(builds.find(none).unwrap().is_empty(), "{none}");
    }
}

/// Not a byte is missing, whatever the size; and what is cut off in the middle is read up to there.
#[test]
fn logs_hold_everything() {
    let (_dir, store) = testing::store();
    let log = store.builds().log(&BuildId::new());
    let mut text = Vec::new();
    for line in 0..60_000 {
        writeln!(text, "line {line} of a long log \u{fc}").unwrap();
    }
    let mut step = log.step("1").unwrap();
    for piece in text.chunks(7_001) {
        step.write_all(piece).unwrap();
    }
    let path = step.path().to_owned();
    // Flushed as it went: the reader of a running step is not far behind.
    assert!(read(&log, "1").len() + FLUSHED >= text.len());
    drop(step);
    assert_eq!(read(&log, "1"), text);
    assert!(
        std::fs::metadata(&path).unwrap().len() * 4 < text.len() as u64,
        "it is compressed"
    );
    log.step("1").unwrap().write_all(b"again").unwrap();
    assert!(read(&log, "1").ends_with(b"again"), "a second attempt goes on");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let torn = read(&log, "1");
    assert!(!torn.is_empty() && text.starts_with(&torn));
    assert!(log.read("2").unwrap().is_none());
    drop(log.step("silent").unwrap());
    assert_eq!(read(&log, "silent"), b"");
}

const FLUSHED: usize = 300 * 1024;

#[test]
fn ids_sort_by_time() {
    let first = BuildId::new();
    std::thread::sleep(Duration::from_millis(2));
    let second = BuildId::new();
    assert!(first < second);
    assert_eq!(first.as_str().parse::<BuildId>().unwrap(), first);
    assert!("../../../../etc/passwd".parse::<BuildId>().is_err());
}

#[test]
fn damage_is_set_aside() {
    let (_dir, store) = testing::store();
    let id = BuildId::new();
    store.builds().put(&id, &"x").unwrap();
    std::fs::write(store.builds().path(&id), "").unwrap();
    assert_eq!(store.builds().get::<String>(&id).unwrap(), None);
    assert_eq!(store.take_warnings().len(), 1);
    assert!(store.builds().list().unwrap().is_empty());
}
