//! The commands: what they print where, in which columns, and how they end.

mod archives;
mod build;
mod images;
mod run;

use kiln_e2e::Result;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named};
use serde_json::Value;
use std::process::ExitCode;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("progress plain has the known lines", build::progress_plain),
        ("progress rawjson is JSON lines", build::progress_rawjson),
        ("progress goes to stderr, results to stdout", build::streams),
        (
            "failed step shows its end and keeps its log",
            build::failed_step_log,
        ),
        ("exit codes of build", build::exit_codes_of_build),
        ("exit codes of run", run::exit_codes_of_run),
        ("iidfile and quiet name the image", build::iidfile_and_quiet),
        ("several tags", build::several_tags),
        ("images has docker's columns", images::images_columns),
        ("tag and rmi", images::tag_and_rmi),
        ("inspect is docker's JSON", images::inspect),
        ("history has docker's columns", images::history_columns),
        ("version and info", images::version_and_info),
        (
            "run takes environment, folder, user and entrypoint",
            run::run_options,
        ),
        ("run binds folders", run::run_binds),
        ("run passes stdin and large output", run::run_streams),
        ("run leaves nothing behind", run::run_leaves_nothing),
        ("import takes a stream and changes", archives::import_changes),
        (
            "export is taken by skopeo, umoci and crun",
            archives::export_is_taken,
        ),
        (
            "partial lines and bytes of a step stay intact",
            build::step_output,
        ),
    ];
    trial::run_all("commands", tests)
}

fn hello(name: &str) -> Result<Project> {
    let dockerfile = "FROM busybox:latest AS first\nRUN echo hello from the step\nFROM first\nCOPY f /f\nENV A=b\nCMD [\"cat\", \"/f\"]\n";
    Project::new(name, &[("Dockerfile", dockerfile), ("f", "content\n")])
}

fn image_id(project: &Project, name: &str) -> Result<String> {
    let ended = project.kiln.run(["inspect", name])?.success()?;
    let value: Value = serde_json::from_str(&ended.stdout)?;
    Ok(value[0]["Id"].as_str().ok_or("inspect shows no Id")?.to_owned())
}
