//! Sources from elsewhere: files by HTTP and git repositories, from servers that the tests start.

use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::remote::{Repository, Server};
use kiln_e2e::server::free_port;
use kiln_e2e::tree::Kind;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::process::ExitCode;

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
