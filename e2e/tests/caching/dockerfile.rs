//! What the Dockerfile says, and what of it is no matter.

use super::{built, ran};
use kiln_e2e::ensure;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};

pub(super) fn shared_between_dockerfiles() -> TestResult {
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

pub(super) fn changed_metadata() -> TestResult {
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

pub(super) fn reordered_stages() -> TestResult {
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

pub(super) fn renamed_stage() -> TestResult {
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

pub(super) fn changed_writing() -> TestResult {
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

pub(super) fn changed_order() -> TestResult {
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

pub(super) fn changed_heredoc() -> TestResult {
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
