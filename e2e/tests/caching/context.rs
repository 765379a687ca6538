//! What of the context decides: content, modes and names; neither times, owners nor what no step takes.

use super::{INSTALL, app, built, ran};
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

pub(super) fn touch_is_a_hit() -> TestResult {
    let project = app("touch")?;
    ensure!(
        project.build(&[])?.len() == 4,
        "the first build did not run its steps"
    );
    for name in ["app.py", "requirements.txt", "lib/x.py"] {
        File::options()
            .write(true)
            .open(project.path(name))?
            .set_modified(SystemTime::now() + Duration::from_secs(99))?;
    }
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

pub(super) fn changed_source() -> TestResult {
    let project = app("changed-source")?;
    project.build(&[])?;
    let token = project.shell("cat /app/token")?;
    project.write("app.py", "two\n")?;
    ran(&project.build(&[])?, &["COPY . ."])?;
    ensure!(
        project.shell("cat /app/app.py")? == "two\n",
        "the image has the old file"
    );
    ensure!(
        project.shell("cat /app/token")? == token,
        "the cached step ran again"
    );
    Ok(Outcome::Passed)
}

pub(super) fn changed_requirements() -> TestResult {
    let project = app("changed-requirements")?;
    project.build(&[])?;
    let token = project.shell("cat /app/token")?;
    project.write("requirements.txt", "c\n")?;
    ran(
        &project.build(&[])?,
        &["COPY requirements.txt .", INSTALL, "COPY . ."],
    )?;
    ensure!(
        project.shell("cat /app/installed")? == "c\n",
        "the image has the old result"
    );
    ensure!(project.shell("cat /app/token")? != token, "the step did not run");
    Ok(Outcome::Passed)
}

pub(super) fn changed_mode() -> TestResult {
    let project = app("changed-mode")?;
    project.build(&[])?;
    std::fs::set_permissions(project.path("app.py"), std::fs::Permissions::from_mode(0o755))?;
    ran(&project.build(&[])?, &["COPY . ."])?;
    ensure!(
        project.shell("stat -c %a /app/app.py")? == "755\n",
        "the image has the old mode"
    );
    Ok(Outcome::Passed)
}

pub(super) fn changed_under_old_time() -> TestResult {
    let project = app("old-time")?;
    let file = project.path("app.py");
    let time = SystemTime::now() - Duration::from_hours(1);
    File::options().write(true).open(&file)?.set_modified(time)?;
    project.build(&[])?;
    project.write("app.py", "two\n")?;
    File::options().write(true).open(&file)?.set_modified(time)?;
    ran(&project.build(&[])?, &["COPY . ."])?;
    ensure!(
        project.shell("cat /app/app.py")? == "two\n",
        "the image has stale bytes"
    );
    Ok(Outcome::Passed)
}

pub(super) fn equal_metadata() -> TestResult {
    let mut project = Project::new("equal-metadata", &[])?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for text in ["aaa\n", "bbb\n"] {
        let context = project.scratch(text.trim());
        std::fs::create_dir(&context)?;
        std::fs::write(context.join("Dockerfile"), "FROM busybox:latest\nCOPY f /f\n")?;
        std::fs::write(context.join("f"), text)?;
        File::options()
            .write(true)
            .open(context.join("f"))?
            .set_modified(time)?;
        project.request.context = context;
        project.build(&[])?;
        ensure!(
            project.shell("cat /f")? == text,
            "the image has the other context's file"
        );
    }
    Ok(Outcome::Passed)
}

pub(super) fn file_not_copied() -> TestResult {
    let files = [
        (
            "Dockerfile",
            "FROM busybox:latest\nCOPY pkg* /d/\nRUN ls /d > /l\n",
        ),
        ("pkg1", "1"),
        ("other", "o"),
    ];
    let project = Project::new("not-copied", &files)?;
    project.build(&[])?;
    project.write("other", "changed")?;
    project.write("new", "new")?;
    ran(&project.build(&[])?, &[])?;
    project.write("pkg2", "2")?;
    ran(&project.build(&[])?, &["COPY pkg* /d/", "RUN ls /d > /l"])?;
    Ok(Outcome::Passed)
}

pub(super) fn ignored_file() -> TestResult {
    let files = [
        ("Dockerfile", "FROM busybox:latest\nCOPY . /d/\n"),
        (".dockerignore", "*.log\n"),
        ("a", "a"),
    ];
    let project = Project::new("ignored", &files)?;
    project.build(&[])?;
    project.write("debug.log", "noise")?;
    ran(&project.build(&[])?, &[])?;
    project.write(".dockerignore", "nothing\n")?;
    ran(&project.build(&[])?, &["COPY . /d/"])?;
    Ok(Outcome::Passed)
}

/// What --exclude leaves out and what --parents does not take is in no key.
pub(super) fn excluded_file() -> TestResult {
    let files = [
        (
            "Dockerfile",
            "FROM busybox:latest\nCOPY --exclude=**/*.log . /a/\nCOPY --link --parents **/*.py /b/\n",
        ),
        ("app.py", "1\n"),
        ("x.log", "1\n"),
        ("lib/y.log", "1\n"),
        ("lib/data", "1\n"),
    ];
    let project = Project::new("excluded-file", &files)?;
    let (exclude, parents) = (
        "COPY --exclude=**/*.log . /a/",
        "COPY --link --parents **/*.py /b/",
    );
    // Independent of each other, they come in either order.
    let sorted = |mut steps: Vec<String>| {
        steps.sort();
        steps
    };
    ran(&sorted(project.build(&[])?), &[exclude, parents])?;
    project.write("x.log", "2\n")?;
    project.write("lib/y.log", "2\n")?;
    project.write("lib/z.log", "new\n")?;
    ran(&project.build(&[])?, &[])?;
    project.write("lib/data", "2\n")?;
    ran(&project.build(&[])?, &[exclude])?;
    project.write("lib/z.py", "z\n")?;
    ran(&sorted(project.build(&[])?), &[exclude, parents])?;
    let found = project.shell("cd /b && find . -type f | sort && ls /a/lib")?;
    ensure!(
        found == "./app.py\n./lib/z.py\ndata\nz.py\n",
        "the image holds {found:?}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn touched_folder() -> TestResult {
    let project = built(
        "touch-folder",
        &[("Dockerfile", "FROM busybox:latest\nCOPY d /d\n"), ("d/f", "f")],
    )?;
    for name in ["d", "."] {
        File::open(project.path(name))?.set_modified(SystemTime::now() + Duration::from_secs(99))?;
    }
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

pub(super) fn changed_context_owner() -> TestResult {
    if !kiln_e2e::machine::is_root() {
        return Ok(Outcome::Skipped("needs root to give files away".to_owned()));
    }
    let project = built(
        "context-owner",
        &[("Dockerfile", "FROM busybox:latest\nCOPY f /f\n"), ("f", "f")],
    )?;
    std::os::unix::fs::chown(project.path("f"), Some(1234), Some(4321))?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

pub(super) fn renamed_folder() -> TestResult {
    let dockerfile = |name: &str| format!("FROM busybox:latest\nCOPY {name} /d\nRUN ls /d > /l\n");
    let project = built(
        "renamed-folder",
        &[("Dockerfile", &dockerfile("one")), ("one/f", "f")],
    )?;
    std::fs::rename(project.path("one"), project.path("two"))?;
    project.write("Dockerfile", &dockerfile("two"))?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

pub(super) fn renamed_file() -> TestResult {
    let dockerfile = |name: &str, to: &str| format!("FROM busybox:latest\nCOPY {name} {to}\n");
    let project = built(
        "renamed-file",
        &[("Dockerfile", &dockerfile("one", "/d/")), ("one", "f")],
    )?;
    std::fs::rename(project.path("one"), project.path("two"))?;
    project.write("Dockerfile", &dockerfile("two", "/d/"))?;
    ran(&project.build(&[])?, &["COPY two /d/"])?;
    ensure!(project.shell("ls /d")? == "two\n", "the image has the old name");
    Ok(Outcome::Passed)
}

pub(super) fn renamed_inside() -> TestResult {
    let project = built(
        "renamed-inside",
        &[("Dockerfile", "FROM busybox:latest\nCOPY d /d\n"), ("d/one", "f")],
    )?;
    std::fs::rename(project.path("d/one"), project.path("d/two"))?;
    ran(&project.build(&[])?, &["COPY d /d"])?;
    Ok(Outcome::Passed)
}
