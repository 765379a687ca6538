//! Table tests of addresses.

use proptest::prelude::*;

use super::{AddressError, Dialect, GitAddress, Modified, public};

fn add(text: &str) -> Option<Result<GitAddress, AddressError>> {
    GitAddress::parse(text, Dialect::Add)
}

fn good(text: &str) -> GitAddress {
    add(text)
        .unwrap_or_else(|| panic!("{text} is an address"))
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn addresses_are_told_from_files_and_paths() {
    for text in [
        "git://h/r",
        "ssh://git@h/r",
        "ssh://git@h:22/r",
        "git@github.com:a/b",
        "git@github.com:a/b.git#main",
        "https://h/r.git",
        "HTTPS://h/r.git",
        "http://h:8080/a/r.git#main:sub",
        "https://h/r.git?branch=x",
        "https://h/r%2egit",
    ] {
        assert!(add(text).is_some_and(|address| address.is_ok()), "{text}");
    }
    for text in [
        "github.com/a/b",
        "github.com/a/b.git",
        "a.git",
        "./a.git",
        "https://h/archive.tar.gz",
        "https://h/r.gitx",
        "https://h/r.git/",
        "https://h/x?y=.git",
        "https://h.git",
        "file:///r.git",
        "ftp://h/r.git",
        "ext::sh -c x.git",
        "user@host",
        "a b@h:r",
        "C:\\r.git",
        "",
    ] {
        assert!(add(text).is_none(), "{text}");
    }
    let context = |text| GitAddress::parse(text, Dialect::Context);
    let known = context("github.com/a/b#main")
        .and_then(Result::ok)
        .expect("an address");
    assert_eq!(known.remote, "https://github.com/a/b");
    assert!(context("gitlab.com/a/b").is_none() && context("github.community/a").is_none());
}

#[test]
fn fragments_and_queries_say_the_same_things() {
    let plain = good("https://h/r.git");
    assert_eq!((plain.reference, plain.subdirectory.as_str()), (None, ""));
    for (text, reference, subdirectory) in [
        ("https://h/r.git#main", Some("main"), ""),
        ("https://h/r.git#main:a/b", Some("main"), "a/b"),
        ("https://h/r.git#:a", None, "a"),
        ("https://h/r.git#:/a/./b//", None, "a/b"),
        ("https://h/r.git#:a/../b", None, "b"),
        ("https://h/r.git?ref=main", Some("main"), ""),
        ("https://h/r.git?ref=main#main", Some("main"), ""),
        (
            "https://h/r.git?branch=main&subdir=a",
            Some("refs/heads/main"),
            "a",
        ),
        ("https://h/r.git?tag=v1", Some("refs/tags/v1"), ""),
        (
            "https://h/r.git?tag=refs/tags/v1#refs/tags/v1:x",
            Some("refs/tags/v1"),
            "x",
        ),
        ("git@h:r?ref=a/b#:c", Some("a/b"), "c"),
    ] {
        let address = good(text);
        assert_eq!(
            (address.reference.as_deref(), address.subdirectory.as_str()),
            (reference, subdirectory),
            "{text}"
        );
    }
    let all = good("https://h/r.git?checksum=ABCD&keep-git-dir&submodules=0&mtime=commit&ref=x");
    assert_eq!(all.remote, "https://h/r.git");
    assert_eq!(all.checksum.as_deref(), Some("abcd"));
    assert_eq!((all.keep_git_dir, all.submodules), (Some(true), Some(false)));
    assert_eq!(all.modified, Modified::Commit);
}

#[test]
fn contradictions_and_nonsense_are_errors() {
    for (text, message) in [
        (
            "https://h/r.git?ref=a#b",
            "conflicting reference: \"b\" and \"a\"",
        ),
        (
            "https://h/r.git?tag=a&branch=a",
            "conflicting reference: \"refs/tags/a\" and \"refs/heads/a\"",
        ),
        (
            "https://h/r.git?tag=a#a",
            "conflicting reference: \"a\" and \"refs/tags/a\"",
        ),
        (
            "https://h/r.git?subdir=a#:b",
            "conflicting subdirectory: \"b\" and \"a\"",
        ),
        (
            "https://h/r.git?checksum=a1&commit=b2",
            "conflicting checksum: \"a1\" and \"b2\"",
        ),
        (
            "https://h/r.git?ref=a&ref=a",
            "query parameter \"ref\" is given more than once",
        ),
        ("https://h/r.git?ref=", "query parameter \"ref\" has no value"),
        ("https://h/r.git?depth=1", "unknown query parameter \"depth\""),
        (
            "https://h/r.git?submodules=maybe",
            "invalid value \"maybe\" of query parameter \"submodules\": true or false is expected",
        ),
        (
            "https://h/r.git?mtime=now",
            "invalid value \"now\" of query parameter \"mtime\": \"checkout\" or \"commit\" is expected",
        ),
        (
            "https://h/r.git?checksum=xyz",
            "invalid checksum \"xyz\": a commit's hash in hexadecimal digits, or its beginning, is expected",
        ),
        (
            "https://h/r.git?fetch-by-commit",
            "fetch-by-commit needs a full commit hash as reference or checksum",
        ),
        (
            "https://h/r.git#--upload-pack=x",
            "invalid reference \"--upload-pack=x\"",
        ),
        ("https://h/r.git#a..b", "invalid reference \"a..b\""),
        ("https://h/r.git?ref=a:b", "invalid reference \"a:b\""),
        ("https://h/r.git#+a", "invalid reference \"+a\""),
        ("https://h/r.git#a%0ab", "invalid reference \"a\\nb\""),
        (
            "https://h/r.git#:../x",
            "subdirectory \"../x\" leads out of the repository",
        ),
        ("https://h/r.git#%zz", "malformed percent-encoding in \"%zz\""),
        (
            "ssh://-oProxyCommand=x/r",
            "invalid repository address \"ssh://-oProxyCommand=x/r\"",
        ),
        ("ssh://git@-x/r", "invalid repository address \"ssh://git@-x/r\""),
        ("git@-x:r", "invalid repository address \"git@-x:r\""),
        ("-u@h:r", "invalid repository address \"-u@h:r\""),
    ] {
        let error = add(text).map(|result| result.map(|a| a.remote).map_err(|error| error.to_string()));
        assert_eq!(error, Some(Err(message.to_owned())), "{text}");
    }
}

#[test]
fn flags_must_agree_with_the_address() {
    let mut address = good("https://h/r.git?keep-git-dir=1&checksum=ab");
    assert!(address.agree_keep_git_dir(true).is_ok() && address.agree_checksum("AB").is_ok());
    assert!(address.agree_keep_git_dir(false).is_err() && address.agree_checksum("abc").is_err());
}

#[test]
fn the_commit_is_known_from_a_full_hash_only() {
    let hash = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(good(&format!("https://h/r.git#{hash}")).commit(), Some(hash));
    assert_eq!(good(&format!("https://h/r.git?checksum={hash}")).commit(), None);
    let by_commit = good(&format!(
        "https://h/r.git?checksum={hash}&fetch-by-commit&branch=x"
    ));
    assert_eq!(by_commit.commit(), Some(hash));
    assert_eq!(good("https://h/r.git#0123456").commit(), None);
}

#[test]
fn passwords_are_not_shown() {
    for (remote, shown) in [
        ("https://u:p@h/r.git", "https://u:xxxxx@h/r.git"),
        ("https://token@h/r.git", "https://xxxxx@h/r.git"),
        ("ssh://git@h/r", "ssh://git@h/r"),
        ("ssh://git:p@h/r", "ssh://git:xxxxx@h/r"),
        ("git@h:r", "git@h:r"),
        ("https://h/a@b.git", "https://h/a@b.git"),
    ] {
        assert_eq!(public(remote), shown);
    }
}

proptest! {
    #[test]
    fn foreign_text_never_panics_nor_becomes_an_option(text in "\\PC{0,60}|(git@|https://|ssh://|git://)[-a-z0-9.@:/#?=&%]{0,60}(\\.git)?[#?][-a-z0-9:/.=&%]{0,30}") {
        if let Some(Ok(address)) = GitAddress::parse(&text, Dialect::Context) {
            prop_assert!(!address.remote.starts_with('-'));
            prop_assert!(!address.reference.unwrap_or_default().starts_with('-'));
            prop_assert!(!address.subdirectory.split('/').any(|component| component == ".."));
        }
    }
}
