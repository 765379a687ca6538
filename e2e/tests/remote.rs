//! Sources from elsewhere: files by HTTP and git repositories, from servers that the tests start.

use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::project::Project;
use kiln_e2e::server::{free_port, wait_for};
use kiln_e2e::tree::Kind;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("a file by HTTP gets its name, mode and time", file_attributes),
        (
            "an unchanged file is asked for and not downloaded",
            unchanged_file,
        ),
        ("a file with a checksum needs no server once it is here", checksum),
        ("archives stay as they are unless asked for", archives),
        ("sources of all kinds mix, and variables expand", mixed),
        ("a secret proves who asks", secret),
        ("stages that nobody needs fetch nothing", unneeded),
        ("what cannot be had is an error at its place", unreachable),
        ("a repository becomes files", repository),
        ("a kept git directory works", kept_git_directory),
    ];
    trial::run_all("remote", tests)
}

/// What a path has.
#[derive(Debug, Clone, Default)]
struct Page {
    body: Vec<u8>,
    headers: Vec<(String, String)>,
}

/// A server of files, with entity tags.
struct Server {
    address: SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = Self {
            address: listener.local_addr()?,
            pages: Arc::default(),
            log: Arc::default(),
        };
        let (pages, log) = (Arc::clone(&server.pages), Arc::clone(&server.log));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, log) = (Arc::clone(&pages), Arc::clone(&log));
                // Clients may go away at any time.
                std::thread::spawn(move || drop(serve(&stream, &pages, &log)));
            }
        });
        Ok(server)
    }

    fn put(&self, path: &str, body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) {
        let page = Page {
            body: body.into(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(path.to_owned(), page);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests since the last call, as `METHOD /path`.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(
    mut stream: &TcpStream,
    pages: &Mutex<BTreeMap<String, Page>>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(first) = lines.next().transpose()? {
        let (mut condition, mut shown) = (None, None);
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            match line.to_lowercase().split_once(": ") {
                Some(("if-none-match", value)) => condition = Some(value.to_owned()),
                Some(("authorization", value)) => shown = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{method} {path}"));
        let page = pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned();
        let (status, page) = match page {
            None => (404, Page::default()),
            Some(page) => {
                let wanted = page.headers.iter().find(|(name, _)| name == "X-Token");
                let tag = page.headers.iter().find(|(name, _)| name == "ETag");
                if wanted.is_some_and(|(_, token)| Some(token) != shown.as_ref()) {
                    (401, Page::default())
                } else if tag.is_some_and(|(_, tag)| Some(tag) == condition.as_ref()) {
                    (
                        304,
                        Page {
                            body: Vec::new(),
                            ..page
                        },
                    )
                } else {
                    (200, page)
                }
            }
        };
        let mut head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n",
            page.body.len()
        );
        for (name, value) in &page.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if method != "HEAD" {
            stream.write_all(&page.body)?;
        }
    }
    Ok(())
}

/// The node of the last image's `path`: mode, time, and content of a file.
fn file(project: &Project, path: &str) -> Result<(u32, i64, String)> {
    let text = project.shell(&format!("stat -c '%a %Y' {path} && cat {path}"))?;
    let (first, content) = text.split_once('\n').unwrap_or((&text, ""));
    let (mode, time) = first.split_once(' ').ok_or("no mode and time")?;
    Ok((u32::from_str_radix(mode, 8)?, time.parse()?, content.to_owned()))
}

fn file_attributes() -> TestResult {
    let server = Server::start()?;
    let time = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    server.put("/dir/na%20me", "one\n", &[time]);
    server.put("/plain", "two\n", &[]);
    server.put("/", "three\n", &[]);
    let text = format!(
        "FROM busybox\nADD {} /a/\nADD --chmod=755 --chown=5:6 {} /b\nADD {} /c/\n",
        server.url("/dir/na%20me"),
        server.url("/plain"),
        server.url("/")
    );
    let project = Project::new("remote-attributes", &[("Dockerfile", &text)])?;
    project.build(&[])?;
    let (mode, when, content) = file(&project, "'/a/na me'")?;
    ensure!((mode, when) == (0o600, 784_111_777), "mode {mode:o}, time {when}");
    ensure!(content == "one\n", "{content}");
    let (mode, when, content) = file(&project, "/b")?;
    ensure!((mode, when) == (0o755, 0), "mode {mode:o}, time {when}");
    ensure!(content == "two\n", "{content}");
    let owner = project.shell("stat -c %u:%g /b")?;
    ensure!(owner.trim() == "5:6", "owner {owner}");
    let (_, _, content) = file(&project, "/c/__unnamed__")?;
    ensure!(content == "three\n", "{content}");
    Ok(Outcome::Passed)
}

fn unchanged_file() -> TestResult {
    let server = Server::start()?;
    server.put("/f", "one\n", &[("ETag", "\"v1\"")]);
    let text = format!("FROM busybox\nADD {} /f\nRUN cat /f\n", server.url("/f"));
    let project = Project::new("remote-unchanged", &[("Dockerfile", &text)])?;
    project.build(&[])?;
    ensure!(server.requests() == ["GET /f"], "the first build downloads");
    let again = project.build(&[])?;
    let requests = server.requests();
    ensure!(requests == ["HEAD /f"], "the second build asks: {requests:?}");
    ensure!(again.iter().all(|step| !step.contains("RUN")), "{again:?}");
    // The same content under another tag is downloaded, and still changes nothing.
    server.put("/f", "one\n", &[("ETag", "\"v2\"")]);
    let same = project.build(&[])?;
    ensure!(server.requests() == ["HEAD /f", "GET /f"], "another tag");
    ensure!(same.iter().all(|step| !step.contains("RUN")), "{same:?}");
    server.put("/f", "two\n", &[("ETag", "\"v3\"")]);
    let changed = project.build(&[])?;
    ensure!(changed.iter().any(|step| step.contains("RUN cat")), "{changed:?}");
    let (_, _, content) = file(&project, "/f")?;
    ensure!(content == "two\n", "{content}");
    Ok(Outcome::Passed)
}

/// The SHA-256 of `one\n` and of `two\n`.
const ONE: &str = "sha256:2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806";
const TWO: &str = "sha256:27dd8ed44a83ff94d557f9fd0412ed5a8cbca69ea04922d88c01184a07300a5a";

fn checksum() -> TestResult {
    let server = Server::start()?;
    server.put("/f", "one\n", &[]);
    let url = server.url("/f");
    let text = |sum: &str| format!("FROM busybox\nARG SUM={sum}\nADD --checksum=$SUM {url} /f\n");
    let project = Project::new("remote-checksum", &[("Dockerfile", &text(TWO))])?;
    let error = project.try_build(&[])?.failure(1)?;
    ensure!(
        error.contains(&format!("checksum mismatch of {url}: expected {TWO}, got {ONE}")),
        "{error}"
    );
    project.write("Dockerfile", &text(ONE))?;
    project.build(&[])?;
    drop(server.requests());
    project.build(&[])?;
    ensure!(server.requests().is_empty(), "nobody is asked");
    project.write("Dockerfile", &text("sha512:00"))?;
    let error = project.try_build(&[])?.failure(1)?;
    ensure!(
        error.contains("checksum algorithm \"sha512\" is not supported"),
        "{error}"
    );
    Ok(Outcome::Passed)
}

fn archives() -> TestResult {
    let server = Server::start()?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, "inner", &b"one\n"[..])?;
    server.put("/a.tar", archive.into_inner()?, &[]);
    let text = format!(
        "FROM busybox\nADD {0} /plain/\nADD --unpack=true {0} /unpacked/\n",
        server.url("/a.tar")
    );
    let project = Project::new("remote-archives", &[("Dockerfile", &text)])?;
    project.build(&[])?;
    let found = project.shell("ls /plain /unpacked")?;
    ensure!(found == "/plain:\na.tar\n\n/unpacked:\ninner\n", "{found}");
    Ok(Outcome::Passed)
}

fn mixed() -> TestResult {
    let server = Server::start()?;
    server.put("/from-url[1]", "one\n", &[]);
    let text =
        "ARG HOST\nFROM busybox\nARG HOST\nENV NAME=from-url\nADD local http://$HOST/${NAME}[1] other /to/\n";
    let files = [("Dockerfile", text), ("local", "l\n"), ("other", "o\n")];
    let project = Project::new("remote-mixed", &files)?;
    project.build(&["--build-arg", &format!("HOST={}", server.address)])?;
    let found = project.shell("ls /to")?;
    ensure!(found == "from-url[1]\nlocal\nother\n", "{found}");
    Ok(Outcome::Passed)
}

fn secret() -> TestResult {
    let server = Server::start()?;
    server.put("/private", "one\n", &[("X-Token", "bearer abc")]);
    let text = format!("FROM busybox\nADD {} /f\n", server.url("/private"));
    let project = Project::new("remote-secret", &[("Dockerfile", &text), ("token", "abc\n")])?;
    let error = project.try_build(&[])?.failure(1)?;
    ensure!(
        error.contains("not authorized (status 401)") && error.contains("HTTP_AUTH_TOKEN_127.0.0.1"),
        "{error}"
    );
    let file = project.path("token");
    let flag = format!("--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", file.display());
    project.build(&[&flag])?;
    let content = project.shell("cat /f")?;
    ensure!(content == "one\n", "{content}");
    Ok(Outcome::Passed)
}

fn unneeded() -> TestResult {
    let server = Server::start()?;
    let text = format!(
        "FROM busybox AS unneeded\nADD {} /f\nFROM busybox\nRUN true\n",
        server.url("/f")
    );
    let project = Project::new("remote-unneeded", &[("Dockerfile", &text)])?;
    project.build(&[])?;
    ensure!(server.requests().is_empty(), "nothing is fetched");
    Ok(Outcome::Passed)
}

fn unreachable() -> TestResult {
    let server = Server::start()?;
    let gone = format!("http://127.0.0.1:{}/f", free_port()?);
    for (source, wanted) in [
        (
            gone.clone(),
            format!("failed to download {gone}: connection refused"),
        ),
        (
            server.url("/none"),
            format!(
                "failed to download {}: not found (status 404)",
                server.url("/none")
            ),
        ),
    ] {
        let text = format!("FROM busybox\nADD {source} /f\n");
        let project = Project::new("remote-unreachable", &[("Dockerfile", &text)])?;
        let error = project.try_build(&[])?.failure(1)?;
        ensure!(error.contains(&wanted), "{error}");
        ensure!(error.contains("Dockerfile:2") && error.contains("^^^"), "{error}");
    }
    let text = "FROM busybox\nCOPY http://h/f /f\n";
    let project = Project::new("remote-copy", &[("Dockerfile", text)])?;
    let error = project.try_build(&[])?.failure(1)?;
    ensure!(error.contains("ADD"), "{error}");
    Ok(Outcome::Passed)
}

/// A repository and a daemon that gives it out.
struct Repository {
    folder: TempFolder,
    daemon: Child,
    port: u16,
}

impl Repository {
    fn start(name: &str) -> Result<Self> {
        let folder = TempFolder::new(name)?;
        std::fs::create_dir(folder.join("r"))?;
        let port = free_port()?;
        let daemon = Command::new("git")
            .args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.path().display()))
            .stderr(Stdio::null())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs([
                ("GIT_CONFIG_COUNT", "1"),
                ("GIT_CONFIG_KEY_0", "safe.directory"),
                ("GIT_CONFIG_VALUE_0", "*"),
            ])
            .spawn()?;
        let repository = Self { folder, daemon, port };
        wait_for(&format!("127.0.0.1:{port}"), Duration::from_secs(10))?;
        repository.git(&["init", "-q", "-b", "main"])?;
        Ok(repository)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join("r").join(name)
    }

    fn git(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments)
            .current_dir(self.folder.join("r"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn commit(&self) -> Result<String> {
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "-m", "x"])?;
        self.git(&["rev-parse", "HEAD"])
    }

    fn url(&self) -> String {
        format!("git://127.0.0.1:{}/r", self.port)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // It serves nobody any more.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn repository() -> TestResult {
    if machine::program("git").is_none() {
        return Ok(Outcome::Skipped("needs git".to_owned()));
    }
    let repository = Repository::start("remote-repository")?;
    std::fs::create_dir(repository.path("sub"))?;
    std::fs::write(repository.path("sub/f"), "one\n")?;
    std::fs::write(repository.path("top"), "top\n")?;
    let commit = repository.commit()?;
    let url = repository.url();
    let text = format!("FROM busybox\nADD {url} /all\nADD {url}#main:sub /sub/\nRUN cat /sub/f\n");
    let project = Project::new("remote-git", &[("Dockerfile", &text)])?;
    project.build(&[])?;
    let found = project.shell("cd /all && find . | sort && ls /sub && stat -c %a /all/top /all/sub")?;
    ensure!(found == ".\n./sub\n./sub/f\n./top\nf\n644\n755\n", "{found}");
    // A commit that changes nothing in the directory runs nothing after it.
    std::fs::write(repository.path("top"), "changed\n")?;
    repository.commit()?;
    project.write(
        "Dockerfile",
        &format!("FROM busybox\nADD {url}#main:sub /sub/\nRUN cat /sub/f\n"),
    )?;
    project.build(&[])?;
    std::fs::write(repository.path("top"), "changed again\n")?;
    repository.commit()?;
    let steps = project.build(&[])?;
    ensure!(steps.iter().all(|step| !step.contains("RUN")), "{steps:?}");
    let wrong = if commit.starts_with('0') { "1111" } else { "0000" };
    project.write(
        "Dockerfile",
        &format!("FROM busybox\nADD --checksum={wrong} {url} /x\n"),
    )?;
    let error = project.try_build(&[])?.failure(1)?;
    ensure!(error.contains(&format!("to match {wrong}, got ")), "{error}");
    // With the commit's hash nobody need be asked a second time.
    let pinned = format!("FROM busybox\nADD {url}?ref={commit} /x\n");
    project.write("Dockerfile", &pinned)?;
    project.build(&[])?;
    drop(repository);
    project.build(&[])?;
    let content = project.shell("cat /x/top")?;
    ensure!(content == "top\n", "{content}");
    project.write("Dockerfile", &format!("FROM busybox\nADD {url} /x\n"))?;
    let error = project.try_build(&[])?.failure(1)?;
    ensure!(error.contains(&format!("git ls-remote {url}")), "{error}");
    Ok(Outcome::Passed)
}

fn kept_git_directory() -> TestResult {
    if machine::program("git").is_none() {
        return Ok(Outcome::Skipped("needs git".to_owned()));
    }
    let repository = Repository::start("remote-kept")?;
    std::fs::write(repository.path("f"), "one\n")?;
    let commit = repository.commit()?;
    let text = format!("FROM busybox\nADD --keep-git-dir=true {} /x\n", repository.url());
    let project = Project::new("remote-keep", &[("Dockerfile", &text)])?;
    project.build(&[])?;
    let image = project.image()?;
    let head = image.tree.get("x/.git/HEAD").map(|node| node.kind.clone());
    ensure!(matches!(head, Some(Kind::File { .. })), "no .git/HEAD");
    let found = project.shell("cat /x/.git/HEAD")?;
    ensure!(found.trim() == commit, "HEAD is {found}");
    Ok(Outcome::Passed)
}
