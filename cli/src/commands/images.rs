//! `kiln images`.

use std::process::ExitCode;

use kiln_cache::ImageRecord;
use kiln_image::Reference;
use serde_json::json;

use super::list::List;
use crate::arguments::Images;
use crate::format;
use crate::machine::Machine;
use crate::report::Failure;

/// What Docker prints where there is nothing to print.
const NONE: &str = "<none>";

/// One line of the list: an image by one of its names.
struct Row<'a> {
    record: &'a ImageRecord,
    repository: String,
    tag: String,
    digest: String,
}

/// Runs `kiln images`.
pub(crate) fn run(machine: &Machine, arguments: &Images) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    let mut records = store.images().list()?;
    // Newest first, as Docker lists them.
    records.sort_by(|one, other| {
        other
            .created
            .cmp(&one.created)
            .then_with(|| one.names.cmp(&other.names))
    });
    let mut rows: Vec<Row<'_>> = records.iter().flat_map(rows).collect();
    if let Some(name) = &arguments.name {
        let (repository, tag) = filter(name)?;
        rows.retain(|row| row.repository == repository && tag.as_ref().is_none_or(|tag| row.tag == *tag));
    }
    let mut heading = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if arguments.digests {
        heading.insert(2, "DIGEST");
    }
    let mut list = List::new(arguments.quiet, arguments.format.as_deref(), &heading)?;
    let now = jiff::Timestamp::now();
    for row in &rows {
        let id = format::id(&row.record.id, arguments.no_trunc);
        let created = format::ago(row.record.created.as_deref(), now);
        let size = format::size(row.record.size);
        let json = || {
            json!({
                "Repository": row.repository, "Tag": row.tag, "Digest": row.digest, "ID": id,
                "CreatedAt": row.record.created, "CreatedSince": created, "Size": size, "Bytes": row.record.size,
            })
        };
        let cells = || {
            let mut cells = vec![
                row.repository.clone(),
                row.tag.clone(),
                id.clone(),
                created.clone(),
                size.clone(),
            ];
            if arguments.digests {
                cells.insert(2, row.digest.clone());
            }
            cells
        };
        list.add(&id, json, cells);
    }
    super::print(&list.render())?;
    Ok(ExitCode::SUCCESS)
}

fn rows(record: &ImageRecord) -> Vec<Row<'_>> {
    let references: Vec<Reference> = record.names.iter().filter_map(|name| name.parse().ok()).collect();
    if references.is_empty() {
        let repository = record
            .repo_digests
            .first()
            .and_then(|digest| digest.split_once('@'))
            .map_or(NONE, |(name, _)| name)
            .to_owned();
        return vec![Row {
            record,
            repository,
            tag: NONE.to_owned(),
            digest: digest_of(record, None),
        }];
    }
    references
        .iter()
        .map(|reference| Row {
            record,
            repository: reference.familiar_name(),
            tag: reference.tag.clone().unwrap_or_else(|| NONE.to_owned()),
            digest: digest_of(record, Some(reference)),
        })
        .collect()
}

fn digest_of(record: &ImageRecord, reference: Option<&Reference>) -> String {
    let name = reference.map(Reference::familiar_name);
    record
        .repo_digests
        .iter()
        .filter_map(|digest| digest.split_once('@'))
        .find(|(repository, _)| name.as_ref().is_none_or(|name| repository == name))
        .map_or(NONE, |(_, digest)| digest)
        .to_owned()
}

/// `repository[:tag]` in familiar form.
fn filter(name: &str) -> Result<(String, Option<String>), Failure> {
    let reference =
        Reference::parse_untagged(name).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    Ok((reference.familiar_name(), reference.tag))
}
