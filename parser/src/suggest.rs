//! "Did you mean": the nearest of the known names.

/// The name nearest to `word`, if fewer than three edits away. Case does not count.
///
/// A word that differs in nothing but case is worth naming too. Words of one or two characters are near to
/// everything, so they only match names of their own length.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Edit distance is quadratic, and no known name is anywhere near this long.
    if word.len() > 128 {
        return None;
    }
    let lower = word.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    known
        .into_iter()
        .filter(|name| *name != word && name.len() <= 256)
        .map(|name| (distance(name), name))
        .filter(|(edits, name)| *edits < 3 && *edits < name.chars().count().max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// As Docker's frontend looks for it: case counts, and so do the shortest names. `patience` is the number of
/// names that may still be looked at, so that many wrong words among many names cost no more than that.
pub fn nearest_exact<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    patience: &mut usize,
) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    if word.len() > 128 {
        return None;
    }
    for name in known {
        if name == word {
            return None;
        }
        if *patience == 0 {
            break;
        }
        *patience -= 1;
        if name.len().abs_diff(word.len()) > 8 {
            continue;
        }
        let edits = strsim::levenshtein(word, name);
        if edits < best.map_or(3, |(edits, _)| edits) {
            best = Some((edits, name));
        }
    }
    best.map(|(_, name)| name)
}

/// The hint for it, ready to be shown.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|name| format!("did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_search_is_dockers() {
        let mut patience = 100;
        for (word, expected) in [
            ("foo", Some("fo")),
            ("FO", Some("fo")),
            ("fo", None),
            ("x", Some("fo")),
            ("barr", Some("bar")),
            ("nothing", None),
        ] {
            let known = ["fo", "bar", "PATH"];
            assert_eq!(nearest_exact(word, known, &mut patience), expected, "{word}");
        }
        assert_eq!(nearest_exact("foo", ["fo"], &mut 0), None);
    }

    #[test]
    fn nearest_is_within_two_edits() {
        let known = ["RUN", "COPY", "ENTRYPOINT", "ENV"];
        assert_eq!(nearest("RNU", known), Some("RUN"));
        assert_eq!(nearest("copyy", known), Some("COPY"));
        assert_eq!(nearest("ENTRIPONT", known), Some("ENTRYPOINT"));
        assert_eq!(nearest("DOWNLOAD", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
