//! The name of a downloaded file.

use crate::percent;

/// The name of a file whose URL has none.
pub(crate) const UNNAMED: &str = "__unnamed__";

/// The last component of the URL's path, decoded; `__unnamed__` when there is none that a file can have.
pub fn file_name(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
    // A server's name for it may hold encoded slashes: what comes after the last one counts.
    let decoded = percent::decode(path).unwrap_or_else(|| path.to_owned());
    base_name(&decoded).unwrap_or_else(|| UNNAMED.to_owned())
}

/// What `Content-Disposition` calls the file.
pub(super) fn suggested(header: &str) -> Option<String> {
    let value = header.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("filename").then(|| value.trim())
    })?;
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value);
    if value.ends_with('/') {
        return None;
    }
    base_name(value)
}

fn base_name(path: &str) -> Option<String> {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let usable = !matches!(name, "" | "." | "..") && !name.contains('\0') && name.len() <= 255;
    usable.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{file_name, suggested};

    #[test]
    fn names_are_the_last_component_of_the_path() {
        for (url, name) in [
            ("https://h/a/b.tar.gz", "b.tar.gz"),
            ("https://h/a/b/?x=/c", "b"),
            ("https://h/b#c/d", "b"),
            ("https://h/a%20b", "a b"),
            ("https://h/x%2Fy", "y"),
            ("https://h/..%2f..%2fetc%2fpasswd", "passwd"),
            ("https://h/%zz", "%zz"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/..", "__unnamed__"),
            ("https://h/a/%2e%2e", "__unnamed__"),
            ("https://h/a%00b", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
        assert_eq!(
            file_name(&format!("https://h/{}", "x".repeat(256))),
            "__unnamed__"
        );
    }

    #[test]
    fn suggested_names_have_no_directories() {
        for (header, name) in [
            ("attachment; filename=\"a b.txt\"", Some("a b.txt")),
            ("attachment; FileName=x", Some("x")),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"..\"", None),
            ("attachment; filename=\"a/\"", None),
            ("inline", None),
        ] {
            assert_eq!(suggested(header).as_deref(), name, "{header}");
        }
    }
}
