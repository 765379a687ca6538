//! `kiln info`: what this machine gives, and what is missing for which feature.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;

use crate::arguments::Info;
use crate::machine::Machine;
use crate::report::Failure;

/// Runs `kiln info`.
pub(crate) fn run(machine: &Machine, arguments: &Info) -> Result<ExitCode, Failure> {
    let as_json = super::is_json(arguments.format.as_deref(), "text")?;
    let store = machine.store()?;
    let images = store.images().list()?.len();
    let containers = kiln_container::Containers::new(&store).list()?.len();
    let features = kiln_executor::probe::features(&machine.root);
    if as_json {
        super::print_json(&json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "Root": machine.root,
            "Rootless": machine.entered.rootless,
            "Namespaces": machine.entered,
            "Images": images,
            "Containers": containers,
            "Features": features,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    let _ = writeln!(text, "Version:    {}", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "Root:       {}", machine.root.display());
    let _ = writeln!(text, "Images:     {images}");
    let _ = writeln!(text, "Containers: {containers}");
    let _ = writeln!(text, "Rootless:   {}", if machine.entered.rootless { "yes" } else { "no" });
    if let Some(note) = &machine.entered.note {
        let _ = writeln!(text, "            {note}");
    }
    let _ = write!(text, "{features}");
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
