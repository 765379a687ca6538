//! Real sandboxes, as root and as an ordinary user.
//!
//! The program has no test harness: it must call `main_if_init` before any thread starts, and enter
//! its namespaces while it is alone. Started as root, it runs all cases as root, and then itself
//! once more as an ordinary user.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::exit,
    reason = "a test"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};

use kiln_executor::emulation::{Support, support};
use kiln_executor::namespace::{EnterOptions, Entered, enter};
use kiln_executor::overlay::{self, Overlay};
use kiln_executor::runtime::{LinuxMemory, LinuxPids, LinuxResources, PosixRlimitBuilder, PosixRlimitType};
use kiln_executor::spec::{Bind, Network, SpecBuilder, default_for};
use kiln_executor::{
    Backend, Builtin, CommandError, Emulator, Error, ExitStatus, Running, Sandbox, Signal, Stdio, Stream,
    WindowSize, mountpoints,
};

const USER: &str = "kiln-executor-test";
const APPLETS: [&str; 26] = [
    "sh", "cat", "ls", "id", "test", "echo", "mount", "umount", "hostname", "sleep", "true", "false", "kill",
    "stat", "rm", "mkdir", "grep", "pwd", "tty", "stty", "env", "wc", "head", "touch", "dd", "readlink",
];

fn main() {
    kiln_executor::init::main_if_init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What a test harness would be asked for.
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    if !Path::new("/bin/busybox").exists() {
        println!("SKIPPED: needs /bin/busybox (package busybox-static)");
        return;
    }
    match arguments.first().map(String::as_str) {
        Some("hold") => hold(Path::new(&arguments[1])),
        Some("rootless") => run_all("rootless", &EnterOptions::default(), Path::new(&arguments[1])),
        Some("single") => {
            let options = EnterOptions {
                single_id: true,
                ..EnterOptions::default()
            };
            run_all("single id", &options, Path::new(&arguments[1]));
        }
        _ if rustix::process::geteuid().is_root() => {
            // As users first: afterwards this process has left the namespace that everybody shares.
            let scratch = scratch("root");
            as_users(&scratch);
            let own = scratch.join("root");
            fs::create_dir(&own).unwrap();
            run_all("root", &EnterOptions::default(), &own);
            fs::remove_dir_all(&scratch).unwrap();
        }
        _ => {
            println!("SKIPPED: needs root for the cases that run as root");
            let scratch = scratch("user");
            run_all("rootless", &EnterOptions::default(), &scratch);
        }
    }
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("executor-sandbox-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Runs this program as an ordinary user: with subordinate ids, and with one id only.
fn as_users(scratch: &Path) {
    if !Path::new("/usr/bin/newuidmap").exists() {
        println!("SKIPPED: needs newuidmap (package uidmap) for the cases of an ordinary user");
        return;
    }
    let made = Command::new("useradd")
        .args(["--no-create-home", USER])
        .status()
        .unwrap()
        .success();
    assert!(made || user_id().is_some(), "cannot make the user {USER}");
    let id = user_id().unwrap();
    let program = scratch.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut failed = Vec::new();
    for mode in ["rootless", "single"] {
        let directory = scratch.join(mode);
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::chown(&directory, Some(id), Some(id)).unwrap();
        let status = Command::new(&program)
            .arg(mode)
            .arg(&directory)
            .uid(id)
            .gid(id)
            .current_dir("/")
            .status()
            .unwrap();
        if !status.success() {
            failed.push(mode);
        }
    }
    let deleted = Command::new("userdel").arg(USER).status().unwrap().success();
    assert!(deleted, "cannot delete the user {USER}");
    assert!(failed.is_empty(), "failed as ordinary user: {failed:?}");
}

fn user_id() -> Option<u32> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd
        .lines()
        .find(|line| line.starts_with(&format!("{USER}:")))?;
    line.split(':').nth(2)?.parse().ok()
}

struct Context {
    backend: Builtin,
    entered: Entered,
    scratch: PathBuf,
    base: PathBuf,
    stub: PathBuf,
    count: AtomicUsize,
}

type Case = (&'static str, fn(&Context));

fn run_all(mode: &str, options: &EnterOptions, scratch: &Path) {
    let entered = enter(options).unwrap();
    println!("{mode}: {entered:?}");
    let base = scratch.join("base");
    rootfs(&base);
    let stub = scratch.join("stub");
    fs::create_dir(&stub).unwrap();
    mountpoints::write_stub_layer(&stub).unwrap();
    let backend = Builtin::new().unwrap();
    let context = Context {
        backend,
        entered,
        scratch: scratch.to_owned(),
        base,
        stub,
        count: AtomicUsize::new(0),
    };
    let mut failed = 0;
    for (name, case) in CASES {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&context)));
        println!(
            "{mode}: {name} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        failed += usize::from(result.is_err());
    }
    if failed > 0 {
        println!("{mode}: {failed} of {} cases failed", CASES.len());
        std::process::exit(1);
    }
}

const CASES: &[Case] = &[
    ("exit codes and signals", exit_codes),
    ("commands that cannot be executed", bad_commands),
    ("environment, directory and arguments", environment),
    ("output with partial lines", output),
    ("users and groups", users),
    ("capabilities", capabilities),
    ("seccomp", seccomp),
    ("namespaces and host name", namespaces),
    ("proc, sys and dev", special_filesystems),
    ("etc files leave no trace", etc_files),
    ("missing mountpoints leave no trace", missing_mountpoints),
    ("binds", binds),
    ("no network", no_network),
    ("terminal", terminal),
    ("limits of the process", rlimits),
    ("control groups", control_groups),
    ("no descriptors leak", descriptors),
    ("killing", killing),
    ("death of the parent", parent_death),
    ("overlays", overlays),
    ("an overlay on a full disk", overlay_on_a_full_disk),
    ("nothing is left of many", many),
    ("privileged", privileged),
    ("programs of another architecture", foreign),
];

fn rootfs(base: &Path) {
    for directory in ["bin", "tmp", "etc", "home"] {
        fs::create_dir_all(base.join(directory)).unwrap();
    }
    fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", base.join("bin").join(applet)).unwrap();
    }
    fs::write(
        base.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(base.join("bin/plain"), "not a program\n").unwrap();
    fs::write(base.join("bin/script"), "#!/no/such/interpreter\n").unwrap();
    fs::write(base.join("bin/denied"), "#!/bin/sh\n").unwrap();
    for name in ["plain", "script"] {
        fs::set_permissions(base.join("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

struct Root {
    fd: std::os::fd::OwnedFd,
    upper: PathBuf,
}

impl Context {
    fn root(&self) -> Root {
        self.root_of(&[self.base.clone(), self.stub.clone()])
    }

    fn root_of(&self, lowers: &[PathBuf]) -> Root {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let directory = self.scratch.join(format!("run{number}"));
        let (upper, work) = (directory.join("diff"), directory.join("work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let overlay = Overlay {
            lowers,
            upper: Some((&upper, &work)),
            volatile: true,
        };
        Root {
            fd: overlay::mount(&overlay).unwrap(),
            upper,
        }
    }

    fn start(&self, spec: SpecBuilder, stdio: Stdio) -> Result<Running, Error> {
        self.start_in(self.root(), spec, stdio)
    }

    fn start_in(&self, root: Root, spec: SpecBuilder, stdio: Stdio) -> Result<Running, Error> {
        self.start_emulated(root, spec, stdio, None)
    }

    fn start_emulated(
        &self,
        root: Root,
        spec: SpecBuilder,
        stdio: Stdio,
        emulator: Option<Emulator>,
    ) -> Result<Running, Error> {
        self.backend.start(Sandbox {
            id: "test".to_owned(),
            root: root.fd,
            spec: spec.build(),
            stdio,
            emulator,
        })
    }

    /// Runs a shell script; its status and output (both streams).
    fn script(&self, script: &str) -> (ExitStatus, String) {
        self.run(sh(script))
    }

    fn run(&self, spec: SpecBuilder) -> (ExitStatus, String) {
        self.run_in(self.root(), spec)
    }

    fn run_in(&self, root: Root, spec: SpecBuilder) -> (ExitStatus, String) {
        self.run_emulated(root, spec, None)
    }

    fn run_emulated(
        &self,
        root: Root,
        spec: SpecBuilder,
        emulator: Option<Emulator>,
    ) -> (ExitStatus, String) {
        let mut running = self.start_emulated(root, spec, Stdio::piped(), emulator).unwrap();
        let mut text = String::new();
        running.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        running.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (running.wait().unwrap(), text)
    }

    fn output(&self, script: &str) -> String {
        let (status, text) = self.script(script);
        assert!(status.success(), "{script}: {status}: {text}");
        text
    }

    fn full_ids(&self) -> bool {
        self.entered.ids == kiln_executor::namespace::IdMapping::Full
    }
}

fn sh(script: &str) -> SpecBuilder {
    default_for(["sh", "-c", script])
}

fn fds_of_self() -> Vec<PathBuf> {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn exit_codes(context: &Context) {
    assert_eq!(context.script("exit 0").0, ExitStatus::Code(0));
    assert_eq!(context.script("exit 42").0, ExitStatus::Code(42));
    // PID 1 cannot kill itself with a signal it has no handler for; another process can be.
    assert_eq!(context.script("sh -c 'kill -TERM $$'; exit $?").0.code(), 143);
    assert_eq!(ExitStatus::Signal(9).code(), 137);
    let running = context.start(default_for(["true"]), Stdio::piped()).unwrap();
    assert_eq!(running.wait().unwrap(), ExitStatus::Code(0));
    assert_eq!(running.wait().unwrap(), ExitStatus::Code(0), "waiting again");
    running.kill(Signal::SIGTERM).unwrap();
}

fn bad_commands(context: &Context) {
    let fail = |args: &[&str]| match context.start(default_for(args.iter().copied()), Stdio::piped()) {
        Err(error) => error,
        Ok(_) => panic!("{args:?} was executed"),
    };
    let error = fail(&["no-such-command"]);
    assert!(
        matches!(
            &error,
            Error::Command(CommandError::NotFound { path: Some(_), .. })
        ),
        "{error}"
    );
    assert_eq!(error.exit_code(), 127);
    assert!(matches!(
        fail(&["/no/such"]),
        Error::Command(CommandError::NotFound { path: None, .. })
    ));
    let error = fail(&["script"]);
    assert!(
        matches!(&error, Error::Command(CommandError::BadInterpreter { interpreter, .. })
            if interpreter == "/no/such/interpreter"),
        "{error}"
    );
    for name in ["plain", "/bin/denied", "denied", "/tmp"] {
        let error = fail(&[name]);
        assert!(
            matches!(&error, Error::Command(CommandError::NotExecutable { .. })),
            "{name}: {error}"
        );
        assert_eq!(error.exit_code(), 126);
    }
    let spec = default_for(["true"]).cwd("/no/such/directory");
    let error = context
        .start(spec, Stdio::piped())
        .expect_err("a missing directory");
    assert!(
        matches!(&error, Error::Command(CommandError::CwdMissing { .. })),
        "{error}"
    );
    let spec = default_for(["true"]).bind(Bind {
        source: "/no/such/source".into(),
        target: "/mnt".into(),
        read_only: true,
    });
    let error = context
        .start(spec, Stdio::piped())
        .expect_err("a missing source")
        .to_string();
    assert!(error.contains("/no/such/source"), "{error}");
}

fn environment(context: &Context) {
    let spec = default_for([
        "sh",
        "-c",
        "env; pwd; echo \"$0 $1\"; umask; echo $$",
        "zero",
        "a b",
    ]);
    let (_, text) = context.run(spec.env(["A=1", "PATH=/bin"]).cwd("/home"));
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("SHLVL") && !line.starts_with("PWD"))
        .collect();
    assert_eq!(lines, ["A=1", "PATH=/bin", "/home", "zero a b", "0022", "1"]);
}

fn output(context: &Context) {
    let stdio = Stdio::Streams {
        stdin: Stream::Pipe,
        stdout: Stream::Pipe,
        stderr: Stream::Pipe,
    };
    let mut running = context
        .start(sh("cat; echo -n partial; echo -n error >&2"), stdio)
        .unwrap();
    running.stdin.take().unwrap().write_all(b"in\r\nput").unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    running.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    running.stderr.take().unwrap().read_to_end(&mut err).unwrap();
    assert_eq!(out, b"in\r\nputpartial");
    assert_eq!(err, b"error");
    assert!(running.wait().unwrap().success());
}

fn users(context: &Context) {
    if !context.full_ids() {
        let error = context
            .start(sh("id").user(1000, 1000, []), Stdio::piped())
            .expect_err("one id");
        assert!(error.to_string().contains("not mapped"), "{error}");
        return;
    }
    let spec = sh(
        "id -u; id -g; id -G; echo x > /dev/null && echo x > /dev/stdout; touch /tmp/f; stat -c %u:%g /tmp/f",
    );
    let (status, text) = context.run(spec.user(1000, 1001, [7, 8]));
    assert!(status.success(), "{text}");
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["1000", "1001", "1001 7 8", "x", "1000:1001"]
    );
    let (_, text) = context.run(sh("grep -E 'Cap(Eff|Prm|Bnd)' /proc/self/status").user(1000, 1000, []));
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("CapPrm:\t0000000000000000"),
        "{text}"
    );
}

fn capabilities(context: &Context) {
    let text = context.output("grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status");
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\n";
    assert_eq!(text, expected);
    let (_, text) = context.run(sh("grep NoNewPrivs /proc/self/status").no_new_privileges(true));
    assert_eq!(text, "NoNewPrivs:\t1\n");
}

fn seccomp(context: &Context) {
    assert_eq!(
        context.output("grep ^Seccomp: /proc/self/status"),
        "Seccomp:\t2\n"
    );
    let (status, text) = context.script("mount -t tmpfs none /tmp");
    assert!(!status.success(), "{text}");
    let (_, text) = context.run(sh("grep ^Seccomp: /proc/self/status").seccomp(false));
    assert_eq!(text, "Seccomp:\t0\n");
    // With the capability but without the profile's consent: the filter alone says no.
    let mount = |filter: bool| {
        let spec = sh("mount -t tmpfs none /tmp");
        let mut spec = spec.build();
        let all = default_for(["true"]).privileged(true).build();
        let sets = all.process().as_ref().unwrap().capabilities().clone();
        spec.process_mut().as_mut().unwrap().set_capabilities(sets);
        if !filter {
            spec.linux_mut().as_mut().unwrap().set_seccomp(None);
        }
        let root = context.root().fd;
        let sandbox = Sandbox {
            id: "seccomp".to_owned(),
            root,
            spec,
            stdio: Stdio::piped(),
            emulator: None,
        };
        context.backend.start(sandbox).unwrap().wait().unwrap().success()
    };
    assert!(mount(false) && !mount(true));
}

fn namespaces(context: &Context) {
    let (_, text) = context.run(sh("hostname; ls /proc | grep -c '^[0-9]'").hostname("inside"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "inside");
    assert!(lines[1].parse::<u32>().unwrap() <= 4, "{text}");
    for name in ["pid", "ipc", "uts", "mnt", "cgroup"] {
        let inside = context.output(&format!("readlink /proc/self/ns/{name}"));
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(inside.trim(), outside.to_str().unwrap(), "{name}");
    }
    let inside = context.output("readlink /proc/self/ns/net");
    assert_eq!(
        inside.trim(),
        fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap()
    );
}

fn special_filesystems(context: &Context) {
    // Masked: empty, and never an error.
    assert_eq!(context.output("cat /proc/keys /proc/timer_list | wc -c"), "0\n");
    assert_eq!(context.output("ls /sys/firmware | wc -l"), "0\n");
    for script in [
        "echo 1 > /proc/sys/kernel/panic",
        "touch /sys/x",
        "echo b > /proc/sysrq-trigger",
    ] {
        let (status, text) = context.script(script);
        assert!(!status.success(), "{script}: {text}");
    }
    let dev = context.output("ls /dev");
    let expected = [
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
        "tty", "urandom", "zero",
    ];
    assert_eq!(dev.split_whitespace().collect::<Vec<_>>(), expected);
    assert_eq!(
        context.output("head -c 4 /dev/zero | wc -c; echo x > /dev/null; cat /dev/null"),
        "4\n"
    );
    assert_eq!(context.output("stat -c %a /dev /dev/shm"), "755\n1777\n");
    let (status, _) = context.script("dd if=/dev/zero of=/dev/shm/x bs=1M count=65 2>/dev/null");
    assert!(!status.success(), "/dev/shm is limited");
    assert_eq!(context.output("grep -c ' /proc/sys ' /proc/mounts"), "1\n");
    // The old root is gone.
    let mounts = context.output("cat /proc/mounts");
    assert!(!mounts.contains("ext4") && !mounts.contains("btrfs"), "{mounts}");
}

fn etc_files(context: &Context) {
    let resolv = context.scratch.join("resolv");
    fs::write(&resolv, "nameserver 192.0.2.1\n").unwrap();
    let root = context.root();
    let upper = root.upper.clone();
    let spec = sh("cat /etc/resolv.conf; echo changed > /etc/resolv.conf; touch /new");
    let (status, text) = context.run_in(root, spec.resolv_conf(&resolv).hosts(&resolv));
    assert!(status.success(), "{text}");
    assert_eq!(text, "nameserver 192.0.2.1\n");
    assert_eq!(fs::read_to_string(&resolv).unwrap(), "changed\n");
    assert_eq!(names(&upper), ["new"]);
    fs::remove_file(resolv).unwrap();
}

fn missing_mountpoints(context: &Context) {
    // No stub layer, and a dangling link with an absolute target in the image.
    let layer = context.scratch.join("dangling");
    fs::create_dir_all(layer.join("etc")).unwrap();
    symlink(
        "/run/systemd/resolve/stub-resolv.conf",
        layer.join("etc/resolv.conf"),
    )
    .unwrap();
    let resolv = context.scratch.join("resolv");
    fs::write(&resolv, "nameserver 192.0.2.2\n").unwrap();
    let root = context.root_of(&[layer, context.base.clone()]);
    let upper = root.upper.clone();
    let (status, text) = context.run_in(root, sh("cat /etc/resolv.conf; touch /new").resolv_conf(&resolv));
    assert!(status.success(), "{text}");
    assert_eq!(text, "nameserver 192.0.2.2\n");
    assert_eq!(names(&upper), ["new"]);
    assert!(
        !Path::new("/run/systemd/resolve/stub-resolv.conf").exists(),
        "the link leads into the root"
    );
    // What the process puts there is its own.
    let root = context.root_of(std::slice::from_ref(&context.base));
    let upper = root.upper.clone();
    let source = context.scratch.join("empty");
    fs::create_dir(&source).unwrap();
    let bind = Bind {
        source: source.clone(),
        target: "/a/b/c".into(),
        read_only: false,
    };
    let (status, text) = context.run_in(root, sh("touch /a/b/kept").bind(bind));
    assert!(status.success(), "{text}");
    assert_eq!(names(&upper.join("a/b")), ["kept"]);
    fs::remove_dir(source).unwrap();
    fs::remove_file(resolv).unwrap();
}

fn binds(context: &Context) {
    let source = context.scratch.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    let bind = |read_only| Bind {
        source: source.clone(),
        target: "/data".into(),
        read_only,
    };
    let (status, text) = context.run(sh("cat /data/file; echo x > /data/new").bind(bind(false)));
    assert!(status.success(), "{text}");
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "x\n");
    let (status, text) = context.run(sh("cat /data/file; echo x > /data/other").bind(bind(true)));
    assert!(!status.success() && text.contains("content"), "{text}");
    let (status, text) = context.run(sh("touch /x").read_only_root(true));
    assert!(!status.success(), "{text}");
    let (_, text) = context.run(sh("grep ' /scratch ' /proc/mounts").tmpfs("/scratch", &["size=1m"]));
    assert!(
        text.contains("tmpfs") && text.contains("size=1024k") && text.contains("nosuid"),
        "{text}"
    );
}

fn no_network(context: &Context) {
    let (status, text) = context.run(
        sh("cat /proc/net/dev; cat /sys/class/net/lo/operstate; cat /sys/class/net/lo/flags")
            .network(Network::None),
    );
    assert!(status.success(), "{text}");
    let interfaces: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    assert_eq!(interfaces, ["lo"], "{text}");
    assert!(text.trim_end().ends_with("0x9"), "lo is up: {text}");
}

fn terminal(context: &Context) {
    let size = WindowSize {
        rows: 33,
        columns: 77,
    };
    let spec = sh(
        "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo ok > /dev/console && echo ok > /dev/tty",
    );
    let user = if context.full_ids() { 1000 } else { 0 };
    let mut running = context
        .start(
            spec.user(user, user, []).terminal(Some(size)),
            Stdio::Terminal(Some(size)),
        )
        .unwrap();
    let mut text = Vec::new();
    // Ends with EIO.
    let _ = running.terminal.take().unwrap().read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, "/dev/pts/0\r\n33 77\r\nok\r\nok\r\n");
    assert!(running.wait().unwrap().success());
    let running = context
        .start(sh("sleep 0.2; stty size").terminal(None), Stdio::Terminal(None))
        .unwrap();
    running.resize(size).unwrap();
    let mut text = String::new();
    let _ = running.terminal.as_ref().unwrap().read_to_string(&mut text);
    assert_eq!(text.trim(), "33 77");
}

fn rlimits(context: &Context) {
    let limit = |soft: u64, hard: u64| {
        let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
        limit.soft(soft).hard(hard).build().unwrap()
    };
    let (_, text) = context.run(sh("ulimit -n; ulimit -H -n").rlimit(limit(100, 200)));
    assert_eq!(text, "100\n200\n");
    // More than this process may raise to: as much as possible.
    let (status, text) = context.run(sh("ulimit -n").rlimit(limit(1_000_000, 1_000_000)));
    assert!(
        status.success() && text.trim().parse::<u64>().unwrap() > 1000,
        "{text}"
    );
}

fn control_groups(context: &Context) {
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(64 << 20));
    let mut pids = LinuxPids::default();
    pids.set_limit(5);
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory)).set_pids(Some(pids));
    let fork =
        sh("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait; echo reached").resources(resources.clone());
    match context.start(fork, Stdio::piped()) {
        Err(Error::Cgroup(error)) if context.entered.user_namespace => {
            println!("SKIPPED: no control groups for an ordinary user: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
        Ok(mut running) => {
            let mut text = String::new();
            running.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert!(text.contains("can't fork"), "{text}");
            running.wait().unwrap();
        }
    }
    let hungry = sh("dd if=/dev/zero of=/dev/null bs=100M count=1; exit $?").resources(resources);
    let (status, text) = context.run(hungry);
    assert_eq!(status.code(), 137, "{text}");
    assert_eq!(context.backend.groups().sweep(), 0, "everything has been removed");
}

fn descriptors(context: &Context) {
    let leak = fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    // 0, 1, 2, and the one that ls itself reads the directory by.
    assert_eq!(context.output("ls /proc/self/fd | wc -l"), "4\n");
}

fn killing(context: &Context) {
    let running = context
        .start(
            sh("sleep 100 & trap 'exit 7' TERM; while :; do sleep 0.05; done"),
            Stdio::piped(),
        )
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(running.wait_timeout(Duration::from_millis(1)).unwrap(), None);
    running.kill(Signal::SIGTERM).unwrap();
    assert_eq!(running.wait().unwrap(), ExitStatus::Code(7));
    let running = context
        .start(default_for(["sleep", "100"]), Stdio::piped())
        .unwrap();
    running.kill_all().unwrap();
    assert_eq!(running.wait().unwrap(), ExitStatus::Signal(9));
    // Dropping kills, also from a thread that did not start it and after the starting thread ended.
    let running = std::thread::scope(|scope| {
        let start = || {
            context
                .start(default_for(["sleep", "100"]), Stdio::piped())
                .unwrap()
        };
        scope.spawn(start).join().unwrap()
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        running.wait_timeout(Duration::from_millis(1)).unwrap(),
        None,
        "it outlives the thread"
    );
    let pid = running.pid();
    drop(running);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Starts a sandbox that sleeps, says its process id, and waits to be killed.
fn hold(scratch: &Path) {
    let entered = enter(&EnterOptions::default()).unwrap();
    let backend = Builtin::new().unwrap();
    let (base, stub) = (scratch.join("base"), scratch.join("stub"));
    let scratch = scratch.join("hold");
    fs::create_dir(&scratch).unwrap();
    let context = Context {
        backend,
        entered,
        scratch,
        base,
        stub,
        count: AtomicUsize::new(0),
    };
    let user = if context.full_ids() { 1000 } else { 0 };
    let spec = sh("sleep 100 & sleep 100").user(user, user, []);
    let running = context.start(spec, Stdio::piped()).unwrap();
    println!("{}", running.pid());
    std::io::stdout().flush().unwrap();
    running.wait().unwrap();
}

fn parent_death(context: &Context) {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .arg("hold")
        .arg(&context.scratch)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(parent.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let process = PathBuf::from(format!("/proc/{}", line.trim()));
    assert!(process.exists(), "{line:?}");
    parent.kill().unwrap();
    parent.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let alive = || {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // An orphan waits for its new parent as a zombie.
        process.exists() && !stat.contains(") Z")
    };
    while alive() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!alive(), "the sandbox outlived its parent");
}

type Mount = fn(&Overlay<'_>) -> Result<std::os::fd::OwnedFd, overlay::OverlayError>;

fn overlays(context: &Context) {
    let layer = |name: &str, length: usize| {
        let path = context.scratch.join("l").join(format!("{name:x<length$}"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(name), name).unwrap();
        path
    };
    let many: Vec<PathBuf> = (0..300).map(|index| layer(&format!("f{index}"), 40)).collect();
    let long = layer("long", 200);
    let long = long.join(format!("{:y<200}", ""));
    fs::create_dir(&long).unwrap();
    fs::write(long.join("in-long"), "").unwrap();
    let odd = context.scratch.join("odd:a,b\\c");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("in-odd"), "").unwrap();
    let lowers: Vec<PathBuf> = many.iter().cloned().chain([long, odd]).collect();
    let ways: [(&str, Mount); 2] = [("new", overlay::mount), ("old", overlay::mount_by_option_string)];
    for (way, mount) in ways {
        let open = |fd: &std::os::fd::OwnedFd, name: &str| openat(fd, name, OFlags::RDONLY, Mode::empty());
        let view = mount(&Overlay {
            lowers: &lowers,
            upper: None,
            volatile: false,
        })
        .unwrap();
        for name in ["f0", "f299", "in-long", "in-odd"] {
            open(&view, name).unwrap_or_else(|error| panic!("{way}: {name}: {error}"));
        }
        let write = OFlags::WRONLY | OFlags::CREATE;
        assert_eq!(
            openat(&view, "new", write, Mode::RUSR).unwrap_err(),
            rustix::io::Errno::ROFS,
            "{way}"
        );
        let single = mount(&Overlay {
            lowers: &lowers[..1],
            upper: None,
            volatile: false,
        })
        .unwrap();
        open(&single, "f0").unwrap();
        assert_eq!(
            openat(&single, "new", write, Mode::RUSR).unwrap_err(),
            rustix::io::Errno::ROFS,
            "{way}"
        );
        let directory = context.scratch.join(format!("overlay-{way}"));
        let (upper, work) = (directory.join("u"), directory.join("w"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let both = Overlay {
            lowers: &lowers,
            upper: Some((&upper, &work)),
            volatile: true,
        };
        let writable = mount(&both).unwrap();
        openat(&writable, "new", write, Mode::RUSR).unwrap();
        rustix::fs::unlinkat(&writable, "f0", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(names(&upper), ["f0", "new"], "{way}");
        assert_eq!(
            fs::symlink_metadata(upper.join("f0")).unwrap().rdev(),
            0,
            "a whiteout"
        );
        // A whole sandbox on it.
        drop(writable);
        let missing = Overlay {
            lowers: &[PathBuf::from("/no/such"), lowers[0].clone()],
            ..both
        };
        let error = mount(&missing).expect_err("a missing layer");
        assert!(
            matches!(&error, overlay::OverlayError::Directory { .. }),
            "{way}: {error}"
        );
    }
    // An upperdir on an overlay is what a store in a container would be.
    let root = context.root();
    let inner = kiln_executor_path(&root.fd);
    fs::create_dir(inner.join("u")).unwrap();
    fs::create_dir(inner.join("w")).unwrap();
    let (upper, work) = (inner.join("u"), inner.join("w"));
    let nested = Overlay {
        lowers: &lowers[..2],
        upper: Some((&upper, &work)),
        volatile: false,
    };
    let error = overlay::mount(&nested).expect_err("an overlay on an overlay");
    assert!(
        matches!(&error, overlay::OverlayError::UpperUnsupported { .. }),
        "{error}"
    );
}

/// Where overlayfs cannot make its work folder it would be read-only, and nobody would know why.
fn overlay_on_a_full_disk(context: &Context) {
    let lower = context.scratch.join("lower");
    let disk = context.scratch.join("full");
    for folder in [&lower, &disk] {
        fs::create_dir(folder).unwrap();
    }
    rustix::mount::mount(
        "tmpfs",
        &disk,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"nr_inodes=16"),
    )
    .unwrap();
    let (upper, work) = (disk.join("u"), disk.join("w"));
    for folder in [&upper, &work] {
        fs::create_dir(folder).unwrap();
    }
    let overlay = Overlay {
        lowers: &[lower],
        upper: Some((&upper, &work)),
        volatile: true,
    };
    let full = (0..1000).find(|number| fs::write(disk.join(format!("f{number}")), "").is_err());
    let error = overlay::mount(&overlay).expect_err("a full disk");
    let overlay::OverlayError::Directory { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{error}");
    for number in 0..full.unwrap() {
        fs::remove_file(disk.join(format!("f{number}"))).unwrap();
    }
    let writable = overlay::mount(&overlay).unwrap();
    openat(&writable, "new", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR).unwrap();
    drop(writable);
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::DETACH).unwrap();
}

fn kiln_executor_path(fd: &std::os::fd::OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn many(context: &Context) {
    let mounts = || {
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count()
    };
    let children = || {
        let pid = std::process::id();
        let children = fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().count()
    };
    let before = (mounts(), fds_of_self().len(), children());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for code in 0..25 {
                    let (status, text) = context.script(&format!("exit {code}"));
                    assert_eq!(status, ExitStatus::Code(code), "{text}");
                }
            });
        }
    });
    assert_eq!((mounts(), fds_of_self().len(), children()), before);
}

fn privileged(context: &Context) {
    let (status, text) = context
        .run(sh("mount -t tmpfs none /tmp && umount /tmp && grep CapEff /proc/self/status").privileged(true));
    assert!(status.success(), "{text}");
}

/// A program for arm64 that prints a line: one segment, no libraries.
fn arm64_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const CODE: [u32; 8] = [
        0xd280_0020, // mov x0, #1
        0x1000_00e1, // adr x1, the text after the code
        0xd280_00c2, // mov x2, #6
        0xd280_0808, // mov x8, #64 (write)
        0xd400_0001, // svc #0
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #93 (exit)
        0xd400_0001, // svc #0
    ];
    let size = 64 + 56 + 4 * CODE.len() as u64 + 6;
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(16, 0);
    for half in [2u16, 183] {
        program.extend(half.to_le_bytes());
    }
    program.extend(1u32.to_le_bytes());
    for address in [BASE + 120, 64, 0] {
        program.extend(address.to_le_bytes());
    }
    program.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        program.extend(half.to_le_bytes());
    }
    for word in [1u32, 5] {
        program.extend(word.to_le_bytes());
    }
    for long in [0, BASE, BASE, size, size, 0x1000] {
        program.extend(long.to_le_bytes());
    }
    for instruction in CODE {
        program.extend(instruction.to_le_bytes());
    }
    program.extend(b"arm64\n");
    program
}

fn foreign(context: &Context) {
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED: needs an x86_64 machine");
        return;
    }
    let emulator = match support("arm64") {
        Support::Private(emulator) => emulator,
        Support::Registered(name) => {
            println!("SKIPPED: needs a machine where arm64 is not registered with the kernel ({name} is)");
            return;
        }
        Support::None { reason, remedy } => {
            println!("SKIPPED: needs qemu for arm64: {reason}; {remedy}");
            return;
        }
    };
    let root = || {
        let root = context.root();
        fs::write(root.upper.join("foreign"), arm64_program()).unwrap();
        fs::set_permissions(root.upper.join("foreign"), fs::Permissions::from_mode(0o755)).unwrap();
        root
    };
    let run = |spec| context.run_emulated(root(), spec, Some(emulator.clone()));
    // As the command itself, and as the child of a native program.
    let (status, text) = run(default_for(["/foreign"]));
    assert!(status.success() && text == "arm64\n", "{status}: {text}");
    let (status, text) = run(sh(
        "/foreign && /foreign | cat && id -u && cat /proc/self/status | grep CapEff",
    ));
    assert!(status.success(), "{status}: {text}");
    assert!(text.starts_with("arm64\narm64\n0\n"), "{text}");
    let native = context.output("cat /proc/self/status | grep CapEff");
    assert!(text.ends_with(&native), "the same rights: {text} {native}");
    if context.full_ids() {
        let (status, text) = run(sh("/foreign; id -u").user(1000, 1000, []));
        assert!(status.success() && text == "arm64\n1000\n", "{status}: {text}");
    }
    // Files keep all owners, and devices stay what they are.
    let owners = "touch /tmp/f && echo x > /dev/null && stat -c %u /bin/busybox /dev/null";
    let (status, text) = run(sh(owners));
    assert_eq!((status.success(), text), (true, context.output(owners)));
    // The registration cannot be touched from inside, and is not to be seen from outside.
    let (status, text) = run(sh("echo -1 > /proc/sys/fs/binfmt_misc/status"));
    assert!(!status.success(), "{text}");
    let without = context.start_in(root(), default_for(["/foreign"]), Stdio::piped());
    assert!(matches!(without, Err(Error::Command(_))), "{without:?}");
    assert_eq!(support("arm64"), Support::Private(emulator));
}
