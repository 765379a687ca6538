//! `kiln info`: what this machine gives, and what is missing for which feature.

use std::fmt::Write as _;
use std::process::ExitCode;

use kiln_executor::probe::Features;
use serde_json::json;

use crate::arguments::{Global, Info};
use crate::machine::Machine;
use crate::report::Failure;
use crate::table::Table;

/// Runs `kiln info`.
pub(crate) fn run(machine: &Machine, arguments: &Info) -> Result<ExitCode, Failure> {
    let as_json = super::is_json(arguments.format.as_deref(), "text")?;
    let store = machine.store()?;
    let images = super::images::count(&store)?;
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
    let _ = writeln!(
        text,
        "Rootless:   {}",
        if machine.entered.rootless { "yes" } else { "no" }
    );
    if let Some(note) = &machine.entered.note {
        let _ = writeln!(text, "            {note}");
    }
    features_table(&mut text, &features);
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What there is where not even the namespaces can be had. The caller tells why.
pub(crate) fn without_namespaces(
    global: &Global,
    arguments: &Info,
    failure: &Failure,
) -> Result<(), Failure> {
    let root = Machine::root_of(global)?;
    let features = kiln_executor::probe::features(&root).without_user_namespaces(&failure.message_text());
    if super::is_json(arguments.format.as_deref(), "text")? {
        return super::print_json(&json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "Root": root,
            "Features": features,
        }));
    }
    let mut text = format!(
        "Version:    {}\nRoot:       {}\n",
        env!("CARGO_PKG_VERSION"),
        root.display()
    );
    features_table(&mut text, &features);
    super::print(&text)
}

fn features_table(text: &mut String, features: &Features) {
    let _ = writeln!(text, "Kernel:     {} {}", features.kernel, features.machine);
    let _ = writeln!(text, "\nWhat this machine gives:");
    let mut table = Table::new(&["", "FEATURE", "DETAIL", "NEEDED FOR"]);
    for feature in &features.features {
        let mark = if feature.available { "yes" } else { "NO" };
        let detail = feature
            .detail
            .clone()
            .or_else(|| feature.why_not.clone())
            .unwrap_or_default();
        let needed = if feature.available {
            feature.needed_for.to_owned()
        } else {
            format!("{}; without it: {}", feature.needed_for, feature.fallback)
        };
        table.row(vec![mark.to_owned(), feature.name.to_owned(), detail, needed]);
    }
    text.push_str(&table.render());
}
