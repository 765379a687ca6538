//! Images: lists, names, JSON.

use super::{hello, image_id};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;

/// A table's header, split where its columns start, and its rows split at the same places.
fn table(text: &str, columns: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut lines = text.lines();
    let header = lines.next().ok_or("no header")?;
    let mut starts = Vec::new();
    let mut from = 0;
    for column in columns {
        let at = header[from..]
            .find(column)
            .ok_or_else(|| format!("no column {column} in {header:?}"))?
            + from;
        starts.push(at);
        from = at + column.len();
    }
    let words: Vec<&str> = header
        .split("  ")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    ensure!(words == columns, "the header is {header:?}");
    let cell = |line: &str, start: usize, end: usize| {
        line.chars()
            .skip(start)
            .take(end - start)
            .collect::<String>()
            .trim()
            .to_owned()
    };
    let row = |line: &str| {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX / 2]);
        starts
            .iter()
            .zip(ends)
            .map(|(start, end)| cell(line, *start, end))
            .collect()
    };
    Ok(lines.map(row).collect())
}

pub(super) fn images_columns() -> TestResult {
    let project = hello("columns")?;
    project.build(&[])?;
    let id = image_id(&project, "columns:test")?;
    let short = id
        .trim_start_matches("sha256:")
        .chars()
        .take(12)
        .collect::<String>();
    let listed = project.kiln.run(["images"])?.success()?.stdout;
    let rows = table(&listed, &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"])?;
    let row = rows
        .iter()
        .find(|row| row[0] == "columns")
        .ok_or_else(|| format!("not listed:\n{listed}"))?;
    ensure!(
        row[1] == "test" && row[2] == short,
        "the row is {row:?}, the id {id}"
    );
    ensure!(
        row[3].ends_with("ago") && row[4].ends_with("MB"),
        "the row is {row:?}"
    );
    ensure!(
        rows.iter().any(|row| row[0] == "busybox" && row[1] == "latest"),
        "the base is not listed:\n{listed}"
    );
    let quiet = project.kiln.run(["images", "-q"])?.success()?.stdout;
    ensure!(
        quiet.lines().any(|line| line == short),
        "images -q prints {quiet:?}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn tag_and_rmi() -> TestResult {
    let project = hello("rmi")?;
    project.build(&[])?;
    let id = image_id(&project, "rmi:test")?;
    project.kiln.run(["tag", "rmi:test", "other:name"])?.success()?;
    ensure!(
        image_id(&project, "other:name")? == id,
        "the new name is another image"
    );
    let untagged = project.kiln.run(["rmi", "rmi:test"])?.success()?.stdout;
    ensure!(untagged.contains("Untagged: rmi:test"), "rmi prints {untagged:?}");
    project.kiln.run(["run", "--rm", "other:name"])?.success()?;
    let deleted = project.kiln.run(["rmi", "other:name"])?.success()?.stdout;
    ensure!(
        deleted.contains("Untagged: other:name") && deleted.contains(&format!("Deleted: {id}")),
        "rmi prints {deleted:?}"
    );
    let unknown = project.kiln.run(["rmi", "other:name"])?.failure(1)?;
    ensure!(
        unknown.to_lowercase().contains("no such image"),
        "rmi of nothing says {unknown:?}"
    );
    project.kiln.run(["tag", "none:none", "x"])?.failure(1)?;
    Ok(Outcome::Passed)
}

pub(super) fn inspect() -> TestResult {
    let project = hello("inspect")?;
    project.build(&[])?;
    let shown = project.kiln.run(["inspect", "inspect:test"])?.success()?.stdout;
    let value: Value = serde_json::from_str(&shown)?;
    let image = &value[0];
    ensure!(
        image["RepoTags"] == serde_json::json!(["inspect:test"]),
        "RepoTags is {}",
        image["RepoTags"]
    );
    ensure!(image["Os"] == "linux", "Os is {}", image["Os"]);
    ensure!(
        image["Config"]["Cmd"] == serde_json::json!(["cat", "/f"]),
        "Config.Cmd is {}",
        image["Config"]["Cmd"]
    );
    ensure!(
        image["RootFS"]["Type"] == "layers",
        "RootFS is {}",
        image["RootFS"]
    );
    let layers = image["RootFS"]["Layers"].as_array().map(Vec::len);
    ensure!(
        layers == Some(project.image()?.diff_ids.len()),
        "RootFS.Layers is {}",
        image["RootFS"]["Layers"]
    );
    ensure!(
        image["Size"].as_u64().is_some_and(|size| size > 1_000_000),
        "Size is {}",
        image["Size"]
    );
    project.kiln.run(["inspect", "none:none"])?.failure(1)?;
    Ok(Outcome::Passed)
}

pub(super) fn history_columns() -> TestResult {
    let project = hello("history")?;
    project.build(&[])?;
    let shown = project.kiln.run(["history", "history:test"])?.success()?.stdout;
    let rows = table(&shown, &["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"])?;
    ensure!(rows.len() >= 5, "{} rows:\n{shown}", rows.len());
    ensure!(
        rows[0][2].starts_with("CMD [\"cat\""),
        "the newest entry is not first:\n{shown}"
    );
    ensure!(rows[0][3] == "0B", "a CMD has a size:\n{shown}");
    ensure!(
        rows.iter().any(|row| row[2].contains("COPY f /f")),
        "no COPY:\n{shown}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn version_and_info() -> TestResult {
    let project = Project::with_bases("version", &[], &[])?;
    let version = project.kiln.run(["version"])?.success()?.stdout;
    ensure!(
        version.chars().any(|character| character.is_ascii_digit()),
        "version prints {version:?}"
    );
    let info = project.kiln.run(["info"])?.success()?.stdout;
    for word in ["overlay", "cgroup", "seccomp"] {
        ensure!(
            info.to_lowercase().contains(word),
            "info says nothing about {word}:\n{info}"
        );
    }
    Ok(Outcome::Passed)
}
