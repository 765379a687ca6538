//! The image below: its content, its users, and steps that do not look at it.

use super::{built, ran};
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};

pub(super) fn changed_base() -> TestResult {
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
pub(super) fn linked_copy() -> TestResult {
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

pub(super) fn renamed_base() -> TestResult {
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

pub(super) fn rebuilt_base() -> TestResult {
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

pub(super) fn changed_users() -> TestResult {
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
