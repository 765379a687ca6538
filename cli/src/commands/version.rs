//! `kiln version`.

use std::process::ExitCode;

use serde_json::json;

use crate::arguments::Version;
use crate::report::Failure;

/// Runs `kiln version`.
pub(crate) fn run(arguments: &Version) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let platform = kiln_image::Platform::host().to_string();
    if super::is_json(arguments.format.as_deref(), "text")? {
        super::print_json(&json!({ "Version": version, "Platform": platform }))?;
    } else {
        super::print(&format!("kiln {version} ({platform})\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
