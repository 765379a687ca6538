//! What is cached, what runs again, and what happens when things go wrong, over graphs of file operations.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use common::{Builder, Lab, Record, outcomes, snapshot};
use kiln_executor::{Backend, Error, Running, Sandbox};
use kiln_image::ImageConfig;
use kiln_solver::StepOutcome::{Cached, CachedByContent, Canceled, Failed, Ran, Skipped};
use kiln_solver::event::EventKind;
use kiln_solver::graph::{Op, VertexId};
use kiln_solver::{Cancel, SolveError, StepFailure};

/// File operations need no processes.
#[derive(Debug)]
struct NoProcesses;

impl Backend for NoProcesses {
    fn start(&self, _sandbox: Sandbox) -> Result<Running, Error> {
        Err(Error::Spec {
            reason: "these tests start no process".to_owned(),
        })
    }
}

/// `None`, said loudly, where overlays cannot be mounted.
fn lab() -> Option<Lab> {
    if rustix::process::geteuid().is_root() {
        return Some(Lab::new(Arc::new(NoProcesses), &std::env::temp_dir(), false));
    }
    eprintln!("SKIPPED: needs root");
    None
}

/// Two stages: `build` copies a source and makes a file of its own; the target takes only that file, and adds
/// another file of the context.
fn two_stages(taken: &str) -> (Builder, VertexId) {
    let mut builder = Builder::default();
    let (scratch, context) = (builder.scratch(), builder.context());
    let source = builder.copy("copy source", scratch, context, (&["src/"], "/src/"));
    let made = builder.make_file("make", source, "/out/made", "always the same");
    let taken = builder.copy("take", scratch, made, (&[taken], "/app/"));
    let target = builder.copy("copy config", taken, context, (&["config"], "/etc/config"));
    (builder, target)
}

#[test]
fn only_what_a_change_concerns_runs_again() {
    let Some(lab) = lab() else { return };
    lab.write("src/a.c", "1");
    lab.write("config", "x");
    lab.write("unused", "1");
    let (builder, target) = two_stages("/out/made");
    let all = |outcome| {
        [
            ("copy source", outcome),
            ("make", outcome),
            ("take", outcome),
            ("copy config", outcome),
        ]
    };
    let solve = || lab.solve(&builder.graph, target);
    assert_eq!(outcomes(&solve()), all(Ran));
    let cached = [
        ("copy source", Cached),
        ("make", Cached),
        ("take", Cached),
        ("copy config", Cached),
    ];
    assert_eq!(outcomes(&solve()), cached, "the second time");

    // Written anew with the same bytes, and what no step selects.
    lab.write("src/a.c", "1");
    lab.write("unused", "2");
    assert_eq!(outcomes(&solve()), cached, "touched");

    lab.write("config", "y");
    let solved = solve();
    assert_eq!(
        outcomes(&solved),
        [
            ("copy source", Cached),
            ("make", Cached),
            ("take", Cached),
            ("copy config", Ran)
        ]
    );
    assert_eq!(lab.read(snapshot(&solved), "etc/config").as_deref(), Some("y"));

    // The stage is made anew, but not what is taken from it.
    lab.write("src/a.c", "2");
    let solved = solve();
    assert_eq!(
        outcomes(&solved),
        [
            ("copy source", Ran),
            ("make", Ran),
            ("take", CachedByContent),
            ("copy config", CachedByContent)
        ]
    );
    assert_eq!(outcomes(&solve()), cached, "found by definition from now on");

    // Back to what was there before.
    lab.write("config", "x");
    lab.write("src/a.c", "1");
    let solved = solve();
    assert_eq!(outcomes(&solved), cached);
    assert_eq!(lab.read(snapshot(&solved), "etc/config").as_deref(), Some("x"));
    assert!(lab.leftovers().is_empty(), "{:?}", lab.leftovers());
}

#[test]
fn steps_that_nobody_needs_are_skipped() {
    let Some(lab) = lab() else { return };
    lab.write("src/a.c", "1");
    lab.write("config", "x");
    let (builder, target) = two_stages("/out/made");
    assert!(lab.solve(&builder.graph, target).result.is_ok());
    // The records of the first stage are lost; the target's is there.
    let mut first = Builder::default();
    let (scratch, context) = (first.scratch(), first.context());
    let source = first.copy("copy source", scratch, context, (&["src/"], "/src/"));
    let key = lab
        .solve(&first.graph, source)
        .steps
        .into_iter()
        .find(|step| step.name == "copy source");
    let key = key.and_then(|step| step.key).expect("the key");
    lab.store().records().remove(&key).expect("removed");
    let solved = lab.solve(&builder.graph, target);
    assert_eq!(
        outcomes(&solved),
        [
            ("copy source", Skipped),
            ("make", Cached),
            ("take", Cached),
            ("copy config", Cached)
        ]
    );
}

/// Copies from another step are keyed by what they name there.
#[test]
fn copies_of_different_sources_are_different_steps() {
    let Some(lab) = lab() else { return };
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let a = builder.make_file("make a", scratch, "/a", "text a");
    let stage = builder.make_file("make b", a, "/b", "text b");
    let take_a = builder.copy("take a", scratch, stage, (&["/a"], "/taken"));
    let take_b = builder.copy("take b", scratch, stage, (&["/b"], "/taken"));
    for _ in 0..2 {
        for (target, text) in [(take_a, "text a"), (take_b, "text b")] {
            let solved = lab.solve(&builder.graph, target);
            assert_eq!(lab.read(snapshot(&solved), "taken").as_deref(), Some(text));
        }
    }
}

#[test]
fn ignoring_the_cache_runs_a_step_and_those_behind_it_look_at_content_only() {
    let Some(lab) = lab() else { return };
    let graph = |ignore_cache| {
        let mut builder = Builder::default();
        let scratch = builder.scratch();
        let first = builder.make_file("first", scratch, "/1", "1");
        builder.ignore_cache = ignore_cache;
        let second = builder.make_file("second", first, "/2", "2");
        builder.ignore_cache = false;
        let third = builder.make_file("third", second, "/3", "3");
        (builder.graph, third)
    };
    let (plain, target) = graph(false);
    assert!(lab.solve(&plain, target).result.is_ok());
    let (fresh, target) = graph(true);
    for _ in 0..2 {
        let solved = lab.solve(&fresh, target);
        assert_eq!(
            outcomes(&solved),
            [("first", Cached), ("second", Ran), ("third", CachedByContent)]
        );
    }
    let (plain, target) = graph(false);
    let solved = lab.solve(&plain, target);
    assert_eq!(
        outcomes(&solved),
        [("first", Cached), ("second", Cached), ("third", Cached)]
    );
}

#[test]
fn equal_steps_run_once_unless_one_ignores_the_cache() {
    let Some(lab) = lab() else { return };
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let one = builder.make_file("one", scratch, "/x", "x");
    let two = builder.make_file("two", scratch, "/x", "x");
    let after_two = builder.make_file("after two", two, "/y", "y");
    let target = builder.copy("take", one, after_two, (&["/y"], "/y"));
    let solved = lab.solve(&builder.graph, target);
    // What the last one does equals "after two" in content, but it is another operation.
    assert_eq!(
        outcomes(&solved),
        [("one", Ran), ("two", Cached), ("after two", Ran), ("take", Ran)]
    );

    builder.ignore_cache = true;
    let fresh = builder.make_file("fresh", scratch, "/x", "x");
    let same = builder.make_file("same", scratch, "/x", "x");
    builder.ignore_cache = false;
    let joined = builder.copy("join", target, fresh, (&["/x"], "/z"));
    let joined = builder.copy("join again", joined, same, (&["/x"], "/zz"));
    let solved = lab.solve(&builder.graph, joined);
    let of = |name| {
        outcomes(&solved)
            .into_iter()
            .find(|(step, _)| *step == name)
            .map(|(_, outcome)| outcome)
    };
    assert_eq!(
        (of("one"), of("fresh"), of("same")),
        (Some(Cached), Some(Ran), Some(Cached))
    );
}

/// A file that changes between the key and the copy never gets under the key of what it was.
#[test]
fn a_file_that_changes_under_way_is_read_again() {
    let Some(lab) = lab() else { return };
    lab.write("config", "old");
    let mut builder = Builder::default();
    let (scratch, context) = (builder.scratch(), builder.context());
    let copied = builder.copy("copy config", scratch, context, (&["config"], "/config"));
    let target = builder.make_file("after", copied, "/after", "x");
    let path = lab.context().join("config");
    let changes = AtomicU32::new(0);
    let sink = Record::at_start(move |name| {
        if name == "copy config" && changes.fetch_add(1, Ordering::Relaxed) == 0 {
            std::fs::write(&path, "new and longer").expect("a change");
        }
    });
    let solved = lab.solve_with(&builder.graph, target, sink, &Cancel::new());
    assert_eq!(outcomes(&solved), [("copy config", Ran), ("after", Ran)]);
    assert_eq!(
        lab.read(snapshot(&solved), "config").as_deref(),
        Some("new and longer")
    );

    // What was made is found under the keys of what is there now, also behind the copy ...
    let solved = lab.solve(&builder.graph, target);
    assert_eq!(outcomes(&solved), [("copy config", Cached), ("after", Cached)]);
    // ... and nothing under those of what was there first.
    lab.write("config", "old");
    let solved = lab.solve(&builder.graph, target);
    assert_eq!(outcomes(&solved), [("copy config", Ran), ("after", Ran)]);
    assert_eq!(lab.read(snapshot(&solved), "config").as_deref(), Some("old"));
}

#[test]
fn a_file_that_never_rests_ends_the_build() {
    let Some(lab) = lab() else { return };
    lab.write("config", "0");
    let mut builder = Builder::default();
    let (scratch, context) = (builder.scratch(), builder.context());
    let target = builder.copy("copy config", scratch, context, (&["config"], "/config"));
    let path = lab.context().join("config");
    let changes = AtomicU32::new(0);
    let sink = Record::at_start(move |name| {
        if name == "copy config" {
            let change = changes.fetch_add(1, Ordering::Relaxed);
            std::fs::write(&path, "x".repeat(change as usize + 2)).expect("a change");
        }
    });
    let solved = lab.solve_with(&builder.graph, target, sink, &Cancel::new());
    assert_eq!(outcomes(&solved), [("copy config", Failed)]);
    match solved.result {
        Err(SolveError::Step(error)) => {
            assert!(
                matches!(&error.cause, StepFailure::SourceChanged { attempts: 4, .. }),
                "{error:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(lab.leftovers().is_empty(), "{:?}", lab.leftovers());
}

#[test]
fn a_missing_source_tells_what_hides_it() {
    let Some(mut lab) = lab() else { return };
    lab.write("secret/key", "1");
    lab.write("confg", "1");
    lab.hidden = &["other", "secret"];
    let missing = |source: &str| {
        let mut builder = Builder::default();
        let (scratch, context) = (builder.scratch(), builder.context());
        let target = builder.copy("copy", scratch, context, (&[source], "/x"));
        match lab.solve(&builder.graph, target).result {
            Err(SolveError::Step(error)) => match error.cause {
                StepFailure::SourceNotFound {
                    path,
                    ignored_by,
                    similar,
                    place,
                    ..
                } => {
                    assert_eq!(place, "the build context");
                    (path.to_string(), ignored_by, similar)
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        missing("secret/key"),
        (
            "secret/key".to_owned(),
            Some(".dockerignore:2".to_owned()),
            vec![]
        )
    );
    assert_eq!(
        missing("config"),
        ("config".to_owned(), None, vec!["confg".to_owned()])
    );
    assert_eq!(missing("other"), ("other".to_owned(), None, vec![]));
    assert_eq!(missing("none/deep"), ("none/deep".to_owned(), None, vec![]));
}

#[test]
fn a_failing_step_stops_the_build() {
    let Some(mut lab) = lab() else { return };
    lab.jobs = 1;
    lab.write("a", "1");
    let mut builder = Builder::default();
    let (scratch, context) = (builder.scratch(), builder.context());
    let good = builder.make_file("good", scratch, "/a", "1");
    let bad = builder.copy_edited("bad", good, context, (&["a"], "/b"), |copy| {
        copy.owner = Some("nobody-here".to_owned());
    });
    let other = builder.make_file("other", bad, "/c", "1");
    let target = builder.copy("take", good, other, (&["/c"], "/c"));
    let sink = Arc::new(Record::default());
    let solved = lab.solve_with(&builder.graph, target, sink.clone(), &Cancel::new());
    assert_eq!(outcomes(&solved), [("good", Ran), ("bad", Failed)]);
    match &solved.result {
        Err(SolveError::Step(error)) => assert!(matches!(error.cause, StepFailure::User(_)), "{error:?}"),
        other => panic!("{other:?}"),
    }
    let events = sink.events.lock().expect("the lock");
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, EventKind::Failed { .. }))
            .count(),
        1
    );
    assert!(lab.leftovers().is_empty(), "{:?}", lab.leftovers());
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let Some(lab) = lab() else { return };
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let first = builder.make_file("first", scratch, "/1", "1");
    let target = builder.make_file("second", first, "/2", "2");
    let before = Cancel::new();
    before.raise();
    let solved = lab.solve_with(&builder.graph, target, Arc::new(Record::default()), &before);
    assert!(matches!(solved.result, Err(SolveError::Canceled)) && solved.steps.is_empty());

    let cancel = Cancel::new();
    let raise = cancel.clone();
    let sink = Record::at_start(move |name| {
        if name == "second" {
            raise.raise();
        }
    });
    let solved = lab.solve_with(&builder.graph, target, sink, &cancel);
    assert!(matches!(solved.result, Err(SolveError::Canceled)));
    assert!(
        outcomes(&solved)
            .iter()
            .all(|(_, outcome)| matches!(outcome, Ran | Canceled))
    );
    assert!(lab.leftovers().is_empty(), "{:?}", lab.leftovers());
    // What was complete is of use.
    let solved = lab.solve(&builder.graph, target);
    assert_eq!(outcomes(&solved).first(), Some(&("first", Cached)));
}

#[test]
fn no_more_steps_run_at_a_time_than_asked_for() {
    let Some(mut lab) = lab() else { return };
    for jobs in [1, 3] {
        lab.jobs = jobs;
        let mut builder = Builder::default();
        let scratch = builder.scratch();
        let mut target = builder.make_file("base", scratch, "/base", &format!("{jobs}"));
        let steps: Vec<VertexId> = (0..12)
            .map(|step| builder.make_file(&format!("step {step}"), scratch, "/x", &format!("{jobs} {step}")))
            .collect();
        for (position, step) in steps.into_iter().enumerate() {
            target = builder.copy("take", target, step, (&["/x"], &format!("/x{position}")));
        }
        let sink = Record::at_start(|_| std::thread::sleep(std::time::Duration::from_millis(5)));
        let solved = lab.solve_with(&builder.graph, target, sink.clone(), &Cancel::new());
        snapshot(&solved);
        let (mut running, mut most) = (0_usize, 0);
        for event in sink.events.lock().expect("the lock").iter() {
            match event {
                EventKind::Started { .. } => running += 1,
                EventKind::Done { .. } => running -= 1,
                _ => {}
            }
            most = most.max(running);
        }
        assert!(most <= jobs, "{most} of {jobs}");
        assert!(jobs == 1 || most > 1, "nothing ran beside anything");
    }
}

#[test]
fn builds_at_once_on_one_store_get_the_same() {
    let Some(lab) = lab() else { return };
    lab.write("src/a.c", "1");
    lab.write("config", "x");
    let (builder, target) = two_stages("/out/made");
    let snapshots = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                // A store of its own each, as processes have.
                let solved = lab.solve(&builder.graph, target);
                snapshots
                    .lock()
                    .expect("the lock")
                    .push(snapshot(&solved).clone());
            });
        }
    });
    let snapshots = snapshots.into_inner().expect("the lock");
    assert_eq!(snapshots.len(), 6);
    assert!(snapshots.iter().all(|snapshot| *snapshot == snapshots[0]));
    assert!(lab.leftovers().is_empty(), "{:?}", lab.leftovers());
}

#[test]
fn a_lost_layer_is_made_again() {
    let Some(lab) = lab() else { return };
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let first = builder.make_file("first", scratch, "/1", "1");
    let target = builder.make_file("second", first, "/2", "2");
    let lost = snapshot(&lab.solve(&builder.graph, target)).layers[0].clone();
    std::fs::remove_dir_all(lab.path.join("store/layers").join(lost.as_str())).expect("a loss");
    let solved = lab.solve(&builder.graph, target);
    assert_eq!(outcomes(&solved), [("first", Ran), ("second", CachedByContent)]);
    assert_eq!(lab.read(snapshot(&solved), "1").as_deref(), Some("1"));
}

#[test]
fn copies_keep_to_the_places_that_links_lead_to() {
    let Some(lab) = lab() else { return };
    lab.write("real/bin/tool", "tool");
    lab.write("tree/file", "file");
    std::os::unix::fs::symlink("real/bin", lab.context().join("link")).expect("a link");
    std::os::unix::fs::symlink("/out", lab.context().join("tree/way")).expect("a link");
    let mut builder = Builder::default();
    let (scratch, context) = (builder.scratch(), builder.context());
    // Through a symlinked parent of the context, and of a stage.
    let stage = builder.copy("one", scratch, context, (&["link/tool"], "/opt/real/tool"));
    let stage = builder.copy("two", stage, context, (&["tree"], "/opt/"));
    let target = builder.make_file("three", scratch, "/out/there", "x");
    let target = builder.copy("four", target, stage, (&["opt/way"], "/nothing/"));
    // The stage's link leads to /out, which only the target has.
    match lab.solve(&builder.graph, target).result {
        Err(SolveError::Step(error)) => {
            let StepFailure::SourceNotFound { place, .. } = &error.cause else {
                panic!("{error:?}")
            };
            assert_eq!(place, "the source stage or image");
        }
        other => panic!("{other:?}"),
    }
    let target = builder.make_file("five", stage, "/out/there", "x");
    // A directory onto a path that is a symlink to a directory: into that one.
    let target = builder.copy("six", target, context, (&["real"], "/opt/way"));
    let target = builder.copy(
        "seven",
        target,
        target,
        (&["opt/way/bin/tool", "none*"], "/seven/"),
    );
    let solved = lab.solve(&builder.graph, target);
    let root = snapshot(&solved);
    assert_eq!(lab.read(root, "out/bin/tool").as_deref(), Some("tool"));
    assert_eq!(lab.read(root, "seven/tool").as_deref(), Some("tool"));
    assert_eq!(lab.read(root, "opt/file").as_deref(), Some("file"));
}

#[test]
fn equal_builds_export_equal_images() {
    let Some(lab) = lab() else { return };
    lab.write("config", "x");
    let mut builder = Builder::default();
    let (scratch, context) = (builder.scratch(), builder.context());
    let first = builder.copy("copy", scratch, context, (&["config"], "/config"));
    let target = builder.make_file("make", first, "/2", "2");
    let name: kiln_image::Reference = "app:1".parse().expect("a name");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let engine = lab.engine();
        let reporter = kiln_solver::task::Reporter::new(Arc::new(Record::default()));
        let solved = engine.solve(&builder.graph, target, &lab.request(), &reporter, &Cancel::new());
        let solution = solved.result.expect("a solution");
        let exported = engine
            .export(&solution, ImageConfig::default(), std::slice::from_ref(&name))
            .expect("an image");
        assert_eq!(exported.config.rootfs.diff_ids.len(), 2);
        let record = engine
            .store()
            .images()
            .get("app:1")
            .expect("a lookup")
            .expect("the image");
        assert_eq!(record.id, exported.id);
        ids.push(exported.id);
    }
    assert_eq!(ids[0], ids[1]);
}

/// `base` with one file of its own, and on top of it a layer made on nothing: the file `app` of the context, as
/// `/app/file`; then a step that stands on both.
fn linked(base_text: &str) -> (Builder, VertexId) {
    let mut builder = Builder::default();
    let (scratch, context) = (builder.scratch(), builder.context());
    let base = builder.make_file("base", scratch, "/app/base", base_text);
    let layer = builder.copy("linked", scratch, context, (&["app"], "/app/file"));
    let merged = builder.add("merge", Op::Merge, &[base, layer]);
    let target = builder.make_file("after", merged, "/app/after", "always the same");
    (builder, target)
}

#[test]
fn a_layer_made_on_nothing_is_put_on_any_base() {
    let Some(lab) = lab() else { return };
    lab.write("app", "1");
    let solve = |text: &str| {
        let (builder, target) = linked(text);
        lab.solve(&builder.graph, target)
    };
    let first = solve("one");
    assert_eq!(outcomes(&first), [("base", Ran), ("linked", Ran), ("after", Ran)]);
    let layers = &snapshot(&first).layers;
    assert_eq!(layers.len(), 3);
    for (path, text) in [
        ("app/base", "one"),
        ("app/file", "1"),
        ("app/after", "always the same"),
    ] {
        assert_eq!(lab.read(snapshot(&first), path).as_deref(), Some(text), "{path}");
    }
    let cached = [("base", Cached), ("linked", Cached), ("after", Cached)];
    assert_eq!(outcomes(&solve("one")), cached, "the second time");

    // Another base: the layer stays what it is, byte for byte.
    let second = solve("two");
    assert_eq!(
        outcomes(&second),
        [("base", Ran), ("linked", Cached), ("after", Ran)]
    );
    let other = &snapshot(&second).layers;
    assert_ne!(layers[0], other[0]);
    assert_eq!(layers[1], other[1]);
    assert_eq!(lab.read(snapshot(&second), "app/base").as_deref(), Some("two"));

    // The layer changes while the base stays.
    lab.write("app", "2");
    let third = solve("two");
    assert_eq!(
        outcomes(&third),
        [("base", Cached), ("linked", Ran), ("after", Ran)]
    );
    assert_eq!(lab.read(snapshot(&third), "app/file").as_deref(), Some("2"));
    assert_eq!(outcomes(&solve("two")), cached);
}

/// Merges can be targets, stand on merges, and be copied from; the same layer may be there twice.
#[test]
fn merges_are_snapshots_like_any_other() {
    let Some(lab) = lab() else { return };
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let a = builder.make_file("a", scratch, "/d/a", "a");
    let b = builder.make_file("b", scratch, "/d/b", "b");
    let ab = builder.add("merge", Op::Merge, &[a, b]);
    let aba = builder.add("merge", Op::Merge, &[ab, scratch, a]);
    let copied = builder.copy("copy", aba, aba, (&["d"], "/e/"));
    let target = builder.add("merge", Op::Merge, &[copied]);
    let solved = lab.solve(&builder.graph, target);
    assert_eq!(outcomes(&solved), [("a", Ran), ("b", Ran), ("copy", Ran)]);
    let root = snapshot(&solved);
    assert_eq!(root.layers.len(), 4);
    for (path, text) in [("d/a", "a"), ("d/b", "b"), ("e/a", "a"), ("e/b", "b")] {
        assert_eq!(lab.read(root, path).as_deref(), Some(text), "{path}");
    }
    assert_eq!(
        outcomes(&lab.solve(&builder.graph, target)),
        [("a", Cached), ("b", Cached), ("copy", Cached)]
    );
    // A merge alone: nothing runs, nothing is announced for it.
    let record = Arc::new(Record::default());
    let solved = lab.solve_with(&builder.graph, ab, Arc::clone(&record) as _, &Cancel::new());
    assert_eq!(snapshot(&solved).layers.len(), 2);
    let events = record.events.lock().expect("the lock");
    let announced = events
        .iter()
        .filter(|event| matches!(event, EventKind::Announced { .. }));
    assert_eq!(announced.count(), 2);
}
