//! Why a step ran: what `kiln why` says after each change that the cache cares about, and after each that it does not.

use kiln_e2e::builder::Ended;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::time::SystemTime;

/// What happens between two builds.
type Change = fn(&Project) -> Result<()>;

/// One row of the table.
struct Row {
    name: &'static str,
    dockerfile: &'static str,
    /// Arguments of the first build, and of the second one.
    arguments: [&'static [&'static str]; 2],
    change: Change,
    /// What `kiln why` says of the second build.
    expected: &'static str,
}

fn main() -> ExitCode {
    let rows = ROWS
        .iter()
        .map(|row| trial::test(format!("why/{}", row.name), || check(row)));
    let others = [
        trial::test("why/of one step, and as JSON", of_one_step),
        trial::test("why/the summary says it in one line", summary),
        trial::test(
            "why/a cached build writes its record and nothing else",
            cached_build,
        ),
        trial::test("why/a folded selection still tells where", folded),
        trial::test("why/a result that is gone", result_gone),
    ];
    trial::run(rows.chain(others).collect())
}

const COPY: &str = "FROM busybox:latest\nCOPY . /src/\nRUN ls /src > /list\n";
const PATTERN: &str = "FROM busybox:latest\nCOPY pkg* /pkg/\n";
const ARGUMENT: &str = "FROM busybox:latest\nRUN echo before > /b\nARG SHA=none\nARG USED=no\nRUN echo one > /a\nRUN echo $USED > /u\n";
const SECRET: &str = "FROM busybox:latest\nRUN --mount=type=secret,id=one,required=false true > /x\n";
const STAGES: &str = "FROM busybox:latest AS gen\nCOPY pkg.txt /in\nRUN head -c1 /in > /out\n\
    FROM busybox:latest\nCOPY --from=gen /out /out\nRUN cp /out /copy\n";
const NOTHING: &str = "nothing ran: every step was cached\n";

#[expect(clippy::unnecessary_wraps, reason = "a change may fail")]
fn nothing(_: &Project) -> Result<()> {
    Ok(())
}

const ROWS: &[Row] = &[
    Row {
        name: "nothing changed",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "touch",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            let file = File::options().write(true).open(project.path("pkg.txt"))?;
            Ok(file.set_modified(SystemTime::UNIX_EPOCH)?)
        },
        expected: NOTHING,
    },
    Row {
        name: "changed, added and removed files",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            project.write("pkg.txt", "two\n")?;
            project.write("a/new.txt", "new\n")?;
            Ok(std::fs::remove_file(project.path("lib/x.txt"))?)
        },
        expected: "[2/3] COPY . /src/  (Dockerfile:2)\n    pkg.txt changed, a, a/new.txt added, lib/x.txt removed\n\
                   [3/3] RUN ls /src > /list  (Dockerfile:3)\n    after [2/3] COPY . /src/\n",
    },
    Row {
        name: "chmod",
        dockerfile: COPY,
        arguments: [&[], &[]],
        change: |project| {
            Ok(std::fs::set_permissions(
                project.path("pkg.txt"),
                Permissions::from_mode(0o755),
            )?)
        },
        expected: "[2/3] COPY . /src/  (Dockerfile:2)\n    pkg.txt changed its mode\n\
                   [3/3] RUN ls /src > /list  (Dockerfile:3)\n    after [2/3] COPY . /src/\n",
    },
    Row {
        name: "renamed directory of the same content",
        dockerfile: "FROM busybox:latest\nCOPY lib* /lib/\n",
        arguments: [&[], &[]],
        change: |project| Ok(std::fs::rename(project.path("lib"), project.path("lib2"))?),
        expected: NOTHING,
    },
    Row {
        name: "renamed file",
        dockerfile: PATTERN,
        arguments: [&[], &[]],
        change: |project| {
            Ok(std::fs::rename(
                project.path("pkg.txt"),
                project.path("pkg2.txt"),
            )?)
        },
        expected: "[2/2] COPY pkg* /pkg/  (Dockerfile:2)\n    pkg2.txt added, pkg.txt removed\n",
    },
    Row {
        name: "file that no pattern takes",
        dockerfile: PATTERN,
        arguments: [&[], &[]],
        change: |project| project.write("other.txt", "x"),
        expected: NOTHING,
    },
    Row {
        name: "argument that the command does not mention",
        dockerfile: ARGUMENT,
        arguments: [&["--build-arg", "SHA=a1"], &["--build-arg", "SHA=b2"]],
        change: nothing,
        expected: "[3/4] RUN echo one > /a  (Dockerfile:5)\n    ARG SHA changed: \"a1\" -> \"b2\" (line 3, not mentioned by the command)\n\
                   [4/4] RUN echo no > /u  (Dockerfile:6)\n    ARG SHA changed: \"a1\" -> \"b2\" (line 3, not mentioned by the command)\n",
    },
    Row {
        name: "argument that the command uses",
        dockerfile: "FROM busybox:latest\nRUN echo before > /b\nARG USED=no\nRUN echo $USED > /u\n",
        arguments: [&[], &["--build-arg", "USED=yes"]],
        change: nothing,
        expected: "[3/3] RUN echo yes > /u  (Dockerfile:4)\n    ARG USED changed: \"no\" -> \"yes\" (line 3)\n",
    },
    Row {
        name: "ENV",
        dockerfile: "FROM busybox:latest\nENV A=1\nRUN echo $A > /a\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nENV A=2\nRUN echo $A > /a\n"),
        expected: "[2/2] RUN echo 2 > /a  (Dockerfile:3)\n    ENV A changed: \"1\" -> \"2\" (line 2)\n",
    },
    Row {
        name: "proxy",
        dockerfile: COPY,
        arguments: [&[], &["--build-arg", "HTTP_PROXY=http://127.0.0.1:9"]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "address of an extra host",
        dockerfile: COPY,
        arguments: [&["--add-host", "db:10.0.0.1"], &["--add-host", "db:10.0.0.2"]],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "name of an extra host",
        dockerfile: "FROM busybox:latest\nRUN true > /x\n",
        arguments: [&["--add-host", "db:10.0.0.1"], &["--add-host", "db2:10.0.0.1"]],
        change: nothing,
        expected: "[2/2] RUN true > /x  (Dockerfile:2)\n    extra host changed: \"db\" -> \"db2\"\n",
    },
    Row {
        name: "value of a secret",
        dockerfile: SECRET,
        arguments: [
            &["--secret", "id=one,src=@CONTEXT@/pkg.txt"],
            &["--secret", "id=one,src=@CONTEXT@/lib/x.txt"],
        ],
        change: nothing,
        expected: NOTHING,
    },
    Row {
        name: "id of a secret",
        dockerfile: SECRET,
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                &SECRET.replace("id=one", "id=two,target=/run/secrets/one"),
            )
        },
        expected: "[2/2] RUN --mount=type=secret,id=two,target=/run/secrets/one,required=false true > /x  (Dockerfile:2)\n    \
                   mount /run/secrets/one: id changed: \"one\" -> \"two\"\n",
    },
    Row {
        name: "command",
        dockerfile: "FROM busybox:latest\nRUN echo one > /a\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\n\nRUN echo two > /a\n"),
        expected: "[2/2] RUN echo two > /a  (Dockerfile:3)\n    the command changed\n      - /bin/sh -c echo one > /a\n      \
                   + /bin/sh -c echo two > /a\n",
    },
    Row {
        name: "a step in between",
        dockerfile: "FROM busybox:latest\nRUN echo one > /a\n",
        arguments: [&[], &[]],
        change: |project| {
            project.write(
                "Dockerfile",
                "FROM busybox:latest\nCOPY pkg.txt /p\nRUN echo one > /a\n",
            )
        },
        expected: "[2/3] COPY pkg.txt /p  (Dockerfile:2)\n    no earlier record of this step\n\
                   [3/3] RUN echo one > /a  (Dockerfile:3)\n    after [2/3] COPY pkg.txt /p\n",
    },
    Row {
        name: "user and folder",
        dockerfile: "FROM busybox:latest\nRUN true > /tmp/x\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nUSER 7\nRUN true > /tmp/x\n"),
        expected: "[2/2] RUN true > /tmp/x  (Dockerfile:3)\n    user changed: \"\" -> \"7\"\n",
    },
    Row {
        name: "destination of a copy",
        dockerfile: "FROM busybox:latest\nCOPY pkg.txt /a\n",
        arguments: [&[], &[]],
        change: |project| project.write("Dockerfile", "FROM busybox:latest\nCOPY pkg.txt /b\n"),
        expected: "[2/2] COPY pkg.txt /b  (Dockerfile:2)\n    copy to changed: \"/a\" -> \"/b\"\n",
    },
    Row {
        name: "source of a mount",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=bind,source=lib,target=/m ls /m > /x\n",
        arguments: [&[], &[]],
        change: |project| project.write("lib/x.txt", "other\n"),
        expected: "[2/2] RUN --mount=type=bind,source=lib,target=/m ls /m > /x  (Dockerfile:2)\n    mount /m: lib/x.txt changed\n",
    },
    Row {
        name: "base of another name and the same layers",
        dockerfile: "FROM busybox:latest\nRUN echo x > /x\n",
        arguments: [&[], &[]],
        change: |project| {
            project
                .kiln
                .run(["tag", "busybox:latest", "other:name"])?
                .success()?;
            project.write("Dockerfile", "FROM other:name\nRUN echo x > /x\n")
        },
        expected: NOTHING,
    },
    Row {
        name: "base",
        dockerfile: "FROM base:1\nRUN echo x > /x\n",
        arguments: [&[], &[]],
        change: |project| base(project, "two"),
        expected: "[2/2] RUN echo x > /x  (Dockerfile:2)\n    base docker.io/library/base:1 changed: sha256:… -> sha256:…\n",
    },
    Row {
        name: "no-cache",
        dockerfile: "FROM busybox:latest\nRUN echo x > /x\n",
        arguments: [&[], &["--no-cache"]],
        change: nothing,
        expected: "[2/2] RUN echo x > /x  (Dockerfile:2)\n    --no-cache\n",
    },
    Row {
        name: "no-cache-filter",
        dockerfile: STAGES,
        arguments: [&[], &["--no-cache-filter", "gen"]],
        change: nothing,
        expected: "[gen 2/3] COPY pkg.txt /in  (Dockerfile:2)\n    --no-cache-filter\n\
                   [gen 3/3] RUN head -c1 /in > /out  (Dockerfile:3)\n    --no-cache-filter\n\
                   [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:5)\n    kept: its inputs came out the same\n\
                   [stage-1 3/3] RUN cp /out /copy  (Dockerfile:6)\n    kept: its inputs came out the same\n\
                   early cutoff: 2 steps were kept, their inputs came out the same (saved …s)\n",
    },
    Row {
        name: "early cutoff",
        dockerfile: STAGES,
        arguments: [&[], &[]],
        change: |project| project.write("pkg.txt", "only the first byte counts\n"),
        expected: "[gen 2/3] COPY pkg.txt /in  (Dockerfile:2)\n    pkg.txt changed\n\
                   [gen 3/3] RUN head -c1 /in > /out  (Dockerfile:3)\n    after [gen 2/3] COPY pkg.txt /in\n\
                   [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:5)\n    kept: its inputs came out the same\n\
                   [stage-1 3/3] RUN cp /out /copy  (Dockerfile:6)\n    kept: its inputs came out the same\n\
                   early cutoff: 2 steps were kept, their inputs came out the same (saved …s)\n",
    },
    Row {
        name: "file of another stage",
        dockerfile: STAGES,
        arguments: [&[], &[]],
        change: |project| project.write("pkg.txt", "x"),
        expected: "[gen 2/3] COPY pkg.txt /in  (Dockerfile:2)\n    pkg.txt changed\n\
                   [gen 3/3] RUN head -c1 /in > /out  (Dockerfile:3)\n    after [gen 2/3] COPY pkg.txt /in\n\
                   [stage-1 2/3] COPY --from=gen /out /out  (Dockerfile:5)\n    out changed in [gen 3/3] RUN head -c1 /in > /out\n\
                   [stage-1 3/3] RUN cp /out /copy  (Dockerfile:6)\n    after [stage-1 2/3] COPY --from=gen /out /out\n",
    },
    Row {
        name: "reordered stages",
        dockerfile: "FROM busybox:latest AS a\nRUN echo a > /a\nFROM busybox:latest AS b\nRUN echo b > /b\n\
            FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        arguments: [&[], &[]],
        change: |project| {
            let text = "FROM busybox:latest AS b\nRUN echo b > /b\nFROM busybox:latest AS a\nRUN echo a > /a\n\
                FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
            project.write("Dockerfile", text)
        },
        expected: NOTHING,
    },
    Row {
        name: "a step that failed before",
        dockerfile: "FROM busybox:latest\nRUN --mount=type=secret,id=go,required=false test -e /run/secrets/go\n",
        arguments: [&[], &["--secret", "id=go,src=@CONTEXT@/pkg.txt"]],
        change: nothing,
        expected: "[2/2] RUN --mount=type=secret,id=go,required=false test -e /run/secrets/go  (Dockerfile:2)\n    \
                   it has not succeeded before\n",
    },
];

/// Makes the image `base:1`.
fn base(project: &Project, text: &str) -> Result<()> {
    let context = project.scratch("base");
    std::fs::create_dir_all(&context)?;
    std::fs::write(
        context.join("Dockerfile"),
        format!("FROM busybox:latest\nRUN echo {text} > /base\n"),
    )?;
    let mut request = project.request.clone();
    (request.context, request.tag) = (context, "base:1".to_owned());
    kiln_e2e::builder::run(&mut project.kiln.build_command(&request))?.success()?;
    Ok(())
}

fn project(name: &str, dockerfile: &str) -> Result<Project> {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let files = [
        ("Dockerfile", dockerfile),
        (".dockerignore", "Dockerfile\n.dockerignore\n"),
        ("pkg.txt", "one\n"),
        ("lib/x.txt", "x\n"),
    ];
    Project::new(&name.to_lowercase(), &files)
}

/// The build's standard error. It must succeed.
fn build(project: &Project, arguments: &[&str]) -> Result<String> {
    Ok(try_build(project, arguments)?.success()?.stderr)
}

fn try_build(project: &Project, arguments: &[&str]) -> Result<Ended> {
    let context = project.request.context.to_string_lossy().into_owned();
    let arguments: Vec<String> = arguments
        .iter()
        .map(|text| text.replace("@CONTEXT@", &context))
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    project.try_build(&arguments)
}

fn why(project: &Project, arguments: &[&str]) -> Result<String> {
    let all = ["why"].iter().chain(arguments).copied();
    Ok(project.kiln.run(all)?.success()?.stdout)
}

/// What differs from run to run.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for (at, piece) in text.split("sha256:").enumerate() {
        let digits = piece.bytes().take_while(u8::is_ascii_hexdigit).count();
        if at > 0 {
            masked.push_str("sha256:…");
            masked.push_str(&piece[digits..]);
        } else {
            masked.push_str(piece);
        }
    }
    match masked.split_once("(saved ") {
        Some((before, rest)) => {
            let after = rest.split_once("s)").map_or("", |(_, after)| after);
            format!("{before}(saved …s){after}")
        }
        None => masked,
    }
}

fn check(row: &Row) -> TestResult {
    let project = project(row.name, row.dockerfile)?;
    if row.dockerfile.starts_with("FROM base:1") {
        base(&project, "one")?;
    }
    // One row is about a build that fails at first.
    try_build(&project, row.arguments[0])?;
    (row.change)(&project)?;
    let built = build(&project, row.arguments[1])?;
    let found = masked(&why(&project, &[])?);
    ensure!(
        found == row.expected,
        "found:\n{found}\nexpected:\n{}\nthe build said:\n{built}",
        row.expected
    );
    // What `--explain` would say costs nothing where nothing ran.
    ensure!(
        built.contains("\nwhy: ") == (row.expected != NOTHING),
        "the summary:\n{built}"
    );
    Ok(Outcome::Passed)
}

fn of_one_step() -> TestResult {
    let project = project("why-one-step", COPY)?;
    build(&project, &[])?;
    project.write("pkg.txt", "two\n")?;
    build(&project, &[])?;
    let by_words = why(&project, &["COPY"])?;
    ensure!(
        by_words.contains("pkg.txt changed") && !by_words.contains("RUN ls"),
        "{by_words}"
    );
    let by_number = why(&project, &["3"])?;
    ensure!(by_number == by_words, "{by_number}");
    let json: serde_json::Value = serde_json::from_str(&why(&project, &["--format", "json"])?)?;
    let first = &json["steps"][0];
    ensure!(first["why"]["cause"] == "changed" && first["line"] == 2, "{json}");
    let files = &first["why"]["differences"][0];
    ensure!(
        files["what"] == "files" && files["changes"]["changed"] == 1,
        "{files}"
    );
    ensure!(files["changes"]["first"][0][0] == "pkg.txt", "{files}");
    let missing = project.kiln.run(["why", "RUN nosuch"])?;
    ensure!(
        missing.code != Some(0) && missing.stderr.contains("has no step RUN nosuch"),
        "{missing:?}"
    );
    let earlier = project.kiln.run(["builds", "ls", "-q"])?.success()?.stdout;
    let first_build = earlier.lines().last().unwrap_or_default();
    let text = why(&project, &["--build", first_build])?;
    ensure!(text.contains("no earlier record"), "{text}");
    Ok(Outcome::Passed)
}

fn summary() -> TestResult {
    let project = project("why-summary", COPY)?;
    let first = build(&project, &[])?;
    ensure!(
        first
            .trim_end()
            .ends_with("why: no earlier build of this Dockerfile and target"),
        "{first}"
    );
    project.write("pkg.txt", "two\n")?;
    project.write("new.txt", "new\n")?;
    let second = build(&project, &["--explain"])?;
    let line = "\nwhy: [2/3] COPY . /src/: pkg.txt changed, new.txt added (1 more step ran)\n";
    ensure!(second.contains(line), "{second}");
    ensure!(
        second.contains("[3/3] RUN ls /src > /list  (Dockerfile:3)\n    after"),
        "{second}"
    );
    project.write("pkg.txt", "three\n")?;
    let mut command = project.kiln.command(["build", "--progress", "rawjson"]);
    let json = kiln_e2e::builder::run(command.arg(&project.request.context))?
        .success()?
        .stderr;
    let told = json
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|line| line.get("summary").is_some());
    let told = told.unwrap_or_default();
    ensure!(
        told["summary"]["why"][0]["differences"][0]["what"] == "files",
        "{json}"
    );
    let quiet = build(&project, &["-q", "--no-cache"])?;
    ensure!(!quiet.contains("why:"), "{quiet}");
    Ok(Outcome::Passed)
}

/// All files below `root`, by their paths in it.
fn files_below(root: &std::path::Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                names.push(entry.path().strip_prefix(root)?.to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

fn cached_build() -> TestResult {
    let project = project("why-cached", STAGES)?;
    build(&project, &[])?;
    build(&project, &[])?;
    let before = files_below(&project.kiln.root)?;
    build(&project, &[])?;
    let new: Vec<String> = files_below(&project.kiln.root)?
        .into_iter()
        .filter(|name| !before.contains(name) && !name.starts_with("index/") && !name.starts_with("tmp/"))
        .collect();
    ensure!(
        matches!(new.as_slice(), [one] if one.strip_suffix(".json").is_some_and(|id| id.starts_with("builds/"))),
        "a cached build left {new:?}"
    );
    Ok(Outcome::Passed)
}

fn folded() -> TestResult {
    let project = project("why-folded", COPY)?;
    for folder in 0..90 {
        for file in 0..100 {
            project.write(&format!("many/{folder}/{file}"), "x")?;
        }
    }
    build(&project, &[])?;
    project.write("many/17/4", "y")?;
    build(&project, &[])?;
    let text = why(&project, &["COPY"])?;
    ensure!(text.contains("    many/17 changed\n"), "{text}");
    Ok(Outcome::Passed)
}

fn result_gone() -> TestResult {
    let project = project("why-gone", "FROM busybox:latest\nRUN echo x > /x\n")?;
    let layers = || -> Result<Vec<std::path::PathBuf>> {
        let entries = std::fs::read_dir(project.kiln.root.join("layers"))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let of_base = layers()?;
    build(&project, &[])?;
    for layer in layers()?.iter().filter(|layer| !of_base.contains(layer)) {
        std::fs::remove_dir_all(layer)?;
    }
    build(&project, &[])?;
    let text = why(&project, &[])?;
    ensure!(text.contains("its layer is no longer in the store"), "{text}");
    Ok(Outcome::Passed)
}
