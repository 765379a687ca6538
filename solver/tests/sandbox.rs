//! Steps that run processes, in real sandboxes.
//!
//! The program has no test harness: it is also the sandbox's first process, must say so before any thread starts,
//! and enters its namespaces while it is alone.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Builder, Lab, Record, outcomes, snapshot};
use kiln_executor::Builtin;
use kiln_executor::namespace::{EnterOptions, enter};
use kiln_solver::StepOutcome::{Cached, CachedByContent, Canceled, Failed, Ran};
use kiln_solver::event::EventKind;
use kiln_solver::graph::{Exec, Op, SandboxFile, VertexId};
use kiln_solver::{Cancel, SolveError, StepFailure};

const BUSYBOX: &str = "/bin/busybox";

/// A name and what is done.
type Case = (&'static str, fn(&Lab));

fn main() {
    kiln_executor::init::main_if_init();
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    if !Path::new(BUSYBOX).exists() {
        println!("SKIPPED: needs {BUSYBOX} (package busybox-static)");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    enter(&EnterOptions::default()).expect("namespaces");
    let filter = std::env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let cases: [Case; 7] = [
        ("runs_and_is_cached", runs_and_is_cached),
        ("output_comes_as_it_is_written", output_comes_as_it_is_written),
        ("a_failing_process_is_explained", a_failing_process_is_explained),
        ("a_failing_step_kills_the_others", a_failing_step_kills_the_others),
        ("cancelling_kills_processes", cancelling_kills_processes),
        ("steps_overlap", steps_overlap),
        (
            "nothing_of_the_sandbox_gets_into_a_layer",
            nothing_of_the_sandbox_gets_into_a_layer,
        ),
    ];
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&filter)) {
        let lab = Lab::new(
            Arc::new(Builtin::new().expect("a backend")),
            &std::env::temp_dir(),
            false,
        );
        std::fs::copy(BUSYBOX, lab.context().join("busybox")).expect("busybox");
        case(&lab);
        assert!(lab.leftovers().is_empty(), "{name} leaves {:?}", lab.leftovers());
        println!("test {name} ... ok");
    }
}

/// A root file system with a shell.
fn shell(builder: &mut Builder) -> VertexId {
    let (scratch, context) = (builder.scratch(), builder.context());
    builder.copy("busybox", scratch, context, (&["busybox"], "/bin/sh"))
}

fn command(script: &str) -> Exec {
    Exec {
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        cwd: "/".to_owned(),
        ..Exec::default()
    }
}

fn run(builder: &mut Builder, name: &str, base: VertexId, script: &str) -> VertexId {
    builder.add(name, Op::Exec(command(script)), &[base])
}

fn runs_and_is_cached(lab: &Lab) {
    let graph = |first: &str| {
        let mut builder = Builder::default();
        let base = shell(&mut builder);
        let first = run(&mut builder, "first", base, first);
        let second = run(
            &mut builder,
            "second",
            first,
            "read text < /text; echo \"$text again\" > /more",
        );
        (builder.graph, second)
    };
    let (one, target) = graph("echo hello > /text");
    let solved = lab.solve(&one, target);
    assert_eq!(
        outcomes(&solved),
        [("busybox", Ran), ("first", Ran), ("second", Ran)]
    );
    assert_eq!(
        lab.read(snapshot(&solved), "more").as_deref(),
        Some("hello again\n")
    );
    let solved = lab.solve(&one, target);
    assert_eq!(
        outcomes(&solved),
        [("busybox", Cached), ("first", Cached), ("second", Cached)]
    );
    // Another command that makes the same files.
    let (other, target) = graph("echo hel\"lo\" > /text");
    let solved = lab.solve(&other, target);
    assert_eq!(
        outcomes(&solved),
        [("busybox", Cached), ("first", Ran), ("second", CachedByContent)]
    );
}

fn output_comes_as_it_is_written(lab: &Lab) {
    let mut builder = Builder::default();
    let base = shell(&mut builder);
    let script =
        "printf 'no newline'; sh -c 'printf \" 1%%\\r 2%%\"'; echo; echo err >&2; printf '\\377 end'";
    let target = run(&mut builder, "print", base, script);
    let sink = Arc::new(Record::default());
    let solved = lab.solve_with(&builder.graph, target, sink.clone(), &Cancel::new());
    snapshot(&solved);
    // The two streams may mix, but each is in order and complete.
    let output = sink.output();
    let without_error: Vec<u8> = {
        let at = output
            .windows(4)
            .position(|part| part == b"err\n")
            .expect("the error stream");
        [&output[..at], &output[at + 4..]].concat()
    };
    assert_eq!(without_error, b"no newline 1%\r 2%\n\xff end");
}

fn a_failing_process_is_explained(lab: &Lab) {
    let mut builder = Builder::default();
    let base = shell(&mut builder);
    let target = run(
        &mut builder,
        "fail",
        base,
        "echo one; echo two >&2; printf three; exit 7",
    );
    let request = lab.request();
    let reporter = kiln_solver::task::Reporter::new(Arc::new(Record::default()));
    let solved = lab
        .engine()
        .solve(&builder.graph, target, &request, &reporter, &Cancel::new());
    assert_eq!(outcomes(&solved), [("busybox", Ran), ("fail", Failed)]);
    let Err(SolveError::Step(error)) = solved.result else {
        panic!("no failure")
    };
    let StepFailure::Process {
        code,
        status,
        mut last_output,
        log,
        ..
    } = error.cause
    else {
        panic!("{error:?}")
    };
    assert_eq!((code, status.as_str()), (7, "exit code: 7"));
    last_output.sort();
    assert_eq!(last_output, ["one", "three", "two"]);
    let log = log.expect("a log");
    assert!(log.starts_with(lab.store().builds().log_path(&request.build)));
    let step = log.file_name().expect("a name").to_str().expect("a name");
    let reader = lab
        .store()
        .builds()
        .log(&request.build)
        .read(step)
        .expect("the log");
    let text = std::io::read_to_string(reader.expect("a log")).expect("the log");
    assert!(
        text.contains("one\n") && text.contains("two\n") && text.contains("three"),
        "{text:?}"
    );

    let mut builder = Builder::default();
    let base = shell(&mut builder);
    let missing = Exec {
        args: vec!["/no/such/program".to_owned()],
        cwd: "/".to_owned(),
        ..Exec::default()
    };
    let target = builder.add("missing", Op::Exec(missing), &[base]);
    let Err(SolveError::Step(error)) = lab.solve(&builder.graph, target).result else {
        panic!("no failure")
    };
    assert!(
        matches!(&error.cause, StepFailure::Sandbox { command, .. } if command == "/no/such/program"),
        "{error:?}"
    );
}

/// Whether some process of the machine has `text` in its command line.
fn is_running(text: &str) -> bool {
    std::fs::read_dir("/proc").expect("/proc").flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.windows(text.len()).any(|part| part == text.as_bytes()))
    })
}

fn a_failing_step_kills_the_others(lab: &Lab) {
    let mut builder = Builder::default();
    let base = shell(&mut builder);
    let marker = format!("6{:07}", std::process::id());
    let slow = run(
        &mut builder,
        "slow",
        base,
        &format!("sh -c 'sleep {marker}' & sleep {marker}"),
    );
    let bad = run(&mut builder, "bad", base, "sleep 0.3; exit 3");
    let target = builder.copy("join", slow, bad, (&["/bin/sh"], "/x"));
    let began = Instant::now();
    let sink = Arc::new(Record::default());
    let solved = lab.solve_with(&builder.graph, target, sink.clone(), &Cancel::new());
    assert!(began.elapsed() < Duration::from_mins(1));
    assert_eq!(
        outcomes(&solved),
        [("busybox", Ran), ("slow", Canceled), ("bad", Failed)]
    );
    let Err(SolveError::Step(error)) = solved.result else {
        panic!("no failure")
    };
    assert_eq!(error.name, "bad");
    assert!(!is_running(&marker), "a process of the other step is left");
    let events = sink.events.lock().expect("the lock");
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, EventKind::Canceled { .. }))
            .count(),
        1
    );
}

fn cancelling_kills_processes(lab: &Lab) {
    let mut builder = Builder::default();
    let base = shell(&mut builder);
    let marker = format!("7{:07}", std::process::id());
    // It ignores what can be ignored.
    let target = run(
        &mut builder,
        "stubborn",
        base,
        &format!("trap '' INT TERM HUP; sleep {marker}; sleep {marker}"),
    );
    let cancel = Cancel::new();
    let (raise, wanted) = (cancel.clone(), marker.clone());
    let watcher = std::thread::spawn(move || {
        while !is_running(&wanted) {
            std::thread::sleep(Duration::from_millis(10));
        }
        raise.raise();
    });
    let solved = lab.solve_with(&builder.graph, target, Arc::new(Record::default()), &cancel);
    watcher.join().expect("no panic");
    assert!(matches!(solved.result, Err(SolveError::Canceled)));
    assert_eq!(outcomes(&solved), [("busybox", Ran), ("stubborn", Canceled)]);
    assert!(!is_running(&marker));
}

fn steps_overlap(lab: &Lab) {
    let mut builder = Builder::default();
    let base = shell(&mut builder);
    let mut target = base;
    let steps: Vec<VertexId> = (0..4)
        .map(|step| {
            run(
                &mut builder,
                &format!("step {step}"),
                base,
                &format!("sleep 1; echo {step} > /s"),
            )
        })
        .collect();
    for (position, step) in steps.into_iter().enumerate() {
        target = builder.copy("take", target, step, (&["/s"], &format!("/s{position}")));
    }
    let sink = Arc::new(Record::default());
    snapshot(&lab.solve_with(&builder.graph, target, sink.clone(), &Cancel::new()));
    let events = sink.events.lock().expect("the lock");
    let (mut running, mut most) = (0_usize, 0);
    for event in events.iter() {
        match event {
            EventKind::Started { .. } => running += 1,
            EventKind::Done { .. } => running -= 1,
            _ => {}
        }
        most = most.max(running);
    }
    assert_eq!(most, 4);
}

fn nothing_of_the_sandbox_gets_into_a_layer(lab: &Lab) {
    let mut builder = Builder::default();
    let base = shell(&mut builder);
    let file = SandboxFile {
        path: "/dev/pipes/script".to_owned(),
        data: b"echo from file".to_vec(),
        mode: 0o755,
    };
    let script = "test -e /proc/self && test -s /etc/hosts && echo x >> /etc/hosts && sh /dev/pipes/script && echo 1 > /made";
    let exec = Exec {
        files: vec![file],
        unkeyed_env: vec!["http_proxy=p".to_owned()],
        ..command(script)
    };
    let target = builder.add("run", Op::Exec(exec), &[base]);
    let sink = Arc::new(Record::default());
    let solved = lab.solve_with(&builder.graph, target, sink.clone(), &Cancel::new());
    let layer = snapshot(&solved).layers.last().expect("a layer").clone();
    assert_eq!(sink.output(), b"from file\n");
    let listing = lab
        .store()
        .layers()
        .require(&layer)
        .and_then(|layer| layer.listing())
        .expect("the listing");
    let paths: Vec<String> = listing
        .entries()
        .iter()
        .map(|entry| entry.path.to_string())
        .collect();
    assert_eq!(paths, ["made"]);
}
