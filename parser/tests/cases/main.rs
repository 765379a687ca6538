//! Every folder of `testdata/parser` holds a Dockerfile and what the parser must make of it.
//!
//! `KILN_UPDATE_EXPECTED=1 cargo test -p kiln-parser --test cases` rewrites the expectations.

mod dump;
mod properties;

use std::path::Path;

#[test]
fn cases_are_parsed_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/parser");
    let update = std::env::var_os("KILN_UPDATE_EXPECTED").is_some();
    let mut folders: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    let mut failed = Vec::new();
    for folder in &folders {
        let source = std::fs::read(folder.join("Dockerfile")).unwrap();
        let mut parsed = kiln_parser::parse(&source);
        kiln_parser::lint::select(&parsed.dockerfile, None, &mut parsed.diagnostics);
        let found = dump::dump(&parsed, &source);
        let path = folder.join("expected.txt");
        if update {
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected != found {
            println!("--- {}\nexpected:\n{expected}\nfound:\n{found}", folder.display());
            failed.push(folder.file_name().unwrap().to_owned());
        }
    }
    assert!(
        folders.len() >= 40,
        "the cases are missing: {} found",
        folders.len()
    );
    assert!(failed.is_empty(), "cases differ: {failed:?}");
}
