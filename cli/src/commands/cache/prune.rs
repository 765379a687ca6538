//! `kiln cache prune`.

use std::fmt::Write as _;
use std::io::{BufRead, Read};
use std::process::ExitCode;
use std::time::Duration;

use kiln_cache::disk::{self, Filter, ItemType, Keep, Prune, Pruned};

use crate::amount;
use crate::arguments::CachePrune;
use crate::format;
use crate::machine::Machine;
use crate::report::Failure;

/// An answer has no more bytes than that.
const ANSWER: u64 = 100;

/// Runs `kiln cache prune`.
pub(super) fn run(machine: &Machine, arguments: &CachePrune) -> Result<ExitCode, Failure> {
    let request = Prune {
        all: arguments.all,
        filter: filter(&arguments.filter)?,
        keep: Keep {
            reserved: size("--keep", arguments.keep.as_deref())?,
            max_used: size("--max-used-space", arguments.max_used_space.as_deref())?,
            min_free: size("--min-free-space", arguments.min_free_space.as_deref())?,
            max_size: size("--max-size", arguments.max_size.as_deref())?,
        },
        dry_run: arguments.dry_run,
        ..Prune::default()
    };
    let what = if arguments.all {
        "all build cache"
    } else {
        "all build cache that no image has, too"
    };
    let store = machine.store()?;
    if !arguments.force && !arguments.dry_run && !confirm(&format!("WARNING! This will remove {what}.\n"))? {
        return Ok(ExitCode::SUCCESS);
    }
    let pruned = disk::prune(&store, &request)?;
    let mut text = deleted(&pruned, request.dry_run);
    text += &total(pruned.bytes, request.dry_run);
    crate::commands::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What was deleted, in Docker's words.
pub(in crate::commands) fn deleted(pruned: &Pruned, dry_run: bool) -> String {
    if pruned.items.is_empty() {
        return String::new();
    }
    let mut text = if dry_run {
        "Build cache objects that would be deleted:\n".to_owned()
    } else {
        "Deleted build cache objects:\n".to_owned()
    };
    for item in &pruned.items {
        let _ = writeln!(text, "{}", item.id);
    }
    text + "\n"
}

/// The last line.
pub(in crate::commands) fn total(bytes: u64, dry_run: bool) -> String {
    let what = if dry_run {
        "Total space that would be reclaimed"
    } else {
        "Total reclaimed space"
    };
    format!("{what}: {}\n", format::size(bytes))
}

/// Asks whether to do what `warning` says. Without a terminal the answer may come by a pipe, as with Docker; where there
/// is none, nothing is done, and that is no success.
pub(in crate::commands) fn confirm(warning: &str) -> Result<bool, Failure> {
    crate::commands::print(&format!("{warning}Are you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    let read = std::io::stdin()
        .lock()
        .take(ANSWER)
        .read_line(&mut answer)
        .map_err(|error| Failure::io("read from", "standard input", error))?;
    if read == 0 {
        crate::commands::print("\n")?;
        return Err(Failure::message("nothing was deleted: there was no answer")
            .hint("use --force to delete without being asked"));
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn size(flag: &str, text: Option<&str>) -> Result<Option<u64>, Failure> {
    let read = |text: &str| {
        amount::size(text).ok_or_else(|| {
            Failure::usage(format!("{flag} {text}: it is no size")).hint("write 512MB, 20GB, 20GiB or bytes")
        })
    };
    text.map(read).transpose()
}

/// The values of `--filter`.
fn filter(values: &[String]) -> Result<Filter, Failure> {
    let mut filter = Filter::default();
    for text in values {
        let wrong = |why: String| Failure::usage(format!("--filter {text}: {why}"));
        let (name, value) = match text.split_once('=') {
            // BuildKit's own form has two of them: `type==regular`.
            Some((name, value)) => (name, Some(value.strip_prefix('=').unwrap_or(value))),
            None => (text.as_str(), None),
        };
        match (name, value) {
            ("until" | "unused-for", Some(value)) => filter.unused_for = Some(until(text, value)?),
            ("type", Some(value)) => {
                let kind = ItemType::ALL.into_iter().find(|kind| kind.name() == value);
                filter.kinds.push(kind.ok_or_else(|| {
                    let names: Vec<&str> = ItemType::ALL.iter().map(|kind| kind.name()).collect();
                    wrong("there is no such type".to_owned()).hint(format!("types are {}", names.join(", ")))
                })?);
            }
            ("id", Some(value)) => filter.ids.push(value.to_owned()),
            ("shared", None | Some("true")) | ("private", Some("false")) => filter.shared = Some(true),
            ("private", None | Some("true")) | ("shared", Some("false")) => filter.shared = Some(false),
            _ => {
                return Err(wrong("there is no such filter".to_owned())
                    .hint("filters are until=DURATION, type=TYPE, id=ID, shared and private"));
            }
        }
    }
    Ok(filter)
}

/// How long ago `until=…` is: a length of time, or a moment.
pub(in crate::commands) fn until(text: &str, value: &str) -> Result<Duration, Failure> {
    if let Some(duration) = amount::duration(value) {
        return Ok(duration);
    }
    let moment = value.parse::<jiff::Timestamp>().ok().or_else(|| {
        let seconds = value.parse::<i64>().ok()?;
        jiff::Timestamp::from_second(seconds).ok()
    });
    let moment = moment.ok_or_else(|| {
        Failure::usage(format!(
            "--filter {text}: it is neither a length of time nor a moment"
        ))
        .hint("write until=24h, or until=2026-01-02T15:04:05Z")
    })?;
    let age = jiff::Timestamp::now().duration_since(moment);
    // A moment to come: everything was before.
    Ok(Duration::try_from(age).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_cache::disk::ItemType;

    use super::filter;

    #[test]
    fn filters_are_read() {
        let read = |texts: &[&str]| filter(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let all = read(&[
            "until=48h",
            "type=regular",
            "type==exec.cachemount",
            "id=b3-1",
            "private",
        ])
        .unwrap();
        assert_eq!(all.unused_for, Some(Duration::from_hours(48)));
        assert_eq!(all.kinds, [ItemType::Regular, ItemType::CacheMount]);
        assert_eq!(all.ids, ["b3-1"]);
        assert_eq!(all.shared, Some(false));
        let past = read(&["until=2020-01-01T00:00:00Z"]).unwrap().unused_for.unwrap();
        assert!(past > Duration::from_hours(24 * 365));
        for wrong in ["until=soon", "type=x", "color=red", "until", "shared=maybe"] {
            assert!(read(&[wrong]).is_err(), "{wrong}");
        }
    }
}
