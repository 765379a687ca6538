use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_cache::{Store, StoreOptions};
use kiln_image::Config;

use super::{Container, Containers};
use crate::error::Error;
use crate::state::{HostProcess, Status};
use crate::{Result, RunOptions};

/// A store that is gone at the end of a test.
struct Scratch {
    path: PathBuf,
    store: Arc<Store>,
}

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kiln-container-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a temporary directory");
        let boot = kiln_cache::boot::id().expect("the boot id");
        let store = Store::open(
            &path.join("store"),
            StoreOptions {
                userxattr: false,
                boot,
                runtime: None,
            },
        )
        .expect("a store");
        Self { path, store }
    }

    fn containers(&self) -> Containers {
        Containers::new(&self.store)
    }

    /// What lies about in the store's folder for work in progress.
    fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for owner in std::fs::read_dir(self.store.root().join("tmp"))
            .expect("tmp")
            .flatten()
        {
            let Ok(entries) = std::fs::read_dir(owner.path()) else {
                continue;
            };
            found.extend(
                entries
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned()),
            );
        }
        found.retain(|name| name != "lock");
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).expect("the directory goes");
    }
}

fn create(containers: &Containers, name: Option<&str>) -> Result<Container> {
    let options = RunOptions {
        name: name.map(str::to_owned),
        command: vec!["true".to_owned()],
        ..RunOptions::default()
    };
    containers.create(options, &Config::default())
}

/// Writes the state that a container has while its process runs.
fn pretend_to_run(container: &mut Container, process: Option<HostProcess>) {
    container.state.status = Status::Running;
    container.state.process = process;
    container.save().expect("the state is saved");
}

fn names(containers: &Containers) -> Vec<String> {
    let mut names: Vec<String> = containers
        .list()
        .expect("a list")
        .iter()
        .map(|container| container.state().name.clone())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_created_is_found_and_removed() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    assert!(containers.list().expect("an empty list").is_empty());
    assert!(matches!(containers.find("web"), Err(Error::NotFound(_))));
    let web = create(&containers, Some("web")).expect("web");
    let other = create(&containers, None).expect("another one");
    let id = web.state().id.clone();
    assert_eq!(web.state().command, ["true"]);
    for text in ["web", &id, &id[..12]] {
        assert_eq!(containers.find(text).expect(text).state().id, id, "{text}");
    }
    assert!(matches!(containers.find(""), Err(Error::NotFound(_))));
    assert_eq!(containers.list().expect("a list").len(), 2);
    for part in ["diff", "work", "container.json"] {
        assert!(web.folder.join(part).exists(), "{part}");
    }
    let folder = web.folder.clone();
    web.remove(false).expect("web goes");
    assert!(!folder.exists());
    assert!(matches!(containers.find("web"), Err(Error::NotFound(_))));
    assert_eq!(names(&containers), [other.state().name.as_str()]);
    drop(create(&containers, Some("web")).expect("the name is free again"));
    assert!(scratch.leftovers().is_empty(), "{:?}", scratch.leftovers());
}

#[test]
fn an_id_that_begins_like_another_is_ambiguous() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    // 17 ids: two of them begin with the same digit.
    let all: Vec<Container> = (0..17)
        .map(|_| create(&containers, None).expect("a container"))
        .collect();
    let shared = all
        .iter()
        .map(|container| &container.state().id[..1])
        .find(|digit| {
            all.iter()
                .filter(|container| container.state().id.starts_with(digit))
                .count()
                > 1
        });
    let shared = shared.expect("two ids that begin alike");
    assert!(matches!(containers.find(shared), Err(Error::Ambiguous(_))));
}

#[test]
fn a_name_belongs_to_one_container() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    let first = create(&containers, Some("db")).expect("db");
    let id = first.state().id[..12].to_owned();
    match create(&containers, Some("db")) {
        Err(Error::NameInUse { name, id: holder }) => assert_eq!((name.as_str(), holder), ("db", id)),
        other => panic!("{other:?}"),
    }
    assert_eq!(names(&containers), ["db"]);
    assert!(matches!(
        create(&containers, Some("no/name")),
        Err(Error::InvalidName(_))
    ));
    let nothing = containers.create(RunOptions::default(), &Config::default());
    assert!(matches!(nothing, Err(Error::NoCommand)));
    assert!(scratch.leftovers().is_empty(), "{:?}", scratch.leftovers());
}

#[test]
fn of_many_at_once_one_gets_the_name() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    for round in 0..10 {
        // A link that leads nowhere, as a killed program leaves it: all of them find it stale.
        let link = scratch.store.root().join("containers/names/race");
        std::fs::create_dir_all(link.parent().expect("a folder")).expect("names");
        std::os::unix::fs::symlink("f".repeat(64), &link).expect("a stale link");
        let made: Vec<Container> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| create(&containers, Some("race")).ok()))
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert_eq!(made.len(), 1, "round {round}");
        assert_eq!(names(&containers), ["race"]);
        for container in made {
            container.remove(false).expect("removed");
        }
        assert!(!link.exists());
    }
}

#[test]
fn a_container_whose_program_was_killed_has_exited() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    let mut container = create(&containers, Some("job")).expect("job");
    let own = HostProcess::of(std::process::id().cast_signed());
    pretend_to_run(&mut container, own);
    let seen = containers.find("job").expect("job");
    assert_eq!(seen.state().status, Status::Running);
    assert!(matches!(seen.remove(false), Err(Error::Running(name)) if name == "job"));
    // The kernel lets go of the lock when the program ends, however it does.
    drop(container);
    let seen = containers.find("job").expect("job");
    assert_eq!(seen.state().status, Status::Exited);
    assert_eq!(seen.state().exit_code, None);
    seen.remove(false).expect("it can go now");
    assert!(names(&containers).is_empty());
}

#[test]
fn looking_at_a_dead_container_does_not_keep_others_from_removing_it() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    for _ in 0..20 {
        let mut container = create(&containers, Some("dead")).expect("dead");
        pretend_to_run(&mut container, None);
        drop(container);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| (0..20).for_each(|_| drop(containers.list().expect("a list"))));
            containers
                .find("dead")
                .and_then(|container| container.remove(false))
                .expect("removed");
            looking.join().expect("no panic");
        });
    }
}

#[test]
fn force_kills_the_process() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    let mut container = create(&containers, Some("server")).expect("server");
    let mut child = std::process::Command::new("/bin/sleep")
        .arg("60")
        .spawn()
        .expect("a process");
    pretend_to_run(&mut container, HostProcess::of(child.id().cast_signed()));
    let seen = containers.find("server").expect("server");
    std::thread::scope(|scope| {
        // The program that runs it: waits for the process, then lets go.
        scope.spawn(move || {
            assert!(!child.wait().expect("a wait").success());
            drop(container);
        });
        seen.remove(true).expect("removed by force");
    });
    assert!(names(&containers).is_empty());
}

#[test]
fn a_damaged_container_does_not_stand_in_the_way() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    let good = create(&containers, Some("good")).expect("good");
    let bad = create(&containers, Some("bad")).expect("bad");
    std::fs::write(bad.folder.join("container.json"), "").expect("damage");
    assert!(matches!(containers.list(), Err(Error::State { path, .. }) if path.starts_with(&bad.folder)));
    assert!(matches!(
        containers.find(&bad.state().id),
        Err(Error::State { .. })
    ));
    assert_eq!(containers.find("good").expect("good").state().id, good.state().id);
}

#[test]
fn somebody_else_may_remove_it_first() {
    let scratch = Scratch::new();
    let containers = scratch.containers();
    drop(create(&containers, Some("twice")).expect("twice"));
    let (one, other) = (
        containers.find("twice").expect("once"),
        containers.find("twice").expect("again"),
    );
    one.remove(false).expect("removed");
    other.remove(false).expect("gone is gone");
}
