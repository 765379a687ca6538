//! What the command line lends to steps, allows them and lets them use: and that no secret is ever found again.

use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("found nowhere after a build", found_nowhere_after_success),
        ("found nowhere after a failed build", found_nowhere_after_failure),
        ("masked in every output", masked_in_every_output),
        ("what decides about the cache", what_decides_about_the_cache),
        ("a secret that cannot be had", secret_that_cannot_be_had),
        ("agent of the host", agent_of_the_host),
        ("agent for key files", agent_for_key_files),
        ("agents that cannot be had", agents_that_cannot_be_had),
        ("memory limit", memory_limit),
        ("processor limits", processor_limits),
        ("parent of control groups", cgroup_parent),
        ("limits that cannot be raised", limits_that_cannot_be_raised),
        ("flags without a meaning", flags_without_a_meaning),
    ];
    trial::run_all("secrets", tests)
}

/// Two values that JSON has to escape, one of several lines. Nothing else on the machine has them.
const TOKEN: &str = "q9\"Zx\\kiln-e2e-token\t7Vw3";
const KEY: &str =
    "-----BEGIN E2E KEY-----\nkQ8vXzT2mB5nR7wLpY4c\nhJ6dF3sG9aKq1eUoIiNt\n-----END E2E KEY-----\n";

/// A build in which steps use secrets in all ways, and print them.
const LEAKY: &str = r#"FROM busybox:latest
RUN --mount=type=secret,id=key --mount=type=secret,id=token,target=/tmp/token,mode=0444 \
    --mount=type=secret,id=token,env=TOKEN \
    test "$TOKEN" = "$(cat /tmp/token)" && wc -c < /run/secrets/key > /size && \
    cat /run/secrets/key /tmp/token >&2 && echo "the token is [$TOKEN]" && sed 's/^/  /' /run/secrets/key
RUN --mount=type=secret,id=token,env=TOKEN printf %s "$TOKEN" | base64 && env && \
    (printf %s "$TOKEN" | head -c 9; sleep 0.1; printf %s "$TOKEN" | tail -c +10) && echo
"#;

/// A project with the Dockerfile and both secrets beside the context.
fn project(name: &str, dockerfile: &str) -> Result<Project> {
    let project = Project::new(name, &[("Dockerfile", dockerfile)])?;
    std::fs::write(project.scratch("key"), KEY)?;
    Ok(project)
}

/// `kiln build` with both secrets, and this progress.
fn build(project: &Project, progress: &str, arguments: &[&str]) -> Result<Ended> {
    let mut command = project
        .kiln
        .command(["build", "--progress", progress, "-t", &project.request.tag]);
    command
        .env("MY_TOKEN", TOKEN)
        .arg("--secret")
        .arg(format!("id=key,src={}", project.scratch("key").display()))
        .args(["--secret", "id=token,env=MY_TOKEN"])
        .args(arguments)
        .arg(&project.request.context);
    run(&mut command)
}

/// All forms in which the bytes of a value could be kept: as they are, as text of JSON, in hexadecimal, and in base64
/// however the bytes around it shift it.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(value);
    let json = serde_json::to_string(&text).unwrap_or_default();
    let mut hexadecimal = String::new();
    for byte in value {
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
        hexadecimal.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    let mut forms = vec![
        value.to_vec(),
        json.as_bytes()[1..json.len() - 1].to_vec(),
        hexadecimal.to_uppercase().into_bytes(),
        hexadecimal.into_bytes(),
    ];
    for shift in 0..3 {
        let shifted = [&[0_u8; 2][..shift.min(2)], value].concat();
        let encoded = base64(&shifted);
        // Digits that depend on what is before or after tell nothing.
        let first = if shift == 0 { 0 } else { 4 };
        let last = shifted.len() / 3 * 4;
        forms.push(encoded[first..last].to_vec());
    }
    forms
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for group in bytes.chunks(3) {
        let mut padded = [0; 3];
        padded[..group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        out.extend((0..4).map(|digit| DIGITS[(number >> (18 - 6 * digit)) as usize & 63]));
    }
    out
}

/// Everything that must not be found: the token, and each line of the key that is not its frame.
fn needles() -> Vec<Vec<u8>> {
    let lines = KEY.lines().filter(|line| !line.starts_with('-'));
    lines
        .chain([TOKEN])
        .flat_map(|value| forms(value.as_bytes()))
        .collect()
}

/// Fails if a secret is in the bytes, or in what they are compressed from.
fn scan(place: &str, bytes: &[u8]) -> Result<()> {
    for needle in needles() {
        let found = bytes.windows(needle.len()).any(|window| window == needle);
        ensure!(
            !found,
            "{place} has a secret, as {:?}",
            String::from_utf8_lossy(&needle)
        );
    }
    let mut inner = Vec::new();
    let is_compressed = match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes)
            .read_to_end(&mut inner)
            .is_ok(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            inner = zstd::stream::decode_all(bytes)?;
            true
        }
        _ => false,
    };
    if is_compressed {
        scan(&format!("{place} (unpacked)"), &inner)?;
    }
    Ok(())
}

/// Scans all files below a folder but those of the base image, and all their names. Tells how many there are.
fn scan_folder(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        scan("a file's name", path.as_os_str().as_encoded_bytes())?;
        if metadata.is_dir() {
            // An ordinary user may not look into folders of its sub-ids; the base image has some.
            if std::fs::read_dir(&path).is_ok() {
                count += scan_folder(&path)?;
            }
        } else if metadata.is_file() && metadata.len() < 1_000_000 {
            // The base image's programs, which are larger, were there before.
            if let Ok(bytes) = std::fs::read(&path) {
                scan(&path.display().to_string(), &bytes)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Fails if a secret is anywhere in the store or in what a command printed.
fn scan_all(project: &Project, printed: &[&Ended]) -> Result<()> {
    for ended in printed {
        scan("standard output", ended.stdout.as_bytes())?;
        scan("standard error", ended.stderr.as_bytes())?;
    }
    let files = scan_folder(&project.kiln.root)?;
    ensure!(files > 10, "only {files} files were scanned");
    Ok(())
}

fn found_nowhere_after_success() -> TestResult {
    // The scan finds what is there.
    for text in [
        format!("x{TOKEN}x"),
        serde_json::to_string(&format!("{TOKEN}x"))?,
        String::from_utf8(base64(format!("ab{TOKEN}abc").as_bytes()))?,
    ] {
        ensure!(scan("", text.as_bytes()).is_err(), "{text} was not found");
    }
    let project = project("secret-success", LEAKY)?;
    let mut printed = Vec::new();
    for progress in ["plain", "rawjson", "quiet"] {
        printed.push(build(&project, progress, &["--no-cache"])?.success()?);
    }
    ensure!(project.image()?.diff_ids.len() == 3, "steps are missing");
    ensure!(
        project.shell("cat /size")?.trim() == KEY.len().to_string(),
        "the step saw another secret"
    );
    for arguments in [
        vec!["history", "--no-trunc", &project.request.tag],
        vec!["inspect", &project.request.tag],
        vec!["images"],
    ] {
        printed.push(project.kiln.run(arguments)?.success()?);
    }
    for format in ["oci", "docker"] {
        let archive = project.scratch("saved.tar");
        let command = ["save", "--format", format, "-o"];
        run(project
            .kiln
            .command(command)
            .arg(&archive)
            .arg(&project.request.tag))?
        .success()?;
        let unpacked = project.scratch(format);
        tar::Archive::new(std::fs::File::open(&archive)?).unpack(&unpacked)?;
        ensure!(scan_folder(&unpacked)? > 3, "the archive was not scanned");
    }
    scan_all(&project, &printed.iter().collect::<Vec<_>>())?;
    Ok(Outcome::Passed)
}

fn found_nowhere_after_failure() -> TestResult {
    let failing =
        format!("{LEAKY}RUN --mount=type=secret,id=token,env=TOKEN echo \"$TOKEN\"; nosuch \"$TOKEN\"\n");
    let project = project("secret-failure", &failing)?;
    let mut printed = Vec::new();
    for progress in ["plain", "rawjson", "quiet"] {
        let ended = build(&project, progress, &["--no-cache"])?;
        ensure!(ended.code == Some(1), "the build did not fail:\n{}", ended.stderr);
        ensure!(
            ended.stderr.contains("****"),
            "the output is not shown:\n{}",
            ended.stderr
        );
        printed.push(ended);
    }
    let id = "id=token,src=/nosuch/file";
    let mut command = project.kiln.build_command(&project.request);
    let unreadable = run(command.env("TOKEN", TOKEN).args(["--secret", id]))?;
    ensure!(unreadable.code == Some(1), "the build did not fail");
    printed.push(unreadable);
    scan_all(&project, &printed.iter().collect::<Vec<_>>())?;
    Ok(Outcome::Passed)
}

fn masked_in_every_output() -> TestResult {
    let project = project("secret-masked", LEAKY)?;
    let ended = build(&project, "plain", &[])?.success()?;
    for expected in [
        "the token is [****]",
        "TOKEN=****",
        "test \"****\" = \"$(cat /tmp/token)\"",
    ] {
        ensure!(
            ended.stderr.contains(expected),
            "no {expected:?} in\n{}",
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}

fn what_decides_about_the_cache() -> TestResult {
    let dockerfile =
        "FROM busybox:latest\nRUN --mount=type=secret,id=token,env=T head -c 9 /dev/urandom > /x\n";
    let project = project("secret-cache", dockerfile)?;
    let ran = |token: &str, arguments: &[&str]| -> Result<bool> {
        let mut command = project.kiln.build_command(&project.request);
        command.env("TOKEN", token).args(arguments);
        let ended = run(&mut command)?.success()?;
        Ok(!kiln_e2e::progress::not_cached(&ended.stderr).is_empty())
    };
    let secret = ["--secret", "id=token,env=TOKEN"];
    ensure!(ran("one", &secret)?, "the first build ran nothing");
    let host = |value| [secret[0], secret[1], "--add-host", value];
    let hits: &[(&str, &str, Vec<&str>)] = &[
        ("another value", "two", secret.to_vec()),
        ("no secret", "one", Vec::new()),
        ("the size of /dev/shm", "one", vec!["--shm-size", "1m"]),
        ("an agent", "one", vec!["--ssh", "default=/etc/passwd"]),
        ("an entitlement", "one", vec!["--allow", "network.host"]),
    ];
    for (what, token, arguments) in hits {
        ensure!(!ran(token, arguments)?, "{what} is part of the key");
    }
    ensure!(
        ran("one", &host("db:10.0.0.1"))?,
        "a host's name is no part of the key"
    );
    ensure!(
        !ran("one", &host("db:10.0.0.2"))?,
        "a host's address is part of the key"
    );
    ensure!(
        ran("one", &host("dc:10.0.0.1"))?,
        "a host's name is no part of the key"
    );
    ensure!(
        ran("one", &["--ulimit", "core=0"])?,
        "a ulimit is no part of the key"
    );
    let hostname = ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=here"];
    ensure!(ran("one", &hostname)?, "the host name is no part of the key");
    project.write("Dockerfile", &dockerfile.replace("id=token", "id=other"))?;
    ensure!(ran("one", &secret)?, "a secret's id is no part of the key");
    Ok(Outcome::Passed)
}

fn secret_that_cannot_be_had() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN --mount=type=secret,id=big true\n";
    let project = project("secret-errors", dockerfile)?;
    std::fs::write(project.scratch("big"), vec![b'x'; 600_000])?;
    let big = format!("id=big,src={}", project.scratch("big").display());
    for (secret, code, expected) in [
        (big.as_str(), 1, "secret big too big"),
        (
            "id=big,src=/nosuch",
            1,
            "cannot read secret big from /nosuch: No such file or directory",
        ),
        ("id=big", 1, "there is neither a variable nor a file of that name"),
        ("id=big,source=/,type=file", 1, "cannot read secret big from /"),
        ("id=big,sauce=/nosuch", 2, "unexpected key 'sauce'"),
    ] {
        let ended = project.try_build(&["--secret", secret])?;
        ensure!(
            ended.code == Some(code) && ended.stderr.contains(expected),
            "{secret}: {:?}\n{}",
            ended.code,
            ended.stderr
        );
    }
    let unset = project
        .try_build(&["--secret", "id=big,env=KILN_E2E_UNSET"])?
        .success()?;
    ensure!(
        unset
            .stderr
            .contains("secret big is empty: the variable KILN_E2E_UNSET is not set"),
        "nothing is said of an unset variable:\n{}",
        unset.stderr
    );
    Ok(Outcome::Passed)
}

/// Asks the agent for its keys, tries to remove them all, and asks again.
const ASK: &str = r#"FROM python:3.11-slim
RUN cat > /ask.py <<'EOF'
import os, socket, struct
agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ["SSH_AUTH_SOCK"])
def ask(message):
    agent.sendall(struct.pack(">I", len(message)) + message)
    length = struct.unpack(">I", agent.recv(4, socket.MSG_WAITALL))[0]
    return agent.recv(length, socket.MSG_WAITALL)
keys = ask(bytes([11]))
assert keys[:5] == bytes([12, 0, 0, 0, 1]), keys
assert ask(bytes([19]))[0] == 5, "keys were removed"
assert ask(bytes([22]) + struct.pack(">I", 1) + b"x")[0] == 5, "the agent was locked"
assert ask(bytes([11])) == keys
size = struct.unpack(">I", keys[5:9])[0]
key = keys[9:9 + size]
signed = ask(bytes([13]) + struct.pack(">I", size) + key + struct.pack(">I", 4) + b"data" + struct.pack(">I", 0))
assert signed[0] == 14, signed[0]
print("signed with", key[4:15].decode())
EOF
USER nobody
RUN --mount=type=ssh,uid=65534,mode=0600 test "$(stat -c '%a %u' $SSH_AUTH_SOCK)" = "600 65534" && python3 /ask.py
RUN test ! -e /run/buildkit
"#;

/// A real agent that ends with the value.
struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path, key: &Path) -> Result<Self> {
        let socket = folder.join("agent");
        let process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()?;
        let agent = Self { process, socket };
        for _ in 0..100 {
            if agent.socket.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let mut add = Command::new("ssh-add");
        run(add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.socket))?.success()?;
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The project, and a key without passphrase; or why not.
fn agent_project(name: &str) -> Result<std::result::Result<(Project, PathBuf), Outcome>> {
    for program in ["ssh-agent", "ssh-add", "ssh-keygen"] {
        if machine::program(program).is_none() {
            return Ok(Err(Outcome::Skipped(format!("needs {program}"))));
        }
    }
    let project = Project::with_bases(name, &["python:3.11-slim"], &[("Dockerfile", ASK)])?;
    let key = project.scratch("id_ed25519");
    let mut command = Command::new("ssh-keygen");
    run(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?.success()?;
    Ok(Ok((project, key)))
}

fn agent_of_the_host() -> TestResult {
    let (project, key) = match agent_project("ssh-agent")? {
        Ok(found) => found,
        Err(skipped) => return Ok(skipped),
    };
    let agent = Agent::start(&project.scratch(""), &key)?;
    let mut command = project.kiln.build_command(&project.request);
    command
        .env("SSH_AUTH_SOCK", &agent.socket)
        .args(["--ssh", "default"]);
    let ended = run(&mut command)?.success()?;
    ensure!(
        ended.stderr.contains("signed with ssh-ed25519"),
        "{}",
        ended.stderr
    );
    let socket = format!("default={}", agent.socket.display());
    let ended = project.try_build(&["--no-cache", "--ssh", &socket])?.success()?;
    ensure!(
        ended.stderr.contains("signed with ssh-ed25519"),
        "{}",
        ended.stderr
    );
    Ok(Outcome::Passed)
}

fn agent_for_key_files() -> TestResult {
    let (project, key) = match agent_project("ssh-keys")? {
        Ok(found) => found,
        Err(skipped) => return Ok(skipped),
    };
    let keys = format!("default={}", key.display());
    let ended = project.try_build(&["--ssh", &keys])?.success()?;
    ensure!(
        ended.stderr.contains("signed with ssh-ed25519"),
        "{}",
        ended.stderr
    );
    let word = project.scratch("home").display().to_string();
    for _ in 0..50 {
        if machine::processes_naming(&word)?.is_empty() {
            return Ok(Outcome::Passed);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err(format!("left behind: {:?}", machine::processes_naming(&word)?).into())
}

fn agents_that_cannot_be_had() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN --mount=type=ssh true\n";
    let project = Project::new("ssh-errors", &[("Dockerfile", dockerfile)])?;
    // A socket that nobody listens at any more.
    let dead = project.scratch("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead)?);
    std::fs::write(project.scratch("empty"), "no key\n")?;
    let dead = format!("default={}", dead.display());
    let empty = format!("default={}", project.scratch("empty").display());
    for (agent, code, expected) in [
        ("default", 2, "SSH_AUTH_SOCK is not set"),
        (dead.as_str(), 1, "cannot connect to"),
        ("default=/nosuch", 1, "cannot read /nosuch"),
        (empty.as_str(), 1, "SSH agent default: "),
    ] {
        let ended = project.try_build(&["--ssh", agent])?;
        ensure!(
            ended.code == Some(code) && ended.stderr.contains(expected),
            "{agent}: {:?}\n{}",
            ended.code,
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}

/// Fails unless the build says that control groups cannot be used, which is so for ordinary users without delegation.
fn refused(ended: &Ended) -> TestResult {
    ensure!(
        ended.code == Some(1) && ended.stderr.contains("resource limits are not available here"),
        "limits were neither applied nor refused:\n{}",
        ended.stderr
    );
    Ok(Outcome::Passed)
}

fn memory_limit() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN echo first\nRUN tail /dev/zero\n";
    let project = Project::new("memory-limit", &[("Dockerfile", dockerfile)])?;
    let ended = project.try_build(&["--memory", "24m"])?;
    if !machine::is_root() {
        return refused(&ended);
    }
    for expected in [
        "exit code: 137 (out of memory)",
        "give it more with --memory",
        "Dockerfile:3",
    ] {
        ensure!(
            ended.stderr.contains(expected),
            "no {expected:?} in\n{}",
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}

fn processor_limits() -> TestResult {
    let script = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares \
                  /sys/fs/cgroup/cpuset/cpuset.cpus /sys/fs/cgroup/cpuset.cpus 2>/dev/null | tr '\\n' ' '";
    let dockerfile = format!("FROM busybox:latest\nRUN echo limits: $({script})\n");
    let project = Project::new("cpu-limit", &[("Dockerfile", &dockerfile)])?;
    let arguments = ["--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0"];
    let ended = project.try_build(&arguments)?;
    if !machine::is_root() {
        return refused(&ended);
    }
    // v1 and v2.
    let shown = ["limits: 50000 512 0", "limits: 50000 100000 0"];
    ensure!(
        ended
            .stderr
            .lines()
            .any(|line| shown.iter().any(|shown| line.ends_with(shown))),
        "the step saw other limits:\n{}",
        ended.stderr
    );
    Ok(Outcome::Passed)
}

fn cgroup_parent() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root".to_owned()));
    }
    let parent = format!("kiln-e2e-{}", std::process::id());
    let project = Project::new(
        "cgroup-parent",
        &[("Dockerfile", "FROM busybox:latest\nRUN true\n")],
    )?;
    project.build(&["--cgroup-parent", &format!("/{parent}/builds"), "-m", "64m"])?;
    let mut tops = vec![PathBuf::from("/sys/fs/cgroup")];
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")? {
        tops.push(hierarchy?.path());
    }
    let mut found = 0;
    for group in tops.iter().map(|top| top.join(&parent)) {
        if group.join("builds").is_dir() {
            found += 1;
            // The steps' groups are gone, else this fails.
            std::fs::remove_dir(group.join("builds"))?;
            std::fs::remove_dir(group)?;
        }
    }
    ensure!(found > 0, "no control group was made");
    let ended = project.try_build(&["--no-cache", "--cgroup-parent", "../up"])?;
    ensure!(
        ended.code == Some(1) && ended.stderr.contains("cgroup parent ../up is not supported"),
        "{}",
        ended.stderr
    );
    Ok(Outcome::Passed)
}

fn limits_that_cannot_be_raised() -> TestResult {
    let project = Project::new(
        "ulimits",
        &[("Dockerfile", "FROM busybox:latest\nRUN ulimit -n\n")],
    )?;
    let ended = project.try_build(&["--ulimit", "nofile=77:99"])?.success()?;
    ensure!(
        ended.stderr.lines().any(|line| line.ends_with(" 77")),
        "{}",
        ended.stderr
    );
    // More than any kernel gives, whoever asks.
    let ended = project.try_build(&["--ulimit", "nofile=4000000000"])?;
    ensure!(
        ended.code == Some(1) && ended.stderr.contains("ulimit nofile=4000000000"),
        "{}",
        ended.stderr
    );
    Ok(Outcome::Passed)
}

fn flags_without_a_meaning() -> TestResult {
    let project = Project::new("odd-flags", &[("Dockerfile", "FROM busybox:latest\n")])?;
    let accepted = ["--compress", "-D", "--isolation", "default", "--rm", "--force-rm"];
    let ended = project.try_build(&accepted)?.success()?;
    for expected in ["--compress does nothing", "--debug does nothing"] {
        ensure!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    for refused in [
        ["--isolation", "hyperv"],
        ["--security-opt", "x"],
        ["--squash", "--rm"],
    ] {
        let ended = project.try_build(&refused)?;
        ensure!(
            ended.code == Some(2),
            "{refused:?}: {:?}\n{}",
            ended.code,
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}
