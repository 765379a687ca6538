//! Texts that the tests expect, in `testdata/cli`. `KILN_UPDATE_EXPECTED=1` writes them anew, to be looked at in
//! the diff of the commit.

use std::path::Path;

/// Compares `text` with the file `name`.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata/cli")
        .join(name);
    if std::env::var_os("KILN_UPDATE_EXPECTED").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((number, (found, wanted))) = text
        .lines()
        .zip(expected.lines())
        .enumerate()
        .find(|(_, (found, wanted))| found != wanted)
    {
        panic!("{name}:{}: found {found:?}, expected {wanted:?}", number + 1);
    }
    assert_eq!(text, expected, "{name}: one is longer");
}
