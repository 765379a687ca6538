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

/// The hint for it, ready to be shown.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|name| format!("did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
