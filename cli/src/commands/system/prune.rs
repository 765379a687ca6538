//! `kiln system prune`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use kiln_cache::disk::{self, Filter, Prune};
use kiln_cache::{ImageRecord, Store};
use kiln_container::{Container, Containers, Status};

use super::super::cache::prune::{confirm, deleted, total, until};
use super::used_images;
use crate::arguments::SystemPrune;
use crate::machine::Machine;
use crate::report::{self, Failure};

/// Runs `kiln system prune`.
pub(super) fn run(machine: &Machine, arguments: &SystemPrune) -> Result<ExitCode, Failure> {
    let age = age(&arguments.filter)?;
    let store = machine.store()?;
    let what = [
        "all stopped containers",
        if arguments.all {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        },
        if arguments.all {
            "all build cache"
        } else {
            "unused build cache"
        },
    ];
    if !arguments.force && !arguments.dry_run && !confirm(&what.map(str::to_owned))? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    let (stopped, stay) = containers(&store, age)?;
    let mut bytes = 0;
    if !stopped.is_empty() {
        let _ = writeln!(text, "{}Containers:", verb(arguments.dry_run));
    }
    for container in stopped {
        let size = disk::bytes_of(container.folder())?;
        let id = container.state().id.clone();
        if !arguments.dry_run
            && let Err(error) = container.remove(false)
        {
            // Somebody runs it by now.
            report::warning(&report::chain(&error));
            continue;
        }
        bytes += size;
        let _ = writeln!(text, "{id}");
    }
    if bytes > 0 {
        text.push('\n');
    }
    text += &images(&store, arguments, age, &stay)?;
    let request = Prune {
        all: arguments.all,
        filter: Filter {
            unused_for: age,
            ..Filter::default()
        },
        dry_run: arguments.dry_run,
        ..Prune::default()
    };
    let pruned = disk::prune(&store, &request)?;
    text += &deleted(&pruned, arguments.dry_run);
    text += &total(bytes + pruned.bytes, arguments.dry_run);
    super::super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn verb(dry_run: bool) -> &'static str {
    if dry_run { "Would delete " } else { "Deleted " }
}

/// The values of `--filter`: only `until` is known.
fn age(values: &[String]) -> Result<Option<Duration>, Failure> {
    let mut age = None;
    for text in values {
        match text.split_once('=') {
            Some(("until", value)) => age = Some(until(text, value)?),
            _ => {
                return Err(
                    Failure::usage(format!("--filter {text}: there is no such filter"))
                        .hint("the filter is until=DURATION"),
                );
            }
        }
    }
    Ok(age)
}

/// Whether something that was made at `created` (RFC 3339) is old enough.
fn is_old(created: Option<&str>, age: Option<Duration>) -> bool {
    let Some(age) = age else { return true };
    let made = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    // What has no date was not made lately.
    made.is_none_or(|made| {
        let passed = jiff::Timestamp::now().duration_since(made);
        Duration::try_from(passed).is_ok_and(|passed| passed >= age)
    })
}

/// The containers that go, and those that stay.
fn containers(
    store: &std::sync::Arc<Store>,
    age: Option<Duration>,
) -> Result<(Vec<Container>, Vec<Container>), Failure> {
    // One that was created and is not run yet may be in the hands of its `kiln run`: its lock tells when it is removed.
    Ok(Containers::new(store).list()?.into_iter().partition(|container| {
        let state = container.state();
        state.status == Status::Exited && is_old(Some(&state.created), age)
    }))
}

fn images(
    store: &Store,
    arguments: &SystemPrune,
    age: Option<Duration>,
    containers: &[Container],
) -> Result<String, Failure> {
    let used = used_images(containers);
    let indexes = store.images().indexes()?;
    let names_of = |record: &ImageRecord| -> Vec<String> {
        let of = indexes
            .iter()
            .filter(|index| index.images.iter().any(|entry| entry.image == record.id));
        record
            .names
            .iter()
            .chain(of.flat_map(|index| &index.names))
            .cloned()
            .collect()
    };
    let mut text = String::new();
    for record in store.images().list()? {
        let names = names_of(&record);
        let goes = !used.contains(&record.id)
            && (arguments.all || names.is_empty())
            && is_old(record.created.as_deref(), age);
        if !goes {
            continue;
        }
        if arguments.dry_run {
            let _ = writeln!(text, "deleted: {}", record.id);
            continue;
        }
        // By its id, or by the names of the multi-platform image that it belongs to.
        let own = record.names.is_empty() && !names.is_empty();
        let targets = if own { names } else { vec![record.id.to_string()] };
        for target in targets {
            match store.images().remove(&target, true) {
                Ok(removed) => {
                    for name in removed.untagged {
                        let _ = writeln!(text, "untagged: {name}");
                    }
                    for id in removed.deleted {
                        let _ = writeln!(text, "deleted: {id}");
                    }
                }
                // Gone with another one, or a part of one that stays.
                Err(kiln_cache::Error::ImageNotFound(_) | kiln_cache::Error::ImageInIndex { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(if text.is_empty() {
        text
    } else {
        format!("{}Images:\n{text}\n", verb(arguments.dry_run))
    })
}
