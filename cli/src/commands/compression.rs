//! How layers are compressed, as the user says it.

use kiln_image::compress::Compression;
use kiln_solver::LayerCompression;

use crate::report::Failure;

/// The words that there are.
const WORDS: [(&str, Compression); 3] = [
    ("uncompressed", Compression::None),
    ("gzip", Compression::Gzip),
    ("zstd", Compression::Zstd),
];

/// What a compression and its level mean; `option` says how the user names the two.
pub(super) fn compression(
    (word, level): (Option<&str>, Option<i32>),
    force: bool,
    option: (&str, &str),
) -> Result<LayerCompression, Failure> {
    let compression = match word {
        None => Compression::default(),
        Some(word) => {
            let known = WORDS.iter().find(|(known, _)| *known == word);
            let known = known.map(|(_, compression)| *compression);
            known.ok_or_else(|| {
                let name = option.0;
                Failure::usage(format!("{name}{word}: expected uncompressed, gzip or zstd"))
            })?
        }
    };
    if let Some(level) = level {
        let levels = compression.levels();
        if !levels.contains(&level) {
            let (name, word) = (option.1, word.unwrap_or("gzip"));
            let (first, last) = (levels.start(), levels.end());
            return Err(Failure::usage(format!(
                "{name}{level}: {word} has levels {first} to {last}"
            )));
        }
    }
    Ok(LayerCompression {
        compression,
        level,
        force,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_levels() {
        let names = ("--compression ", "--compression-level ");
        let read = |word, level| compression((word, level), false, names);
        assert_eq!(read(None, None).unwrap(), LayerCompression::default());
        assert_eq!(read(Some("zstd"), Some(22)).unwrap().level, Some(22));
        for (word, level, wrong) in [
            (Some("lzma"), None, "--compression lzma: expected"),
            (
                Some("gzip"),
                Some(10),
                "--compression-level 10: gzip has levels 0 to 9",
            ),
            (None, Some(-1), "--compression-level -1: gzip has levels 0 to 9"),
        ] {
            let message = read(word, level).unwrap_err().text();
            assert!(message.starts_with(wrong), "{message}");
        }
    }
}
