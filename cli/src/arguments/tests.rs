//! Tests of the command line.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::{Build, Cache, Command, Kiln, Kind, Progress, PullWhen, Run, command_name, lenient};

fn words(line: &str) -> Vec<OsString> {
    std::iter::once("kiln")
        .chain(line.split(' ').filter(|word| !word.is_empty()))
        .map(OsString::from)
        .collect()
}

fn read(line: &str) -> Kiln {
    Kiln::read(&words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn build(line: &str) -> Build {
    let Command::Build(build) = read(line).command else {
        panic!("{line}")
    };
    *build
}

fn run(line: &str) -> Run {
    let Command::Run(run) = read(line).command else {
        panic!("{line}")
    };
    *run
}

#[test]
fn the_definition_is_consistent() {
    Kiln::command().debug_assert();
    lenient().debug_assert();
}

#[test]
fn booleans_are_as_docker_has_them() {
    let table = [
        ("build .", [false, false, false]),
        ("build --pull --no-cache -q .", [true, true, true]),
        ("build --pull=true --no-cache=1 --quiet=t .", [true, true, true]),
        (
            "build --pull=false --no-cache=0 --quiet=FALSE .",
            [false, false, false],
        ),
        ("build . --pull --no-cache=false -q=true", [true, false, true]),
    ];
    for (line, expected) in table {
        let build = build(line);
        assert_eq!([build.pull, build.no_cache, build.quiet], expected, "{line}");
        assert_eq!(build.context.as_os_str(), ".", "{line}");
    }
    assert!(!run("run --rm=false x").rm);
    let error = Kiln::read(&words("run --rm=maybe x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ValueValidation);
}

#[test]
fn build_reads_what_docker_reads() {
    let build = build(
        "build -t a:1 -ta:2 --tag=a:3 -f - --build-arg A=1=2 --build-arg=B --label x=y --target t \
         --no-cache-filter a,b --platform=linux/arm64,linux/amd64 --platform local --progress=none --iidfile i --jobs 3 --network=none \
         --rm --force-rm --load ctx",
    );
    assert_eq!(build.tags, ["a:1", "a:2", "a:3"]);
    assert_eq!(build.file.unwrap().as_os_str(), "-");
    assert_eq!(build.variables, ["A=1=2", "B"]);
    assert_eq!(build.no_cache_filter, ["a", "b"]);
    assert_eq!(build.platforms, ["linux/arm64", "linux/amd64", "local"]);
    assert_eq!(build.progress, Progress::Quiet);
    assert_eq!((build.jobs, build.network.as_str()), (3, "none"));
    assert!(!build.pull);
}

#[test]
fn what_follows_the_image_is_the_containers() {
    let table: &[(&str, &[&str])] = &[
        ("run busybox ls -la", &["busybox", "ls", "-la"]),
        (
            "run busybox --rm -it -e x",
            &["busybox", "--rm", "-it", "-e", "x"],
        ),
        ("run -it --rm busybox --help", &["busybox", "--help"]),
        (
            "run --name n busybox sh -c x -- y",
            &["busybox", "sh", "-c", "x", "--", "y"],
        ),
        ("run -- busybox --root /x", &["busybox", "--root", "/x"]),
        ("--root /r run busybox", &["busybox"]),
    ];
    for (line, expected) in table {
        assert_eq!(run(line).image_and_command, *expected, "{line}");
    }
    let run = run(
        "run -itu0 --rm=true -e A=1 -eB --env=C= -v ./x:/y:ro -w/w -h host --net none --pull always -q i",
    );
    assert!(run.interactive && run.tty && run.rm && run.quiet);
    assert_eq!(run.user.as_deref(), Some("0"));
    assert_eq!(run.env, ["A=1", "B", "C="]);
    assert_eq!(run.volumes, ["./x:/y:ro"]);
    assert_eq!(run.workdir.as_deref(), Some("/w"));
    assert_eq!(
        (run.hostname.as_deref(), run.network.as_str()),
        (Some("host"), "none")
    );
    assert_eq!(run.pull, PullWhen::Always);
    let empty: Vec<OsString> = ["kiln", "run", "--entrypoint", "", "i"]
        .map(OsString::from)
        .into();
    let Command::Run(run) = Kiln::read(&empty).unwrap().command else {
        panic!()
    };
    assert_eq!(run.entrypoint.as_deref(), Some(""));
}

#[test]
fn the_other_commands_read_their_flags() {
    let kiln = read("images -aq --no-trunc --root=/r");
    assert_eq!(kiln.global.root.unwrap().as_os_str(), "/r");
    assert!(matches!(kiln.command, Command::Images(images) if images.all && images.quiet && images.no_trunc));
    let Command::Inspect(inspect) = read("inspect -f json --type=image a b").command else {
        panic!()
    };
    assert_eq!((inspect.kind, inspect.names.len()), (Some(Kind::Image), 2));
    let Command::Import(import) = read("import -c USER=x --change=EXPOSE -m note - n:1").command else {
        panic!()
    };
    assert_eq!((import.changes.len(), import.file.as_os_str().len()), (2, 1));
    let Command::Cache(Cache::Verify(verify)) = read("cache verify --repair").command else {
        panic!()
    };
    assert!(verify.repair);
    assert!(matches!(read("rmi -f a b").command, Command::Rmi(rmi) if rmi.force && rmi.images.len() == 2));
}

#[test]
fn what_is_wrong_is_refused() {
    let table = [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("buidl .", ErrorKind::InvalidSubcommand),
        ("build", ErrorKind::MissingRequiredArgument),
        ("build a b", ErrorKind::UnknownArgument),
        ("build --progress=fancy .", ErrorKind::InvalidValue),
        ("run", ErrorKind::MissingRequiredArgument),
        ("run --bogus busybox", ErrorKind::UnknownArgument),
        ("run -d busybox", ErrorKind::UnknownArgument),
        ("run -itz busybox", ErrorKind::UnknownArgument),
        ("tag a", ErrorKind::MissingRequiredArgument),
        ("--version", ErrorKind::DisplayVersion),
        ("run --help", ErrorKind::DisplayHelp),
        ("help build", ErrorKind::DisplayHelp),
    ];
    for (line, kind) in table {
        assert_eq!(Kiln::read(&words(line)).unwrap_err().kind(), kind, "{line}");
    }
    let similar = Kiln::read(&words("build --taregt x .")).unwrap_err().to_string();
    assert!(similar.contains("'--target'"), "{similar}");
}

#[test]
fn the_command_of_a_wrong_line_is_known() {
    assert_eq!(
        command_name(&words("--root run images --bogus")).as_deref(),
        Some("images")
    );
    assert_eq!(command_name(&words("run --bogus x")).as_deref(), Some("run"));
    assert_eq!(command_name(&words("buidl")), None);
}

#[test]
fn the_reference_is_complete() {
    fn describe(command: &mut clap::Command, text: &mut String) {
        let name = command.get_bin_name().unwrap_or("kiln").to_owned();
        let help = command.render_help().to_string();
        text.extend(["$ ", &name, " --help\n", help.trim_end(), "\n\n"]);
        for inner in command
            .get_subcommands_mut()
            .filter(|inner| inner.get_name() != "help")
        {
            describe(inner, text);
        }
    }
    let mut kiln = Kiln::command().term_width(100);
    kiln.build();
    let mut text = String::new();
    describe(&mut kiln, &mut text);
    crate::expected::check("help.txt", &text);
}
