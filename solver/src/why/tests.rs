use kiln_cache::KeyPart;

use super::*;
use crate::report::StepKind;

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
