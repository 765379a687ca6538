//! Fills a store with so many layers and records, as years of builds would: `large_store ROOT LAYERS RECORDS`.
//!
//! Each layer has one small file. The records are spread over the layers, each with a chain of three layers as its
//! result and parts as long as those of real steps; one in a hundred refers to a list of files.

use std::{error::Error, fs::File, os::fd::AsFd, path::PathBuf};

use kiln_cache::{Key, KeyPart, LayerId, Record, RecordKind, Store, StoreOptions};
use kiln_tree::walk;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("arguments: ROOT LAYERS RECORDS");
    let root = PathBuf::from(next()?);
    let (layers, records): (usize, usize) = (next()?.parse()?, next()?.parse()?);
    let options = StoreOptions {
        userxattr: false,
        boot: kiln_cache::boot::id()?,
        runtime: None,
    };
    let store = Store::open(&root, options)?;
    let ids = (0..layers)
        .map(|at| layer(&store, at))
        .collect::<Result<Vec<_>, _>>()?;
    for at in 0..records {
        record(&store, &ids, at)?;
    }
    store.sync()?;
    Ok(())
}

fn layer(store: &Store, at: usize) -> Result<LayerId, Box<dyn Error>> {
    let draft = store.layers().draft()?;
    std::fs::write(draft.diff_path().join("file"), format!("layer {at}"))?;
    let listing = walk::layer(File::open(draft.diff_path())?.as_fd())?;
    let id = LayerId::from_content(&listing.content_hash());
    store.layers().commit(draft, &id, listing)?;
    Ok(id)
}

fn record(store: &Store, ids: &[LayerId], at: usize) -> Result<(), Box<dyn Error>> {
    let mut parts = vec![
        KeyPart::new("command", format!("/bin/sh -c make step {at} && make install")),
        KeyPart::new("input", format!("{:064x}", at / 3)),
        KeyPart::new(
            "env PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        KeyPart::new("workdir", "/work"),
        KeyPart::new("platform", "linux/amd64"),
    ];
    if at.is_multiple_of(100) {
        parts.push(KeyPart {
            listing: Some(store.blobs().put_bytes(format!("list {at}").as_bytes())?),
            ..KeyPart::new("copy files", format!("{at:064x}"))
        });
    }
    let top = at % ids.len();
    let output = [top / 3, top / 2, top].map(|at| ids.get(at).cloned());
    let mut output: Vec<LayerId> = output.into_iter().flatten().collect();
    output.dedup();
    store.records().put(&Record {
        key: Key::of("large", &parts),
        kind: if at.is_multiple_of(2) {
            RecordKind::Definition
        } else {
            RecordKind::Content
        },
        parts,
        output,
        step: format!("RUN make step {at} && make install"),
        created_ms: 1_700_000_000_000 + at as u64,
        duration_ms: 100,
    })?;
    Ok(())
}
