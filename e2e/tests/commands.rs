//! The commands: what they print where, in which columns, and how they end.

use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine;
use kiln_e2e::progress::{self, End};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::io::Write as _;
use std::process::{ExitCode, Stdio};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("progress plain has the known lines", progress_plain),
        ("progress rawjson is JSON lines", progress_rawjson),
        ("progress goes to stderr, results to stdout", streams),
        ("failed step shows its end and keeps its log", failed_step_log),
        ("exit codes of build", exit_codes_of_build),
        ("exit codes of run", exit_codes_of_run),
        ("iidfile and quiet name the image", iidfile_and_quiet),
        ("several tags", several_tags),
        ("images has docker's columns", images_columns),
        ("tag and rmi", tag_and_rmi),
        ("inspect is docker's JSON", inspect),
        ("history has docker's columns", history_columns),
        ("version and info", version_and_info),
        ("run takes environment, folder, user and entrypoint", run_options),
        ("run binds folders", run_binds),
        ("run passes stdin and large output", run_streams),
        ("run leaves nothing behind", run_leaves_nothing),
        ("import takes a stream and changes", import_changes),
        ("export is taken by skopeo, umoci and crun", export_is_taken),
        ("partial lines and bytes of a step stay intact", step_output),
    ];
    trial::run_all("commands", tests)
}

fn hello(name: &str) -> Result<Project> {
    let dockerfile = "FROM busybox:latest AS first\nRUN echo hello from the step\nFROM first\nCOPY f /f\nENV A=b\nCMD [\"cat\", \"/f\"]\n";
    Project::new(name, &[("Dockerfile", dockerfile), ("f", "content\n")])
}

fn progress_plain() -> TestResult {
    let project = hello("plain")?;
    let ended = project.try_build(&[])?.success()?;
    let vertices = progress::vertices(&ended.stderr);
    let run = vertices
        .iter()
        .find(|vertex| vertex.step() == Some("RUN echo hello from the step"));
    let run = run.ok_or_else(|| format!("no vertex for the step:\n{}", ended.stderr))?;
    ensure!(
        run.name.starts_with("[first "),
        "the stage's name is not shown: {}",
        run.name
    );
    ensure!(run.end == Some(End::Done), "the step did not end: {run:?}");
    ensure!(
        run.output == ["hello from the step"],
        "the output is {:?}",
        run.output
    );
    let unended: Vec<_> = vertices.iter().filter(|vertex| vertex.end.is_none()).collect();
    ensure!(unended.is_empty(), "vertices without an end: {unended:?}");
    let again = project.try_build(&[])?.success()?;
    ensure!(
        progress::cached(&again.stderr).len() == 2,
        "not two CACHED lines:\n{}",
        again.stderr
    );
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo doomed; exit 3\n")?;
    let failed = project.try_build(&[])?.failure(1)?;
    let vertices = progress::vertices(&failed);
    ensure!(
        vertices.iter().any(|vertex| vertex.end == Some(End::Failed)),
        "no ERROR line:\n{failed}"
    );
    Ok(Outcome::Passed)
}

fn progress_rawjson() -> TestResult {
    let project = hello("rawjson")?;
    let mut command = project
        .kiln
        .command(["build", "--progress", "rawjson", "-t", "x"]);
    let ended = run(command.arg(&project.request.context))?.success()?;
    let mut text = String::new();
    for line in ended.stderr.lines() {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("{error} in line {line:?}"))?;
        ensure!(value.is_object(), "line {line:?} is no object");
        text += line;
    }
    ensure!(
        text.contains("RUN echo hello"),
        "no event names the step:\n{text}"
    );
    Ok(Outcome::Passed)
}

fn streams() -> TestResult {
    let project = hello("streams")?;
    let built = project.try_build(&[])?.success()?;
    ensure!(
        !built.stdout.contains('#'),
        "progress on stdout: {}",
        built.stdout
    );
    let ran = project.kiln.run(["run", "--rm", "streams:test"])?.success()?;
    ensure!(ran.stdout == "content\n", "stdout is {:?}", ran.stdout);
    ensure!(ran.stderr.is_empty(), "stderr is {:?}", ran.stderr);
    Ok(Outcome::Passed)
}

fn failed_step_log() -> TestResult {
    let lines =
        "FROM busybox:latest\nRUN i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; exit 9\n";
    let project = Project::new("failed-log", &[("Dockerfile", lines)])?;
    let mut command = project
        .kiln
        .command(["build", "--progress", "quiet", "-t", "failed-log:test"]);
    let stderr = run(command.arg(&project.request.context))?.failure(1)?;
    ensure!(
        stderr.contains("line 499"),
        "the last lines are not shown:\n{stderr}"
    );
    ensure!(
        stderr.contains("exit code: 9") || stderr.contains("exit code 9"),
        "no exit code:\n{stderr}"
    );
    let hint = stderr
        .lines()
        .find_map(|line| line.split_once("kiln builds logs "));
    let (_, id) = hint.ok_or_else(|| format!("how to see the full log is not told:\n{stderr}"))?;
    let text = project.kiln.run(["builds", "logs", id.trim()])?.success()?.stdout;
    ensure!(
        text.contains("line 0\n") && text.contains("line 499"),
        "the log of build {id} is not full"
    );
    Ok(Outcome::Passed)
}

fn exit_codes_of_build() -> TestResult {
    let project = Project::new(
        "exit-build",
        &[("Dockerfile", "FROM busybox:latest\nRUN exit 42\n")],
    )?;
    project.try_build(&[])?.failure(1)?;
    let usage = project.try_build(&["--no-such-flag"])?.failure(2)?;
    ensure!(
        usage.contains("--no-such-flag"),
        "the flag is not named:\n{usage}"
    );
    project.kiln.run(["build"])?.failure(2)?;
    project.kiln.run(["no-such-command"])?.failure(2)?;
    let missing = project.kiln.run(["build", "/no/such/context"])?.failure(1)?;
    ensure!(
        missing.contains("/no/such/context"),
        "the context is not named:\n{missing}"
    );
    Ok(Outcome::Passed)
}

fn exit_codes_of_run() -> TestResult {
    let project = hello("exit-run")?;
    project.build(&[])?;
    let run = |arguments: &[&str]| -> Result<Ended> {
        project
            .kiln
            .run(["run", "--rm"].iter().chain(arguments).map(ToString::to_string))
    };
    run(&["exit-run:test", "true"])?.failure(0)?;
    run(&["exit-run:test", "sh", "-c", "exit 7"])?.failure(7)?;
    run(&["exit-run:test", "sh", "-c", "sh -c 'kill -15 $$'; exit $?"])?.failure(143)?;
    run(&["exit-run:test", "/etc/passwd"])?.failure(126)?;
    run(&["exit-run:test", "no-such-program"])?.failure(127)?;
    let unknown = run(&["127.0.0.1:1/none:none"])?.failure(125)?;
    ensure!(
        unknown.contains("127.0.0.1:1/none"),
        "the image is not named:\n{unknown}"
    );
    run(&["--no-such-flag", "exit-run:test"])?.failure(125)?;
    Ok(Outcome::Passed)
}

fn image_id(project: &Project, name: &str) -> Result<String> {
    let ended = project.kiln.run(["inspect", name])?.success()?;
    let value: Value = serde_json::from_str(&ended.stdout)?;
    Ok(value[0]["Id"].as_str().ok_or("inspect shows no Id")?.to_owned())
}

fn iidfile_and_quiet() -> TestResult {
    let project = hello("iidfile")?;
    let file = project.scratch("iid");
    project
        .try_build(&["--iidfile", &file.display().to_string()])?
        .success()?;
    let id = image_id(&project, "iidfile:test")?;
    ensure!(
        std::fs::read_to_string(&file)? == id,
        "the file holds {:?}",
        std::fs::read_to_string(&file)?
    );
    let quiet = run(project
        .kiln
        .command(["build", "-q", "-t", "iidfile:test"])
        .arg(&project.request.context))?
    .success()?;
    ensure!(quiet.stdout == format!("{id}\n"), "-q prints {:?}", quiet.stdout);
    ensure!(quiet.stderr.is_empty(), "-q shows progress: {}", quiet.stderr);
    ensure!(project.image()?.id == id, "the export has another id");
    Ok(Outcome::Passed)
}

fn several_tags() -> TestResult {
    let project = hello("tags")?;
    project.build(&["-t", "second", "-t", "registry.example:5000/team/third:1.0"])?;
    let id = image_id(&project, "tags:test")?;
    for name in ["second:latest", "second", "registry.example:5000/team/third:1.0"] {
        ensure!(image_id(&project, name)? == id, "{name} is another image");
    }
    Ok(Outcome::Passed)
}

/// A table's header, split where its columns start, and its rows split at the same places.
fn table(text: &str, columns: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut lines = text.lines();
    let header = lines.next().ok_or("no header")?;
    let mut starts = Vec::new();
    let mut from = 0;
    for column in columns {
        let at = header[from..]
            .find(column)
            .ok_or_else(|| format!("no column {column} in {header:?}"))?
            + from;
        starts.push(at);
        from = at + column.len();
    }
    let words: Vec<&str> = header
        .split("  ")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    ensure!(words == columns, "the header is {header:?}");
    let cell = |line: &str, start: usize, end: usize| {
        line.chars()
            .skip(start)
            .take(end - start)
            .collect::<String>()
            .trim()
            .to_owned()
    };
    let row = |line: &str| {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX / 2]);
        starts
            .iter()
            .zip(ends)
            .map(|(start, end)| cell(line, *start, end))
            .collect()
    };
    Ok(lines.map(row).collect())
}

fn images_columns() -> TestResult {
    let project = hello("columns")?;
    project.build(&[])?;
    let id = image_id(&project, "columns:test")?;
    let short = id
        .trim_start_matches("sha256:")
        .chars()
        .take(12)
        .collect::<String>();
    let listed = project.kiln.run(["images"])?.success()?.stdout;
    let rows = table(&listed, &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"])?;
    let row = rows
        .iter()
        .find(|row| row[0] == "columns")
        .ok_or_else(|| format!("not listed:\n{listed}"))?;
    ensure!(
        row[1] == "test" && row[2] == short,
        "the row is {row:?}, the id {id}"
    );
    ensure!(
        row[3].ends_with("ago") && row[4].ends_with("MB"),
        "the row is {row:?}"
    );
    ensure!(
        rows.iter().any(|row| row[0] == "busybox" && row[1] == "latest"),
        "the base is not listed:\n{listed}"
    );
    let quiet = project.kiln.run(["images", "-q"])?.success()?.stdout;
    ensure!(
        quiet.lines().any(|line| line == short),
        "images -q prints {quiet:?}"
    );
    Ok(Outcome::Passed)
}

fn tag_and_rmi() -> TestResult {
    let project = hello("rmi")?;
    project.build(&[])?;
    let id = image_id(&project, "rmi:test")?;
    project.kiln.run(["tag", "rmi:test", "other:name"])?.success()?;
    ensure!(
        image_id(&project, "other:name")? == id,
        "the new name is another image"
    );
    let untagged = project.kiln.run(["rmi", "rmi:test"])?.success()?.stdout;
    ensure!(untagged.contains("Untagged: rmi:test"), "rmi prints {untagged:?}");
    project.kiln.run(["run", "--rm", "other:name"])?.success()?;
    let deleted = project.kiln.run(["rmi", "other:name"])?.success()?.stdout;
    ensure!(
        deleted.contains("Untagged: other:name") && deleted.contains(&format!("Deleted: {id}")),
        "rmi prints {deleted:?}"
    );
    let unknown = project.kiln.run(["rmi", "other:name"])?.failure(1)?;
    ensure!(
        unknown.to_lowercase().contains("no such image"),
        "rmi of nothing says {unknown:?}"
    );
    project.kiln.run(["tag", "none:none", "x"])?.failure(1)?;
    Ok(Outcome::Passed)
}

fn inspect() -> TestResult {
    let project = hello("inspect")?;
    project.build(&[])?;
    let shown = project.kiln.run(["inspect", "inspect:test"])?.success()?.stdout;
    let value: Value = serde_json::from_str(&shown)?;
    let image = &value[0];
    ensure!(
        image["RepoTags"] == serde_json::json!(["inspect:test"]),
        "RepoTags is {}",
        image["RepoTags"]
    );
    ensure!(image["Os"] == "linux", "Os is {}", image["Os"]);
    ensure!(
        image["Config"]["Cmd"] == serde_json::json!(["cat", "/f"]),
        "Config.Cmd is {}",
        image["Config"]["Cmd"]
    );
    ensure!(
        image["RootFS"]["Type"] == "layers",
        "RootFS is {}",
        image["RootFS"]
    );
    let layers = image["RootFS"]["Layers"].as_array().map(Vec::len);
    ensure!(
        layers == Some(project.image()?.diff_ids.len()),
        "RootFS.Layers is {}",
        image["RootFS"]["Layers"]
    );
    ensure!(
        image["Size"].as_u64().is_some_and(|size| size > 1_000_000),
        "Size is {}",
        image["Size"]
    );
    project.kiln.run(["inspect", "none:none"])?.failure(1)?;
    Ok(Outcome::Passed)
}

fn history_columns() -> TestResult {
    let project = hello("history")?;
    project.build(&[])?;
    let shown = project.kiln.run(["history", "history:test"])?.success()?.stdout;
    let rows = table(&shown, &["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"])?;
    ensure!(rows.len() >= 5, "{} rows:\n{shown}", rows.len());
    ensure!(
        rows[0][2].starts_with("CMD [\"cat\""),
        "the newest entry is not first:\n{shown}"
    );
    ensure!(rows[0][3] == "0B", "a CMD has a size:\n{shown}");
    ensure!(
        rows.iter().any(|row| row[2].contains("COPY f /f")),
        "no COPY:\n{shown}"
    );
    Ok(Outcome::Passed)
}

fn version_and_info() -> TestResult {
    let project = Project::with_bases("version", &[], &[])?;
    let version = project.kiln.run(["version"])?.success()?.stdout;
    ensure!(
        version.chars().any(|character| character.is_ascii_digit()),
        "version prints {version:?}"
    );
    let info = project.kiln.run(["info"])?.success()?.stdout;
    for word in ["overlay", "cgroup", "seccomp"] {
        ensure!(
            info.to_lowercase().contains(word),
            "info says nothing about {word}:\n{info}"
        );
    }
    Ok(Outcome::Passed)
}

fn run_options() -> TestResult {
    let project = hello("options")?;
    project.build(&[])?;
    let run = |arguments: &[&str]| -> Result<String> {
        let arguments = ["run", "--rm"].iter().chain(arguments).map(ToString::to_string);
        Ok(project.kiln.run(arguments)?.success()?.stdout)
    };
    let image = "options:test";
    ensure!(
        run(&["-e", "X=1", "-e", "A=c", image, "sh", "-c", "echo $X$A"])? == "1c\n",
        "-e"
    );
    ensure!(
        run(&["-w", "/new/folder", image, "pwd"])? == "/new/folder\n",
        "-w"
    );
    ensure!(
        run(&["-u", "33:100", image, "id", "-u"])? == "33\n",
        "-u with numbers"
    );
    ensure!(
        run(&["-u", "nobody", image, "id", "-g"])? == "65534\n",
        "-u with a name"
    );
    ensure!(
        run(&["--entrypoint", "echo", image, "a", "b"])? == "a b\n",
        "--entrypoint"
    );
    ensure!(
        run(&["--entrypoint", "pwd", image])? == "/\n",
        "--entrypoint drops CMD"
    );
    let hostname = run(&["--name", "somename", image, "hostname"])?;
    ensure!(!hostname.trim().is_empty(), "no hostname");
    ensure!(
        run(&[
            image,
            "sh",
            "-c",
            "ls /proc/1/cmdline && echo $$ && ls /dev/shm | wc -l"
        ])?
        .contains("\n1\n0"),
        "own pids"
    );
    Ok(Outcome::Passed)
}

fn run_binds() -> TestResult {
    let project = hello("binds")?;
    project.build(&[])?;
    let folder = project.scratch("bound");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("in"), "from outside\n")?;
    let volume = format!("{}:/mnt/v", folder.display());
    let seen = project.kiln.run([
        "run",
        "--rm",
        "-v",
        &volume,
        "binds:test",
        "sh",
        "-c",
        "cat /mnt/v/in; echo x > /mnt/v/out",
    ])?;
    ensure!(seen.success()?.stdout == "from outside\n", "the file is not seen");
    ensure!(
        std::fs::read_to_string(folder.join("out"))? == "x\n",
        "the write is not seen"
    );
    let read_only = format!("{volume}:ro");
    let refused = project.kiln.run([
        "run",
        "--rm",
        "-v",
        &read_only,
        "binds:test",
        "touch",
        "/mnt/v/no",
    ])?;
    ensure!(
        refused.code == Some(1) && !folder.join("no").exists(),
        "a read-only bind was written: {refused:?}"
    );
    Ok(Outcome::Passed)
}

fn run_streams() -> TestResult {
    let project = hello("stdin")?;
    project.build(&[])?;
    let mut command = project.kiln.command([
        "run",
        "--rm",
        "-i",
        "stdin:test",
        "sh",
        "-c",
        "wc -c; head -c 3000000 /dev/zero | tr '\\0' x",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let writer = std::thread::spawn(move || stdin.write_all(&vec![b'y'; 1_000_000]));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "the writer panicked")??;
    let ended = Ended::from(output).success()?;
    let (count, rest) = ended.stdout.split_once('\n').ok_or("no line")?;
    ensure!(count.trim() == "1000000", "the process read {count:?} bytes");
    ensure!(rest.len() == 3_000_000, "{} bytes came out", rest.len());
    Ok(Outcome::Passed)
}

fn run_leaves_nothing() -> TestResult {
    let project = hello("leaves")?;
    project.build(&[])?;
    let before = folder_size(&project.kiln.root)?;
    for _ in 0..3 {
        let script = "head -c 1000000 /dev/zero > /big && wc -c < /big";
        let ran = project
            .kiln
            .run(["run", "--rm", "leaves:test", "sh", "-c", script])?
            .success()?;
        ensure!(
            ran.stdout.trim() == "1000000",
            "the container printed {:?}",
            ran.stdout
        );
    }
    let after = folder_size(&project.kiln.root)?;
    ensure!(
        after < before + 500_000,
        "the store grew from {before} to {after} bytes"
    );
    let mounts = machine::mounts_naming(&project.kiln.root)?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    Ok(Outcome::Passed)
}

/// Bytes in a folder; files that an ordinary user may not look into count nothing.
fn folder_size(folder: &std::path::Path) -> Result<u64> {
    let mut size = 0;
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(0);
    };
    for entry in entries {
        let entry = entry?;
        let metadata = entry.path().symlink_metadata()?;
        size += if metadata.is_dir() {
            folder_size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(size)
}

fn import_changes() -> TestResult {
    let project = Project::with_bases("import", &[], &[])?;
    let base = kiln_e2e::base::base("busybox:latest")?;
    let mut command = project.kiln.command([
        "import",
        "--change",
        "ENV A=b c=d",
        "--change",
        "CMD [\"sh\", \"-c\", \"echo $A$c\"]",
        "--change",
        "WORKDIR /tmp",
        "-",
        "streamed:1",
    ]);
    let ended = run(command.stdin(std::fs::File::open(&base.tar)?))?.success()?;
    ensure!(
        ended.stdout.starts_with("sha256:"),
        "import prints {:?}",
        ended.stdout
    );
    ensure!(
        project.kiln.run(["run", "--rm", "streamed:1"])?.success()?.stdout == "bd\n",
        "the changes do not count"
    );
    let bad = project.scratch("bad.tar");
    std::fs::write(&bad, "no tar at all")?;
    let refused = run(project.kiln.command(["import"]).arg(&bad).arg("bad:1"))?;
    ensure!(
        refused.code == Some(1),
        "a file that is no tar was imported: {refused:?}"
    );
    Ok(Outcome::Passed)
}

fn export_is_taken() -> TestResult {
    let project = hello("export")?;
    project.build(&[])?;
    let archive = project.scratch("image.oci.tar");
    run(project
        .kiln
        .command(["save", "--format", "oci", "-o"])
        .arg(&archive)
        .arg("export:test"))?
    .success()?;
    let mut missing: Vec<&str> = ["skopeo", "umoci", "crun"]
        .into_iter()
        .filter(|name| machine::program(name).is_none())
        .collect();
    let layout = project.scratch("layout");
    std::fs::create_dir(&layout)?;
    run(machine::command("tar", &layout)
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout))?
    .success()?;
    if let Some(skopeo) = machine::program("skopeo") {
        let source = format!("oci:{}:test", layout.display());
        let shown = run(machine::command(&skopeo, &layout).args(["inspect", &source]))?.success()?;
        let value: Value = serde_json::from_str(&shown.stdout)?;
        let layers = value["Layers"].as_array().map(Vec::len);
        ensure!(
            layers == Some(project.image()?.diff_ids.len()),
            "skopeo sees {layers:?} layers"
        );
        let target = format!("oci:{}:copy", project.scratch("copied").display());
        run(machine::command(&skopeo, &layout).args(["--insecure-policy", "copy", "-q", &source, &target]))?
            .success()?;
    }
    if let Some(umoci) = machine::program("umoci") {
        let bundle = project.scratch("bundle");
        let image = format!("{}:test", layout.display());
        let mut command = machine::command(&umoci, &layout);
        command.arg("unpack");
        if !machine::is_root() {
            command.arg("--rootless");
        }
        run(command.args(["--image", &image]).arg(&bundle))?.success()?;
        ensure!(
            std::fs::read_to_string(bundle.join("rootfs/f"))? == "content\n",
            "umoci unpacked another file"
        );
        match machine::program("crun") {
            Some(crun) if machine::is_root() => {
                relax(&bundle.join("config.json"))?;
                let state = project.scratch("crun");
                // Debian's crun runs only where cgroup v2 is all there is, so it gets a view of its own in which that
                // is so; nothing of it is seen outside.
                let script = "mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null; exec \"$@\"";
                let mut command = machine::command("unshare", &layout);
                command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
                command.arg(&crun).arg("--root").arg(&state).args([
                    "--cgroup-manager",
                    "disabled",
                    "run",
                    "--bundle",
                ]);
                let ended = run(command.arg(&bundle).arg("kiln-e2e-export"))?.success()?;
                ensure!(
                    ended.stdout.contains("content"),
                    "the container printed {:?}",
                    ended.stdout
                );
            }
            Some(_) => missing.push("crun (needs root)"),
            None => {}
        }
    }
    if missing.is_empty() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Skipped(format!(
        "partly: without {}",
        missing.join(", ")
    )))
}

/// umoci's bundle asks for a terminal and for limits that not every machine may set.
fn relax(config: &std::path::Path) -> Result<()> {
    let mut spec: Value = serde_json::from_slice(&std::fs::read(config)?)?;
    spec["process"]["terminal"] = Value::Bool(false);
    if let Some(process) = spec["process"].as_object_mut() {
        process.remove("rlimits");
    }
    Ok(std::fs::write(config, serde_json::to_vec(&spec)?)?)
}

fn step_output() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN printf 'no newline'; sleep 0.3; printf ' at first\\nlong '; head -c 70000 /dev/zero | tr '\\0' y; printf '\\nerr' >&2; exit 0\n";
    let project = Project::new("step-output", &[("Dockerfile", dockerfile)])?;
    let ended = project.try_build(&[])?.success()?;
    let vertices = progress::vertices(&ended.stderr);
    let output: Vec<&String> = vertices.iter().flat_map(|vertex| &vertex.output).collect();
    ensure!(
        output.iter().any(|line| *line == "no newline at first"),
        "a line was torn: {:?}",
        &output[..output.len().min(3)]
    );
    let long: usize = output.iter().map(|line| line.matches('y').count()).sum();
    ensure!(long == 70_000, "{long} of 70000 bytes of a long line are shown");
    ensure!(
        output.iter().any(|line| *line == "err"),
        "the last line, without its end, is not shown"
    );
    Ok(Outcome::Passed)
}
