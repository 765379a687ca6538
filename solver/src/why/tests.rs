use kiln_cache::KeyPart;

use super::*;
use crate::report::{SourceFacts, StepKind};

pub(super) fn step(name: &str) -> StepReport {
    StepReport {
        name: name.to_owned(),
        kind: StepKind::Run,
        outcome: StepOutcome::Ran,
        key: None,
        content_key: None,
        began_ms: 0,
        milliseconds: 0,
        inputs: Vec::new(),
        in_base: 0,
        source: None,
        saved_ms: None,
        bytes: None,
        log: None,
        ignored_cache: false,
        missed: None,
        verified: None,
        line: None,
        why: None,
        span: None,
        made_of: None,
    }
}

fn changed(differences: Vec<Difference>) -> Why {
    Why::Changed {
        build: "1".to_owned(),
        differences,
    }
}

fn parts(list: &[(&str, &str)]) -> Vec<KeyPart> {
    list.iter()
        .map(|(name, value)| KeyPart::new(*name, *value))
        .collect()
}

type Parts = &'static [(&'static str, &'static str)];

#[test]
fn parts_are_compared_and_worded() {
    let folder = crate::testing::TempDir::new();
    let store = folder.store();
    let table: &[(Parts, Parts, &str)] = &[
        (
            &[("argument 0", "sh"), ("argument 1", "a")],
            &[("argument 0", "sh"), ("argument 1", "b")],
            "the command changed",
        ),
        (
            &[("env A", "1")],
            &[("env A", "2")],
            "variable A changed: \"1\" -> \"2\"",
        ),
        (&[], &[("env A", "2")], "variable A is new: \"2\""),
        (&[("env A", "1")], &[], "variable A is gone: \"1\""),
        (
            &[("user", "")],
            &[("user", "app")],
            "user changed: \"\" -> \"app\"",
        ),
        (
            &[("copy to", "/a")],
            &[("copy to", "/b")],
            "copy to changed: \"/a\" -> \"/b\"",
        ),
        (
            &[("copy files", "1")],
            &[("copy files", "2")],
            "other files of [internal] load build context (which is not known)",
        ),
        (
            &[("file /dev/pipes/x", "1")],
            &[("file /dev/pipes/x", "2")],
            "heredoc changed",
        ),
        (
            &[("mount /c", "cache writable")],
            &[("mount /c", "tmpfs writable")],
            "mount /c: kind changed: \"cache writable\" -> \"tmpfs writable\"",
        ),
        (
            &[],
            &[("mount /s", "secret read-only"), ("mount /s id", "x")],
            "mount /s is new: \"secret read-only\"; mount /s: id is new: \"x\"",
        ),
        (
            &[("env A", "1"), ("argument 0", "x")],
            &[("argument 0", "y"), ("env A", "2")],
            "the command changed; variable A changed: \"1\" -> \"2\"",
        ),
        (&[("env A", "1")], &[("env A", "1")], ""),
    ];
    for (before, after, expected) in table {
        let found = parts::compare(
            &store,
            &parts(before),
            &parts(after),
            Some("[internal] load build context"),
        );
        assert_eq!(changed(found).to_string(), *expected);
    }
}

#[test]
fn the_summary_names_the_first_cause_and_the_savings() {
    let mut steps = vec![
        step("[1/4] FROM a"),
        step("[2/4] COPY . ."),
        step("[3/4] RUN x"),
        step("[4/4] RUN y"),
    ];
    steps[0].kind = StepKind::Source;
    for (at, step) in steps.iter_mut().enumerate().skip(1) {
        step.inputs = vec![at - 1];
        step.in_base = 1;
    }
    steps[1].why = Some(changed(vec![Difference::Files {
        of: None,
        mount: None,
        changes: Some(FileChanges {
            changed: 1,
            added: 2,
            first: vec![("src/main.rs".to_owned(), FileChange::Changed)],
            ..FileChanges::default()
        }),
    }]));
    steps[2].why = Some(changed(vec![Difference::Step {
        name: "[2/4] COPY . .".to_owned(),
    }]));
    steps[3].outcome = StepOutcome::CachedByContent;
    steps[3].saved_ms = Some(12_340);
    let summary = Summary::of(&steps).unwrap();
    assert_eq!(
        summary.lines(),
        [
            "why: [2/4] COPY . .: src/main.rs changed, 2 added (1 more step ran)",
            "early cutoff: 1 step was kept, its inputs came out the same (saved 12.3s)",
        ]
    );
    let cached = {
        let mut step = step("[1/1] RUN x");
        step.outcome = StepOutcome::Cached;
        [step]
    };
    assert_eq!(Summary::of(&cached), None);
    let mut first = [step("[1/1] RUN x")];
    explain(&crate::testing::TempDir::new().store(), &mut first, &[]);
    assert_eq!(
        Summary::of(&first).unwrap().lines(),
        ["why: no earlier build of this Dockerfile and target"]
    );
}

#[test]
fn early_cutoff_counts_whatever_was_made_or_fetched_anew_for_nothing() {
    use StepOutcome::{Cached, CachedByContent, Ran, Skipped};
    let source = |downloaded| {
        let mut source = step("https://h/f");
        (source.kind, source.outcome) = (StepKind::Source, StepOutcome::Ran);
        source.source = Some(SourceFacts {
            what: "https://h/f".to_owned(),
            digest: "sha256:00".to_owned(),
            downloaded,
        });
        source
    };
    let follows = |outcome, at: usize| {
        let mut follows = step("RUN x");
        (follows.outcome, follows.inputs, follows.saved_ms) = (outcome, vec![at], Some(700));
        follows
    };
    let table = [
        // A file that was downloaded again, and all that follows.
        (
            vec![source(true), follows(Cached, 0), follows(Cached, 1)],
            Some((2_usize, 1_400_u64)),
        ),
        (vec![source(false), follows(Cached, 0)], None),
        (vec![source(true), follows(Ran, 0), follows(Skipped, 1)], None),
        // A base of another digest: no step ran at all.
        (vec![source(false), follows(CachedByContent, 0)], Some((1, 700))),
        (vec![follows(Cached, 0)], None),
    ];
    for (steps, expected) in table {
        let found = cutoff(&steps).map(|cutoff| (cutoff.steps, cutoff.saved_ms));
        assert_eq!(found, expected, "{steps:#?}");
    }
}

#[test]
fn ages_are_worded_with_as_much_as_matters() {
    let hour = 3_600_000;
    let table = [
        (7, 0, "its result is 7ms old, and --cache-ttl is 0ms"),
        (90_500, 60_000, "its result is 90s old, and --cache-ttl is 1m"),
        (
            26 * hour,
            24 * hour,
            "its result is 26h old, and --cache-ttl is 1d",
        ),
        (
            220 * hour,
            168 * hour,
            "its result is 9d old, and --cache-ttl is 7d",
        ),
    ];
    for (age_ms, ttl_ms, expected) in table {
        assert_eq!(Why::Expired { age_ms, ttl_ms }.to_string(), expected);
    }
}

#[test]
fn a_step_after_one_that_was_made_anew_ran_for_its_content() {
    let scratch = crate::testing::TempDir::new();
    let store = scratch.store();
    let key = |text: &str| kiln_cache::Key::of("t", &parts(&[("x", text)]));
    let record = |name: &str, content: &str| {
        store
            .records()
            .put(&kiln_cache::Record {
                key: key(name),
                kind: kiln_cache::RecordKind::Content,
                parts: parts(&[("base content", content)]),
                output: Vec::new(),
                step: "RUN y".to_owned(),
                created_ms: 0,
                duration_ms: 0,
            })
            .unwrap();
    };
    record("content before", "one");
    record("content now", "two");
    record("second", "of the same definition");
    let build = |content: &str, ignored| {
        let (mut first, mut second) = (step("[1/2] RUN x"), step("[2/2] RUN y"));
        (first.key, first.ignored_cache) = (Some(key("first")), ignored);
        (second.key, second.content_key) = (Some(key("second")), Some(key(content)));
        (second.inputs, second.in_base) = (vec![0], 1);
        vec![first, second]
    };
    let before = build("content before", false);
    let mut now = build("content now", true);
    let earlier = [Earlier {
        build: "b",
        steps: &before,
    }];
    // The record of the step as it is now was written by the build that is explained.
    explain(&store, &mut now, &earlier);
    assert_eq!(now[0].why, Some(Why::IgnoredCache { by_stage: false }));
    let why = now[1].why.as_ref().map(ToString::to_string);
    assert_eq!(why.as_deref(), Some("after [1/2] RUN x"));
    // The same content under the same definition: then it is the result that is gone.
    let mut now = build("content before", true);
    explain(&store, &mut now, &earlier);
    assert!(matches!(now[1].why, Some(Why::Lost { .. })), "{:?}", now[1].why);
}
