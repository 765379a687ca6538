//! `prune` in its forms: what it says, asks and deletes.

use crate::{dockerfile, json, names, total};
use kiln_e2e::builder::{Ended, run};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};

pub(crate) fn answers() -> TestResult {
    let project = Project::new("disk-answers", &[("Dockerfile", &dockerfile(1))])?;
    project.build(&[])?;
    let kiln = &project.kiln;
    kiln.run(["rmi", &project.request.tag])?.success()?;
    let ask = |arguments: &[&str], answer: &str| -> Result<Ended> {
        let path = project.scratch("answer");
        std::fs::write(&path, answer)?;
        run(kiln
            .command(arguments.iter().copied())
            .stdin(std::fs::File::open(path)?))
    };
    let before = total(kiln)?;
    for (arguments, question) in [
        (
            &["cache", "prune"][..],
            "WARNING! This will remove all build cache that no image has, too.\n",
        ),
        (
            &["image", "prune"],
            "WARNING! This will remove all dangling images.\n",
        ),
        (
            &["image", "prune", "-a"],
            "WARNING! This will remove all images without at least one container associated to them.\n",
        ),
        (
            &["system", "prune", "--filter", "until=1s"],
            "WARNING! This will remove:\n  - all stopped containers\n  - all dangling images\n  - unused build cache\n\n  \
             Items to be pruned will be filtered with:\n  - until=1s\n\n",
        ),
    ] {
        let silent = ask(arguments, "")?;
        let wanted = format!("{question}Are you sure you want to continue? [y/N] ");
        ensure!(silent.stdout.starts_with(&wanted), "{arguments:?}: {silent:?}");
        ensure!(
            silent.failure(1)?.contains("--force"),
            "{arguments:?}: no word of --force"
        );
        let no = ask(arguments, "n\n")?.success()?;
        ensure!(no.stdout == wanted, "{arguments:?}: {}", no.stdout);
    }
    ensure!(total(kiln)?.abs_diff(before) < 20_000, "something was deleted");
    let yes = ask(&["cache", "prune"], "y\n")?.success()?;
    ensure!(
        yes.stdout.contains("Deleted build cache objects:\n"),
        "{}",
        yes.stdout
    );
    ensure!(total(kiln)? + 100_000 < before, "nothing was deleted");
    Ok(Outcome::Passed)
}

pub(crate) fn image_prune() -> TestResult {
    let project = Project::new(
        "disk-image",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo 1 > /f\n")],
    )?;
    let kiln = &project.kiln;
    project.build(&[])?;
    let first = kiln
        .run(["images", "-q", "--no-trunc", "disk-image"])?
        .success()?
        .stdout;
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo 2 > /f\n")?;
    project.build(&[])?;
    let dry = kiln.run(["image", "prune", "--dry-run"])?.success()?.stdout;
    // What a step made is cache from now on: only what describes the image is given back.
    let wanted =
        format!("Images that would be deleted:\ndeleted: {first}\nTotal space that would be reclaimed: ");
    ensure!(dry.starts_with(&wanted), "{dry}");
    let young = kiln
        .run(["image", "prune", "-f", "--filter", "until=1h"])?
        .success()?
        .stdout;
    ensure!(young == "Total reclaimed space: 0B\n", "{young}");
    let said = kiln.run(["image", "prune", "-f"])?.success()?.stdout;
    ensure!(
        said.starts_with(&format!(
            "Deleted Images:\ndeleted: {first}\nTotal reclaimed space: "
        )),
        "{said}"
    );
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo 1 > /f\n")?;
    ensure!(project.build(&[])?.is_empty(), "the step was not kept as cache");
    // The base is no step's result, but the steps stand on it. Without them it goes with its image.
    kiln.run(["rmi", &project.request.tag])?.success()?;
    kiln.run(["cache", "prune", "-f", "--all"])?.success()?;
    let said = kiln.run(["image", "prune", "-f", "-a"])?.success()?.stdout;
    ensure!(
        said.contains("untagged: busybox:latest\n") && !said.contains("space: 0B"),
        "{said}"
    );
    let left = names(&kiln.root.join("layers"))?;
    ensure!(left.is_empty(), "layers are left: {left:?}");
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

pub(crate) fn labels() -> TestResult {
    let project = Project::new("disk-labels", &[])?;
    let kiln = &project.kiln;
    for stage in ["test", "prod"] {
        project.write(
            "Dockerfile",
            &format!("FROM busybox:latest\nRUN echo {stage} > /f\nLABEL stage={stage}\n"),
        )?;
        project.build(&["-t", &format!("labelled:{stage}")])?;
        kiln.run(["run", "--name", stage, &format!("labelled:{stage}"), "true"])?
            .success()?;
    }
    let listed = |what: &[&str]| Ok::<_, kiln_e2e::Error>(kiln.run(what.iter().copied())?.success()?.stdout);
    let said = listed(&["image", "prune", "-af", "--filter", "label=stage"])?;
    ensure!(
        said == "Total reclaimed space: 0B\n",
        "containers use them: {said}"
    );
    let before = total(kiln)?;
    let said = listed(&["system", "prune", "-af", "--filter", "label=stage=test"])?;
    ensure!(
        said.contains("Deleted Containers:\n") && said.contains("untagged: labelled:test\n"),
        "{said}"
    );
    ensure!(
        !said.contains("labelled:prod") && !said.contains("busybox") && !said.contains("build cache"),
        "{said}"
    );
    ensure!(total(kiln)? < before, "nothing was given back");
    let containers = listed(&["ps", "-a"])?;
    ensure!(
        containers.contains("prod") && !containers.contains("test"),
        "{containers}"
    );
    let said = listed(&["system", "prune", "-af", "--filter", "label!=stage=prod"])?;
    ensure!(
        said.contains("busybox") && !said.contains("labelled:prod"),
        "{said}"
    );
    ensure!(
        listed(&["run", "--rm", "labelled:prod", "cat", "/f"])? == "prod\n",
        "it lost its files"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn dry_run() -> TestResult {
    let project = Project::new("disk-dry", &[("Dockerfile", &dockerfile(1))])?;
    project.build(&[])?;
    project.write("more", "x")?;
    project.build(&[])?;
    let kiln = &project.kiln;
    let before = json(kiln, &["cache", "du", "--format", "json"])?;
    for arguments in [
        &["cache", "prune", "--dry-run"][..],
        &["cache", "prune", "--all", "--dry-run"],
        &["system", "prune", "--all", "--dry-run"],
    ] {
        let said = kiln.run(arguments.iter().copied())?.success()?.stdout;
        ensure!(said.contains("would be"), "{said}");
        ensure!(!said.contains("space that would be reclaimed: 0B"), "{said}");
    }
    let after = json(kiln, &["cache", "du", "--format", "json"])?;
    for part in ["Cache", "Images"] {
        ensure!(
            before[part] == after[part],
            "{part}: {} became {}",
            before[part],
            after[part]
        );
    }
    ensure!(project.build(&[])?.is_empty(), "a step ran again");
    Ok(Outcome::Passed)
}

pub(crate) fn everything_goes() -> TestResult {
    let project = Project::new("disk-all", &[("Dockerfile", &dockerfile(2))])?;
    project.build(&[])?;
    let kiln = &project.kiln;
    let full = total(kiln)?;
    for image in [project.request.tag.as_str(), "busybox:latest"] {
        kiln.run(["rmi", image])?.success()?;
    }
    ensure!(total(kiln)? * 10 > full * 9, "layers went with their image");
    let said = kiln
        .run(["cache", "prune", "--all", "--force"])?
        .success()?
        .stdout;
    ensure!(
        said.starts_with("Deleted build cache objects:\nb3-") || said.contains("\nb3-"),
        "{said}"
    );
    for folder in ["layers", "records", "mounts", "blobs/sha256"] {
        let left = names(&kiln.root.join(folder))?;
        // The shards of records stay.
        let left: Vec<_> = left.into_iter().filter(|name| name.len() > 2).collect();
        ensure!(left.is_empty(), "{folder} still has {left:?}");
    }
    let left = names(&kiln.root.join("tmp"))?;
    ensure!(left == ["partial"], "tmp still has {left:?}");
    let report = kiln.run(["cache", "verify"])?.success()?.stdout;
    ensure!(report.contains("no damage"), "{report}");
    Ok(Outcome::Passed)
}

pub(crate) fn system_prune() -> TestResult {
    let project = Project::new(
        "disk-system",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo 1 > /f\n")],
    )?;
    let kiln = &project.kiln;
    project.build(&[])?;
    // The name moves on: the first image is dangling.
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo 2 > /f\n")?;
    project.build(&[])?;
    ensure!(
        kiln.run(["images", "-q"])?.success()?.stdout.lines().count() == 3,
        "not three images"
    );
    let said = kiln
        .run(["system", "prune", "--force", "--filter", "until=1h"])?
        .success()?
        .stdout;
    ensure!(said == "Total reclaimed space: 0B\n", "{said}");
    let said = kiln.run(["system", "prune", "--force"])?.success()?.stdout;
    ensure!(
        said.starts_with("Deleted Images:\ndeleted: sha256:")
            && said.contains("Deleted build cache objects:\n"),
        "{said}"
    );
    ensure!(
        kiln.run(["images", "-q"])?.success()?.stdout.lines().count() == 2,
        "not two images"
    );
    ensure!(
        project.build(&[])?.is_empty(),
        "what the image is made of was not kept"
    );
    kiln.run(["system", "prune", "--force", "--all"])?.success()?;
    ensure!(
        kiln.run(["images", "-q"])?.success()?.stdout.is_empty(),
        "images are left"
    );
    ensure!(names(&kiln.root.join("layers"))?.is_empty(), "layers are left");
    Ok(Outcome::Passed)
}

pub(crate) fn refused() -> TestResult {
    let project = Project::new("disk-refused", &[])?;
    let kiln = &project.kiln;
    let table: [(&[&str], &str); 5] = [
        (
            &["cache", "prune", "--keep", "plenty"],
            "--keep plenty: it is no size",
        ),
        (&["cache", "prune", "--filter", "type=x"], "there is no such type"),
        (
            &["cache", "prune", "--filter", "color=red"],
            "there is no such filter",
        ),
        (
            &["cache", "prune", "--filter", "until=soon"],
            "neither a length of time nor a moment",
        ),
        (
            &["system", "prune", "--filter", "dangling=true"],
            "there is no such filter",
        ),
    ];
    for (arguments, message) in table {
        let ended = kiln.run(arguments.iter().copied())?;
        let stderr = ended.failure(2)?;
        ensure!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
    std::fs::write(kiln.config(), "[cache]\nmax-size = \"much\"\n")?;
    let stderr = kiln.run(["images"])?.failure(1)?;
    ensure!(stderr.contains("line 2") && stderr.contains("much"), "{stderr}");
    Ok(Outcome::Passed)
}
