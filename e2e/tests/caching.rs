//! When a step is taken from the cache and when it is not.
//!
//! The truth table; tests of other files have the file's name before them. The last column names the test that holds
//! what `kiln why` says of the row.
//!
//! | what changes | next build | test | `kiln why` |
//! |---|---|---|---|
//! | nothing | hit | second build is cached | why/nothing changed |
//! | times of files and folders | hit | touch is a hit; touch of a folder is a hit | why/touch; why/touch of a folder |
//! | owner of a context's file | hit | owner of a context file is no matter | why/owner of a context's file |
//! | mode of a file | miss | changed mode is a miss | why/chmod |
//! | content, with the old time and size | miss | changed bytes under an old time are a miss | why/other bytes under the old size and time |
//! | context elsewhere, equal metadata, other content | miss | contexts of equal metadata are told apart | why/a context elsewhere of equal metadata |
//! | name of a copied folder, same content | hit | renamed folder of the same content is a hit | why/renamed directory of the same content |
//! | name of a copied file | miss where it counts | renamed file is a miss only where its name counts | why/renamed file |
//! | name inside a copied folder | miss | rename inside a copied folder is a miss | why/rename inside a copied folder |
//! | file that `COPY pkg*` does not match | hit | file that no step copies is no matter | why/file that no pattern takes |
//! | ignored or excluded file | hit | ignored file is no matter; excluded file is no matter | why/ignored file; why/excluded file |
//! | build argument, before its declaration | hit | argument before its declaration is a hit | why/argument before its declaration |
//! | build argument, after its declaration | miss | changed argument misses after its declaration | why/argument that the command uses; why/argument that the command does not mention |
//! | build argument that a copy does not use | hit | argument that a copy does not use is no matter to it | why/argument that a copy does not use; why/argument that a copy uses |
//! | proxy, undeclared | hit | changed proxy is a hit | why/proxy |
//! | proxy, declared | miss | declared proxy is a miss | why/proxy that is declared |
//! | address of an extra host | hit | extra hosts count by their names | why/address of an extra host |
//! | name of an extra host | miss | extra hosts count by their names | why/name of an extra host |
//! | value of a secret | hit | a secret counts by its id; secrets/what decides about the cache | why/value of a secret |
//! | id of a secret | miss | a secret counts by its id; secrets/what decides about the cache | why/id of a secret |
//! | id, sharing, content of a cache mount | hit | a cache mount counts by its place; mounts/a cache mount is kept from build to build | why/id and sharing of a cache mount |
//! | target, mode, owner of a cache mount | miss | a cache mount counts by its place | why/target of a cache mount; why/mode and owner of a cache mount |
//! | source of a bind mount, same content | hit | source of a bind mount counts by what it shows | why/another source of a mount with the same content |
//! | content of a bind mount's source | miss | mounts/a bind of the context counts by what it shows | why/source of a mount |
//! | content beside a bind mount's source | hit | mounts/a bind of the context counts by what it shows | why/content beside the source of a mount |
//! | other name for the base, same DiffIDs | hit | base of another name and the same content is a hit | why/base of another name and the same layers |
//! | other metadata of the base, same DiffIDs | hit | base built again with other metadata is a hit | why/base with other metadata and the same layers |
//! | content of the base | miss | changed base is a miss | why/base |
//! | base of a linked copy | hit | linked copy outlives its base | why/base of a linked copy |
//! | users of the base, for `--chown=NAME` | miss | other users are a miss for a copy that names one | why/users of the base of a copy that names one |
//! | `--no-cache`, `--no-cache-filter` | miss | no-cache runs everything; no-cache-filter runs the steps of its stages | why/no-cache; why/no-cache-filter |
//! | result of a process, older than `--cache-ttl` | miss | cache_trust/results age; cache_trust/a result that is found again is as old as it is | why/cache-ttl |
//! | content, rewritten in place with the old time | miss | cache_trust/bytes rewritten in place are seen; cache_trust/files swapped by rename are seen | why/other bytes under the old size and time |
//! | order or names of stages | hit | reordered stages are a hit; renamed stage is a hit | why/reordered stages; why/renamed stage |
//! | earlier stage, same result | hit | stage rebuilt to the same content cuts off | why/early cutoff |
//! | earlier stage, same mounted files | hit | mounts/a bind of a stage counts by what it shows | why/earlier stage with the same mounted files |
//! | comments, blanks, upper and lower case | hit | comments and blanks are no matter | why/comments, blanks, upper and lower case |
//! | order of copies | miss | changed order of copies is a miss | why/order of copies |
//! | body of a here-document | miss | heredoc is a part of the key | why/body of a here-document that runs; why/body of a here-document that is copied |
//! | labels and other metadata | hit | changed metadata leaves the steps cached | why/labels and other metadata |
//! | file at an address, same content | hit | remote/an unchanged file is asked for and not downloaded | why/file at an address |

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
        ("touch of a folder is a hit", touched_folder),
        ("owner of a context file is no matter", changed_context_owner),
        ("renamed folder of the same content is a hit", renamed_folder),
        ("renamed file is a miss only where its name counts", renamed_file),
        ("rename inside a copied folder is a miss", renamed_inside),
        (
            "argument that a copy does not use is no matter to it",
            argument_of_a_copy,
        ),
        (
            "argument before its declaration is a hit",
            argument_before_declaration,
        ),
        ("declared proxy is a miss", declared_proxy),
        ("base of another name and the same content is a hit", renamed_base),
        ("base built again with other metadata is a hit", rebuilt_base),
        ("no-cache-filter runs the steps of its stages", no_cache_filter),
        ("reordered stages are a hit", reordered_stages),
        ("renamed stage is a hit", renamed_stage),
        ("other users are a miss for a copy that names one", changed_users),
        ("comments and blanks are no matter", changed_writing),
        ("changed order of copies is a miss", changed_order),
        ("heredoc is a part of the key", changed_heredoc),
        ("extra hosts count by their names", changed_hosts),
        ("a secret counts by its id", changed_secret),
        ("a cache mount counts by its place", changed_cache_mount),
        (
            "source of a bind mount counts by what it shows",
            changed_bind_source,
        ),
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

/// A Dockerfile and files, built once.
fn built(name: &str, files: &[(&str, &str)]) -> Result<Project> {
    let project = Project::new(name, files)?;
    project.build(&[])?;
    Ok(project)
}

fn touched_folder() -> TestResult {
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

fn changed_context_owner() -> TestResult {
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

fn renamed_folder() -> TestResult {
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

fn renamed_file() -> TestResult {
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

fn renamed_inside() -> TestResult {
    let project = built(
        "renamed-inside",
        &[("Dockerfile", "FROM busybox:latest\nCOPY d /d\n"), ("d/one", "f")],
    )?;
    std::fs::rename(project.path("d/one"), project.path("d/two"))?;
    ran(&project.build(&[])?, &["COPY d /d"])?;
    Ok(Outcome::Passed)
}

fn argument_of_a_copy() -> TestResult {
    let dockerfile = "FROM busybox:latest\nARG A=1\nARG D=/d\nCOPY f /f\nWORKDIR /w\nCOPY f $D\n";
    let project = built("argument-of-a-copy", &[("Dockerfile", dockerfile), ("f", "f")])?;
    ran(&project.build(&["--build-arg", "A=2"])?, &[])?;
    ran(&project.build(&["--build-arg", "D=/e"])?, &["COPY f /e"])?;
    Ok(Outcome::Passed)
}

fn argument_before_declaration() -> TestResult {
    let dockerfile = "FROM busybox:latest AS one\nRUN echo 1 > /1\nARG A\nFROM one AS two\nRUN echo 2 > /2\n\
        FROM busybox:latest\nRUN echo 3 > /3\nCOPY --from=two /2 /\nARG A\n";
    let project = built("argument-before", &[("Dockerfile", dockerfile)])?;
    // The stage `two` inherits the declaration, the last stage declares it after its step.
    ran(&project.build(&["--build-arg", "A=x"])?, &["RUN echo 2 > /2"])?;
    Ok(Outcome::Passed)
}

fn declared_proxy() -> TestResult {
    let dockerfile = "FROM busybox:latest\nARG HTTP_PROXY\nRUN echo x > /x\n";
    let project = built("declared-proxy", &[("Dockerfile", dockerfile)])?;
    let argument = ["--build-arg", "HTTP_PROXY=http://127.0.0.1:1"];
    ran(&project.build(&argument)?, &["RUN echo x > /x"])?;
    Ok(Outcome::Passed)
}

fn renamed_base() -> TestResult {
    let project = built(
        "renamed-base",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo x > /x\n")],
    )?;
    project
        .kiln
        .run(["tag", "busybox:latest", "other:name"])?
        .success()?;
    project.write("Dockerfile", "FROM other:name\nRUN echo x > /x\n")?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

fn rebuilt_base() -> TestResult {
    let project = Project::new(
        "rebuilt-base",
        &[("Dockerfile", "FROM base:1\nRUN echo x > /x\n")],
    )?;
    let context = project.scratch("base");
    std::fs::create_dir(&context)?;
    for (label, expected) in [("one", ["RUN echo x > /x"].as_slice()), ("two", &[])] {
        // Another image with the same layers: another id and digest, the same DiffIDs.
        std::fs::write(
            context.join("Dockerfile"),
            format!("FROM busybox:latest\nLABEL l={label}\n"),
        )?;
        let mut base = project.request.clone();
        (base.context, base.tag) = (context.clone(), "base:1".to_owned());
        kiln_e2e::builder::run(&mut project.kiln.build_command(&base))?.success()?;
        ran(&project.build(&[])?, expected)?;
        ensure!(
            project.image()?.config["config"]["Labels"]["l"] == label,
            "the image has the label of the old base"
        );
    }
    Ok(Outcome::Passed)
}

fn no_cache_filter() -> TestResult {
    let dockerfile = "FROM busybox:latest AS one\nRUN echo 1 > /1\nFROM busybox:latest AS two\n\
        RUN head -c 8 /dev/urandom | od -x > /2\nFROM one AS last\nCOPY --from=two /2 /\nRUN echo 3 > /3\n";
    let project = built("no-cache-filter", &[("Dockerfile", dockerfile)])?;
    ran(
        &project.build(&["--no-cache-filter", "two"])?,
        &[
            "RUN head -c 8 /dev/urandom | od -x > /2",
            "COPY --from=two /2 /",
            "RUN echo 3 > /3",
        ],
    )?;
    ran(
        &project.build(&["--no-cache-filter", "LAST"])?,
        &["COPY --from=two /2 /", "RUN echo 3 > /3"],
    )?;
    Ok(Outcome::Passed)
}

fn reordered_stages() -> TestResult {
    let (one, two) = (
        "FROM busybox:latest AS one\nRUN echo 1 > /1\n",
        "FROM busybox:latest AS two\nRUN echo 2 > /2\n",
    );
    let last = "FROM busybox:latest\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n";
    let project = built(
        "reordered-stages",
        &[("Dockerfile", &format!("{one}{two}{last}"))],
    )?;
    project.write("Dockerfile", &format!("{two}{one}{last}"))?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

fn renamed_stage() -> TestResult {
    let dockerfile = |name: &str| {
        format!(
            "FROM busybox:latest AS {name}\nRUN echo 1 > /1\nFROM busybox:latest\nCOPY --from={name} /1 /\n"
        )
    };
    let project = built("renamed-stage", &[("Dockerfile", &dockerfile("one"))])?;
    project.write("Dockerfile", &dockerfile("other"))?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

fn changed_users() -> TestResult {
    let dockerfile = |id: &str| {
        format!(
            "FROM busybox:latest\nRUN echo me:x:{id}:{id}::/:/bin/sh >> /etc/passwd\n\
             COPY --chown=me f /named\nCOPY --chown=5 f /numbered\n"
        )
    };
    let project = built("changed-users", &[("Dockerfile", &dockerfile("77")), ("f", "f")])?;
    ensure!(
        project.shell("stat -c %u /named")? == "77\n",
        "the owner is another one"
    );
    project.write("Dockerfile", &dockerfile("78"))?;
    let steps = project.build(&[])?;
    ensure!(
        steps.iter().any(|step| step == "COPY --chown=me f /named"),
        "the copy for a user was taken from the cache: {steps:?}"
    );
    ensure!(
        project.shell("stat -c %u /named")? == "78\n",
        "the image has the old owner"
    );
    Ok(Outcome::Passed)
}

fn changed_writing() -> TestResult {
    let project = built(
        "changed-writing",
        &[
            ("Dockerfile", "FROM busybox:latest\nCOPY f /d/\nRUN echo x > /x\n"),
            ("f", "f"),
        ],
    )?;
    project.write(
        "Dockerfile",
        "# a comment\nfrom busybox:latest as named\n\ncopy   f  \\\n # inside\n  /d/\n\nrun echo x > /x\n",
    )?;
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

fn changed_order() -> TestResult {
    let project = built(
        "changed-order",
        &[
            ("Dockerfile", "FROM busybox:latest\nCOPY a /a\nCOPY b /b\n"),
            ("a", "a"),
            ("b", "b"),
        ],
    )?;
    project.write("Dockerfile", "FROM busybox:latest\nCOPY b /b\nCOPY a /a\n")?;
    ran(&project.build(&[])?, &["COPY b /b", "COPY a /a"])?;
    Ok(Outcome::Passed)
}

fn changed_heredoc() -> TestResult {
    let dockerfile =
        |text: &str| format!("FROM busybox:latest\nRUN <<E\necho {text} > /o\nE\nCOPY <<E /c\nfixed\nE\n");
    let project = built("changed-heredoc", &[("Dockerfile", &dockerfile("one"))])?;
    project.write("Dockerfile", &dockerfile("two"))?;
    ensure!(
        !project.build(&[])?.is_empty(),
        "the old script was taken for the new one"
    );
    ensure!(
        project.shell("cat /o")? == "two\n",
        "the image has the old result"
    );
    ran(&project.build(&[])?, &[])?;
    Ok(Outcome::Passed)
}

fn changed_hosts() -> TestResult {
    let step = "RUN grep -c db /etc/hosts > /x";
    let project = Project::new(
        "changed-hosts",
        &[("Dockerfile", &format!("FROM busybox:latest\n{step}\n"))],
    )?;
    ran(&project.build(&["--add-host", "db:10.0.0.1"])?, &[step])?;
    ran(&project.build(&["--add-host", "db:10.0.0.2"])?, &[])?;
    ran(&project.build(&["--add-host", "db2:10.0.0.1"])?, &[step])?;
    ran(
        &project.build(&["--add-host", "db2:10.0.0.1", "--add-host", "db3:10.0.0.1"])?,
        &[step],
    )?;
    Ok(Outcome::Passed)
}

fn changed_secret() -> TestResult {
    let step = |id: &str| format!("RUN --mount=type=secret,id={id},target=/s wc -c < /s > /x");
    let dockerfile = |id: &str| format!("FROM busybox:latest\n{}\n", step(id));
    let project = Project::new("changed-secret", &[("Dockerfile", &dockerfile("one"))])?;
    let build = |id: &str, value: &str| {
        let file = project.scratch("secret");
        std::fs::write(&file, value)?;
        project.build(&["--secret", &format!("id={id},src={}", file.display())])
    };
    ran(&build("one", "value")?, &[&step("one")])?;
    ran(&build("one", "another value")?, &[])?;
    project.write("Dockerfile", &dockerfile("two"))?;
    ran(&build("two", "value")?, &[&step("two")])?;
    Ok(Outcome::Passed)
}

/// Which directory a cache mount is must not decide what comes of a step.
fn changed_cache_mount() -> TestResult {
    let step = |mount: &str| format!("RUN --mount=type=cache,{mount} mkdir -p /c && echo x >> /c/log");
    let project = Project::new("changed-cache-mount", &[])?;
    let build = |mount: &str| {
        project.write("Dockerfile", &format!("FROM busybox:latest\n{}\n", step(mount)))?;
        project.build(&[])
    };
    ran(&build("id=one,target=/c")?, &[&step("id=one,target=/c")])?;
    // The mount holds a line more than it did, which no key tells.
    ran(&build("id=one,target=/c")?, &[])?;
    ran(&build("id=two,target=/c")?, &[])?;
    ran(&build("id=one,target=/c,sharing=locked")?, &[])?;
    ran(&build("id=one,target=/d")?, &[&step("id=one,target=/d")])?;
    ran(
        &build("id=one,target=/c,mode=0700")?,
        &[&step("id=one,target=/c,mode=0700")],
    )?;
    Ok(Outcome::Passed)
}

fn changed_bind_source() -> TestResult {
    let step = |source: &str| format!("RUN --mount=source={source},target=/in cat /in/f > /out");
    let dockerfile = |source: &str| format!("FROM busybox:latest\n{}\n", step(source));
    let files = [
        ("Dockerfile", dockerfile("one")),
        ("one/f", "same\n".to_owned()),
        ("two/f", "same\n".to_owned()),
        ("three/f", "other\n".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let project = Project::new("changed-bind-source", &files)?;
    ran(&project.build(&[])?, &[&step("one")])?;
    project.write("Dockerfile", &dockerfile("two"))?;
    ran(&project.build(&[])?, &[])?;
    project.write("Dockerfile", &dockerfile("three"))?;
    ran(&project.build(&[])?, &[&step("three")])?;
    ensure!(
        project.shell("cat /out")? == "other\n",
        "the image has the old result"
    );
    Ok(Outcome::Passed)
}
