//! When a step is taken from the cache and when it is not.

use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("second build is cached", second_build_is_cached),
        ("touch is a hit", touch_is_a_hit),
        ("changed source redoes the last copy only", changed_source),
        ("changed requirements run their step again", changed_requirements),
        ("changed mode is a miss", changed_mode),
        (
            "changed bytes under an old time are a miss",
            changed_under_old_time,
        ),
        ("contexts of equal metadata are told apart", equal_metadata),
        ("file that no step copies is no matter", file_not_copied),
        ("ignored file is no matter", ignored_file),
        ("stage rebuilt to the same content cuts off", early_cutoff),
        ("changed argument misses after its declaration", changed_argument),
        ("changed proxy is a hit", changed_proxy),
        ("no-cache runs everything", no_cache),
        ("changed base is a miss", changed_base),
        ("linked copy outlives its base", linked_copy),
        ("excluded file is no matter", excluded_file),
        ("steps are shared between Dockerfiles", shared_between_dockerfiles),
        ("changed metadata leaves the steps cached", changed_metadata),
        ("failed step is not remembered", failed_step),
    ];
    trial::run_all("caching", tests)
}

/// The shape of the tutorials' Python app, with a step in place of pip that counts how often it ran.
const APP: &str = "FROM busybox:latest\nWORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\nCOPY . .\nCMD [\"cat\", \"app.py\"]\n";

fn app(name: &str) -> Result<Project> {
    let files = [
        ("Dockerfile", APP),
        ("requirements.txt", "b\na\n"),
        ("app.py", "one\n"),
        ("lib/x.py", "x\n"),
    ];
    Project::new(name, &files)
}

/// Fails unless exactly these steps ran.
fn ran(found: &[String], expected: &[&str]) -> Result<()> {
    ensure!(found == expected, "not cached: {found:?}, expected: {expected:?}");
    Ok(())
}

const INSTALL: &str = "RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token";

fn second_build_is_cached() -> TestResult {
    let project = app("second-build")?;
    ran(
        &project.build(&[])?,
        &["WORKDIR /app", "COPY requirements.txt .", INSTALL, "COPY . ."],
    )?;
    let first = project.image()?;
    ran(&project.build(&[])?, &[])?;
    ensure!(
        project.image()?.diff_ids == first.diff_ids,
        "the cached build has other layers"
    );
    Ok(Outcome::Passed)
}

fn touch_is_a_hit() -> TestResult {
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

fn changed_source() -> TestResult {
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

fn changed_requirements() -> TestResult {
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

fn changed_mode() -> TestResult {
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

fn changed_under_old_time() -> TestResult {
    let project = app("old-time")?;
    let file = project.path("app.py");
    let time = SystemTime::now() - Duration::from_secs(3600);
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

fn equal_metadata() -> TestResult {
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

fn file_not_copied() -> TestResult {
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

fn ignored_file() -> TestResult {
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

fn early_cutoff() -> TestResult {
    let dockerfile = "FROM busybox:latest AS count\nCOPY in /in\nRUN wc -l < /in > /out\n\
        FROM busybox:latest\nCOPY --from=count /out /out\nRUN head -c 8 /dev/urandom | od -x > /token\n";
    let project = Project::new(
        "early-cutoff",
        &[("Dockerfile", dockerfile), ("in", "one\ntwo\n")],
    )?;
    project.build(&[])?;
    let token = project.shell("cat /token")?;
    project.write("in", "three\nfour\n")?;
    ran(&project.build(&[])?, &["COPY in /in", "RUN wc -l < /in > /out"])?;
    ensure!(
        project.shell("cat /token")? == token,
        "the step after the unchanged stage ran again"
    );
    project.write("in", "five\n")?;
    project.build(&[])?;
    ensure!(
        project.shell("cat /out /token")? != format!("2\n{token}"),
        "a changed stage was taken for unchanged"
    );
    Ok(Outcome::Passed)
}

fn changed_argument() -> TestResult {
    let dockerfile = "FROM busybox:latest\nRUN echo before > /b\nARG A=1\nWORKDIR /w\nRUN echo $A > /a\n";
    let project = Project::new("changed-argument", &[("Dockerfile", dockerfile)])?;
    project.build(&[])?;
    ran(&project.build(&["--build-arg", "A=2"])?, &["RUN echo 2 > /a"])?;
    ensure!(
        project.shell("cat /a")? == "2\n",
        "the image has the old argument"
    );
    ran(&project.build(&["--build-arg", "A=1"])?, &[])?;
    Ok(Outcome::Passed)
}

fn changed_proxy() -> TestResult {
    let project = Project::new(
        "changed-proxy",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo x > /x\n")],
    )?;
    ran(
        &project.build(&["--build-arg", "HTTP_PROXY=http://127.0.0.1:1"])?,
        &["RUN echo x > /x"],
    )?;
    ran(
        &project.build(&["--build-arg", "HTTP_PROXY=http://127.0.0.1:2"])?,
        &[],
    )?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

fn no_cache() -> TestResult {
    let project = app("no-cache")?;
    project.build(&[])?;
    let token = project.shell("cat /app/token")?;
    ran(
        &project.build(&["--no-cache"])?,
        &["WORKDIR /app", "COPY requirements.txt .", INSTALL, "COPY . ."],
    )?;
    let fresh = project.shell("cat /app/token")?;
    ensure!(fresh != token, "--no-cache ran nothing");
    ran(&project.build(&[])?, &[])?;
    ensure!(
        project.shell("cat /app/token")? == fresh,
        "the build after --no-cache has the old result"
    );
    Ok(Outcome::Passed)
}

fn changed_base() -> TestResult {
    let project = Project::new(
        "changed-base",
        &[("Dockerfile", "FROM base:1\nRUN cat /v > /copy\n")],
    )?;
    for version in ["one\n", "two\n"] {
        let context = project.scratch(version.trim());
        std::fs::create_dir(&context)?;
        std::fs::write(context.join("Dockerfile"), "FROM busybox:latest\nCOPY v /v\n")?;
        std::fs::write(context.join("v"), version)?;
        let mut base = project.request.clone();
        (base.context, base.tag) = (context, "base:1".to_owned());
        kiln_e2e::builder::run(&mut project.kiln.build_command(&base))?.success()?;
        ran(&project.build(&[])?, &["RUN cat /v > /copy"])?;
        ensure!(
            project.shell("cat /copy")? == version,
            "the image was built on the old base"
        );
    }
    Ok(Outcome::Passed)
}

/// Whatever becomes of the steps before a linked copy, it is not done again and its layer stays the same.
fn linked_copy() -> TestResult {
    let dockerfile = |before: &str| {
        format!(
            "FROM busybox:latest\nRUN {before}\nCOPY --link --chmod=640 app.py /app/\nADD --link --chown=5 lib /app/lib/\n"
        )
    };
    let first = dockerfile("mkdir /one");
    let files = [
        ("Dockerfile", first.as_str()),
        ("app.py", "1\n"),
        ("lib/x.py", "x\n"),
    ];
    let project = Project::new("linked-copy", &files)?;
    let (copy, add) = (
        "COPY --link --chmod=640 app.py /app/",
        "ADD --link --chown=5 lib /app/lib/",
    );
    // The linked steps begin at once.
    let mut all = project.build(&[])?;
    all.sort();
    ran(&all, &[add, copy, "RUN mkdir /one"])?;
    let first = project.image()?.diff_ids;
    project.write("Dockerfile", &dockerfile("mkdir /two"))?;
    ran(&project.build(&[])?, &["RUN mkdir /two"])?;
    let second = project.image()?.diff_ids;
    let linked = first.len() - 2;
    ensure!(
        first.len() == second.len() && first[linked..] == second[linked..],
        "other layers: {first:?} {second:?}"
    );
    ensure!(
        first[linked - 1] != second[linked - 1],
        "the step before makes the same layer"
    );
    let found = project.shell("cat /app/app.py /app/lib/x.py && stat -c %a /app/app.py && ls -d /two")?;
    ensure!(found == "1\nx\n640\n/two\n", "the image holds {found:?}");
    // The linked copy alone is redone when its source changes.
    project.write("app.py", "2\n")?;
    ran(&project.build(&[])?, &[copy])?;
    ensure!(
        project.shell("cat /app/app.py")? == "2\n",
        "the image has the old file"
    );
    Ok(Outcome::Passed)
}

/// What --exclude leaves out and what --parents does not take is in no key.
fn excluded_file() -> TestResult {
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

fn shared_between_dockerfiles() -> TestResult {
    let project = Project::new(
        "shared",
        &[(
            "Dockerfile",
            "FROM busybox:latest\nRUN echo a > /a\nRUN echo b > /b\n",
        )],
    )?;
    project.build(&[])?;
    project.write(
        "Dockerfile",
        "FROM busybox:latest AS x\nRUN echo a > /a\nRUN echo c > /c\nFROM x\nLABEL l=m\n",
    )?;
    ran(&project.build(&[])?, &["RUN echo c > /c"])?;
    Ok(Outcome::Passed)
}

fn changed_metadata() -> TestResult {
    let project = Project::new(
        "metadata",
        &[(
            "Dockerfile",
            "FROM busybox:latest\nLABEL a=1\nRUN echo a > /a\nCMD [\"x\"]\n",
        )],
    )?;
    project.build(&[])?;
    project.write(
        "Dockerfile",
        "FROM busybox:latest\nLABEL a=2\nEXPOSE 80\nRUN echo a > /a\nCMD [\"y\"]\n",
    )?;
    ran(&project.build(&[])?, &[])?;
    let image = project.image()?;
    ensure!(
        image.config["config"]["Labels"]["a"] == "2",
        "the image has the old label"
    );
    Ok(Outcome::Passed)
}

fn failed_step() -> TestResult {
    let project = Project::new(
        "failed",
        &[(
            "Dockerfile",
            "FROM busybox:latest\nRUN echo a > /a\nRUN test -e /never\n",
        )],
    )?;
    project.try_build(&[])?.failure(1)?;
    let again = project.try_build(&[])?.failure(1)?;
    let cached = kiln_e2e::progress::cached(&again);
    ensure!(
        cached == ["RUN echo a > /a"],
        "cached after a failed build: {cached:?}\n{again}"
    );
    Ok(Outcome::Passed)
}
