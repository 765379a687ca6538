//! `kiln images`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use kiln_cache::{ImageRecord, Store};
use kiln_image::{Digest, Platform, Reference};
use serde_json::json;

use super::list::List;
use crate::arguments::Images;
use crate::format;
use crate::machine::Machine;
use crate::report::Failure;

/// What Docker prints where there is nothing to print.
const NONE: &str = "<none>";

/// An image, or several for different platforms, as one thing.
struct Entry {
    id: Digest,
    names: Vec<String>,
    repo_digests: Vec<String>,
    created: Option<String>,
    size: u64,
    /// Of a multi-platform image.
    platforms: Vec<String>,
}

/// One line of the list: an image by one of its names.
struct Row<'a> {
    record: &'a Entry,
    repository: String,
    tag: String,
    digest: String,
}

/// Runs `kiln images`.
pub(crate) fn run(machine: &Machine, arguments: &Images) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    let mut records = entries(&store)?;
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
            let mut value = json!({
                "Repository": row.repository, "Tag": row.tag, "Digest": row.digest, "ID": id,
                "CreatedAt": row.record.created, "CreatedSince": created, "Size": size, "Bytes": row.record.size,
            });
            if !row.record.platforms.is_empty() {
                value["Platforms"] = json!(row.record.platforms);
            }
            value
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

/// How many lines the list has without names that stand for the same.
pub(super) fn count(store: &Store) -> Result<usize, Failure> {
    Ok(entries(store)?.len())
}

/// All images. Those that only belong to a multi-platform image are told by it.
fn entries(store: &Store) -> Result<Vec<Entry>, Failure> {
    let records = store.images().list()?;
    let mut entries = Vec::new();
    let mut members = BTreeSet::new();
    for index in store.images().indexes()? {
        let of: Vec<&ImageRecord> = index
            .images
            .iter()
            .filter_map(|entry| records.iter().find(|record| record.id == entry.image))
            .collect();
        let digests: BTreeSet<&String> = of.iter().flat_map(|record| &record.repo_digests).collect();
        members.extend(index.images.iter().map(|entry| entry.image));
        entries.push(Entry {
            id: index.id,
            repo_digests: digests.into_iter().cloned().collect(),
            created: of.iter().filter_map(|record| record.created.clone()).max(),
            size: of.iter().map(|record| record.size).sum(),
            platforms: index.platforms().map(Platform::full).collect(),
            names: index.names,
        });
    }
    let alone = records
        .into_iter()
        .filter(|record| !record.names.is_empty() || !members.contains(&record.id));
    entries.extend(alone.map(|record| Entry {
        id: record.id,
        names: record.names,
        repo_digests: record.repo_digests,
        created: record.created,
        size: record.size,
        platforms: Vec::new(),
    }));
    Ok(entries)
}

fn rows(record: &Entry) -> Vec<Row<'_>> {
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

fn digest_of(record: &Entry, reference: Option<&Reference>) -> String {
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
