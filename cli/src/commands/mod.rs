//! One file a command. Each has `run`, which takes what was typed and gives the exit code.

mod build;
mod builds;
mod cache;
mod compression;
mod history;
mod image;
mod images;
mod import;
mod info;
mod inspect;
mod list;
mod load;
mod login;
mod prune;
mod ps;
mod pull;
mod push;
mod rm;
mod rmi;
mod run;
mod save;
mod stdin;
mod system;
mod tag;
mod version;
mod why;

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use kiln_cache::{ImageRecord, Store};
use kiln_image::Platform;

use crate::arguments::{Command, Kiln};
use crate::machine::Machine;
use crate::report::Failure;

/// Runs the command.
pub(crate) fn dispatch(kiln: Kiln) -> Result<ExitCode, Failure> {
    if let Command::Version(arguments) = &kiln.command {
        return version::run(arguments);
    }
    let machine = Machine::new(&kiln.global);
    if let (Err(failure), Command::Info(arguments)) = (&machine, &kiln.command) {
        info::without_namespaces(&kiln.global, arguments, failure)?;
    }
    let machine = machine?;
    match kiln.command {
        Command::Build(arguments) => build::run(&machine, &arguments),
        Command::Run(arguments) => run::run(&machine, &arguments),
        Command::Ps(arguments) => ps::run(&machine, &arguments),
        Command::Rm(arguments) => rm::run(&machine, &arguments),
        Command::Images(arguments) => images::run(&machine, &arguments),
        Command::Rmi(arguments) => rmi::run(&machine, &arguments),
        Command::Image(command) => image::run(&machine, &command),
        Command::Tag(arguments) => tag::run(&machine, &arguments),
        Command::Inspect(arguments) => inspect::run(&machine, &arguments),
        Command::History(arguments) => history::run(&machine, &arguments),
        Command::Pull(arguments) => pull::run(&machine, &arguments),
        Command::Push(arguments) => push::run(&machine, &arguments),
        Command::Login(arguments) => login::login(&machine, &arguments),
        Command::Logout(arguments) => login::logout(&machine, &arguments),
        Command::Import(arguments) => import::run(&machine, &arguments),
        Command::Save(arguments) => save::run(&machine, &arguments),
        Command::Load(arguments) => load::run(&machine, &arguments),
        Command::Why(arguments) => why::run(&machine, &arguments),
        Command::Builds(arguments) => builds::run(&machine, &arguments),
        Command::Cache(arguments) => cache::run(&machine, &arguments),
        Command::System(arguments) => system::run(&machine, &arguments),
        Command::Version(arguments) => version::run(&arguments),
        Command::Info(arguments) => info::run(&machine, &arguments),
    }
}

/// Writes a result to standard output. A reader that has gone away (`kiln images | head -1`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::io("write to", "standard output", error)),
        Ok(()) => Ok(()),
    }
}

/// The value of `--format`: whether it is JSON.
fn is_json(format: Option<&str>, other: &str) -> Result<bool, Failure> {
    match format {
        None => Ok(false),
        Some("json") => Ok(true),
        Some(text) if text == other => Ok(false),
        Some(text) if text.contains("{{") || text.starts_with("table ") => Err(Failure::usage(format!(
            "--format {text:?}: Go templates are not supported yet"
        ))
        .hint("use --format json, and jq to pick from it")),
        Some(text) if other == "json" => Err(Failure::usage(format!("--format {text:?}: expected json"))),
        Some(text) => Err(Failure::usage(format!(
            "--format {text:?}: expected {other} or json"
        ))),
    }
}

/// The value of `--platform`, and whether there was one.
fn platform(text: Option<&str>) -> Result<(Platform, bool), Failure> {
    let values: Vec<String> = text
        .map(|text| text.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    match platforms(&values)?.as_slice() {
        [] => Ok((Platform::host(), false)),
        [platform] => Ok((platform.clone(), true)),
        _ => Err(Failure::usage(format!(
            "--platform {}: only one platform at a time is possible here",
            values.join(",")
        ))),
    }
}

/// The values of `--platform`, each once; `local` is this machine's.
fn platforms(values: &[String]) -> Result<Vec<Platform>, Failure> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in values
        .iter()
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
    {
        let platform = if text == "local" {
            Platform::host()
        } else {
            text.parse::<Platform>()
                .map_err(|error| {
                    Failure::usage(format!("--platform {text}: {error}"))
                        .hint("a platform is os/architecture[/variant], for example linux/arm64")
                })?
                .normalized()
        };
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// The image that `text` stands for, on a platform if one is wanted.
fn image(store: &Store, text: &str, platform: Option<&Platform>) -> Result<ImageRecord, Failure> {
    let found = store.images().find(text)?;
    let found = found.ok_or_else(|| Failure::error(&kiln_cache::Error::ImageNotFound(text.to_owned())))?;
    let available = found.platforms();
    let record = store.images().pick(found, platform)?;
    record.ok_or_else(|| match platform {
        Some(platform) => no_platform(text, platform, &available),
        None => Failure::message(format!("the image of {text} is lost")),
    })
}

fn no_platform(image: &str, wanted: &Platform, available: &[Platform]) -> Failure {
    let names: Vec<String> = available.iter().map(ToString::to_string).collect();
    Failure::message(format!("{image} has no image for {wanted}"))
        .hint(format!("it has images for {}", names.join(", ")))
}

/// One JSON value, indented, as a result.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::error(&error))?;
    print(&format!("{}\n", without_controls(&text)))
}

/// JSON in which no string has a control character as it is. The usual way escapes those below the space only, and
/// terminals obey the others as well.
fn without_controls(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        match u32::from(character) {
            code @ 0x7f..=0x9f => {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{code:04x}");
            }
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn json_leaves_the_terminal_as_it_is() {
        let json = serde_json::to_string("a\u{1b}\u{7f}\u{9b}ä").unwrap();
        let shown = super::without_controls(&json);
        assert_eq!(shown, "\"a\\u001b\\u007f\\u009bä\"");
        let read: String = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, "a\u{1b}\u{7f}\u{9b}ä");
    }
}
