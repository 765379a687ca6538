use super::{ContextValue, LayoutImage, NamedContexts};
use crate::RemoteContext;
use crate::testing::{FakeImage, FakeResolver, dump_diagnostics, history, lower_with, names, options};
use crate::{LowerOptions, Lowered};
use kiln_image::{Platform, Reference};

fn contexts(texts: &[&str]) -> NamedContexts {
    let mut contexts = NamedContexts::default();
    for text in texts {
        contexts.add(text).unwrap();
    }
    contexts
}

fn with(texts: &[&str]) -> LowerOptions {
    LowerOptions {
        contexts: contexts(texts),
        ..options()
    }
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// `busybox` has a layer, `with-trigger` an ONBUILD besides.
fn resolver() -> FakeResolver {
    let image = |onbuild: &[&str]| FakeImage {
        layers: 1,
        onbuild: onbuild.iter().map(|&text| text.to_owned()).collect(),
        ..FakeImage::default()
    };
    FakeResolver::new([
        ("other".to_owned(), image(&[])),
        ("with-trigger".to_owned(), image(&["RUN triggered"])),
    ])
}

fn lowered(text: &str, contexts: &[&str]) -> Lowered {
    lower_with(text, &with(contexts), &resolver())
        .unwrap_or_else(|errors| panic!("{}", dump_diagnostics(text, &errors)))
}

#[test]
fn names_are_compared_in_their_familiar_form() {
    for (given, asked, found) in [
        ("busybox", "busybox", true),
        ("busybox", "busybox:latest", true),
        ("busybox:latest", "docker.io/library/busybox", true),
        ("docker.io/library/busybox", "busybox", true),
        ("busybox", "busybox:1", false),
        ("busybox:1", "busybox:1", true),
        ("busybox:1", "busybox", false),
        ("h:5000/a/b", "h:5000/a/b:latest", true),
        ("base::linux/amd64", "base", true),
        ("base::linux/x86_64", "base", true),
        ("base::linux/arm64", "base", false),
        ("scratch", "scratch", false),
        ("context", "Context", false),
        ("base", "No Name", false),
    ] {
        let contexts = contexts(&[&format!("{given}=/d")]);
        assert_eq!(
            contexts.find(asked, &amd64()).is_some(),
            found,
            "{given} for {asked}"
        );
    }
}

#[test]
fn a_name_for_one_platform_goes_before_the_name_for_all() {
    let contexts = contexts(&["a=/all", "a::linux/arm64=/arm", "a=/last"]);
    for (platform, name, directory) in [
        ("linux/arm64/v8", "a::linux/arm64", "/arm"),
        ("linux/amd64", "a", "/last"),
    ] {
        let (found, value) = contexts.find("a", &platform.parse().unwrap()).unwrap();
        assert_eq!((found, value), (name, &ContextValue::Directory(directory.into())));
    }
}

#[test]
fn values_are_told_apart_by_their_form() {
    let layout = |path: &str, tag: Option<&str>| {
        ContextValue::Layout(LayoutImage {
            path: path.into(),
            tag: tag.map(str::to_owned),
            digest: None,
        })
    };
    for (text, expected) in [
        ("../dir", ContextValue::Directory("../dir".into())),
        ("a.git", ContextValue::Directory("a.git".into())),
        ("docker-image://scratch", ContextValue::Scratch),
        (
            "docker-image://alpine",
            ContextValue::Image(Reference::parse("alpine:latest").unwrap()),
        ),
        ("oci-layout://a/b", layout("a/b", Some("latest"))),
        ("oci-layout://a:b/c:v1", layout("a:b/c", Some("v1"))),
        ("oci-layout://a@b/c", layout("a@b/c", Some("latest"))),
        (
            "https://h/a.tar",
            ContextValue::Remote(RemoteContext::Http("https://h/a.tar".to_owned())),
        ),
    ] {
        assert_eq!(ContextValue::parse(text), Ok(expected), "{text}");
    }
    for text in [
        "https://h/r.git#main:sub",
        "git@h:r.git",
        "github.com/a/b",
        "git://h/r",
    ] {
        let value = ContextValue::parse(text);
        assert!(
            matches!(value, Ok(ContextValue::Remote(RemoteContext::Git(_)))),
            "{text}: {value:?}"
        );
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    for (text, tag) in [("oci-layout:///l@", None), ("oci-layout:///l:v1@", Some("v1"))] {
        let expected = LayoutImage {
            path: "/l".into(),
            tag: tag.map(str::to_owned),
            digest: Some(digest.parse().unwrap()),
        };
        let text = format!("{text}{digest}");
        assert_eq!(
            ContextValue::parse(&text),
            Ok(ContextValue::Layout(expected)),
            "{text}"
        );
    }
}

#[test]
fn what_means_nothing_is_refused() {
    for (text, reason) in [
        ("name", "NAME=VALUE is expected"),
        ("=/d", "invalid context name \"\""),
        ("Upper=/d", "invalid context name \"Upper\""),
        ("a::what/is/this/for=/d", "invalid platform of context \"a\""),
        ("a=", "the value is empty"),
        ("a=docker-image://Upper", "invalid image name \"Upper\""),
        ("a=oci-layout://:v1", "the path of the OCI layout is missing"),
        ("a=oci-layout://l@sha256:123", "invalid digest \"sha256:123\""),
        ("a=target:x", "target: contexts exist inside of bake files only"),
        ("a=s3://bucket", "unknown scheme s3://"),
        ("a=https://h/r.git#main:../..", "leads out of the repository"),
    ] {
        let error = NamedContexts::default().add(text).unwrap_err();
        assert!(error.reason.contains(reason), "{text}: {error}");
    }
}

#[test]
fn a_context_stands_for_an_image_wherever_it_is_named() {
    let text =
        "FROM busybox\nCOPY --from=docker.io/library/tools:latest a /\nRUN --mount=from=tools,target=/t x\n";
    let resolver = resolver();
    let options = with(&["busybox=docker-image://other", "tools=/dir"]);
    let lowered = lower_with(text, &options, &resolver).unwrap();
    assert_eq!(resolver.asked(), ["docker.io/library/other:latest"]);
    let names = names(&lowered);
    assert_eq!(names[0], "[context busybox] other:latest");
    assert!(
        names
            .iter()
            .any(|name| name == "[context tools] load from client"),
        "{names:?}"
    );
    assert_eq!(lowered.contexts.into_iter().collect::<Vec<_>>(), ["tools"]);
}

#[test]
fn from_a_directory_is_a_root_of_its_files() {
    let lowered = lowered("FROM files\nCOPY a /\n", &["files=/dir"]);
    assert_eq!(
        names(&lowered),
        [
            "[internal] empty root file system",
            "[context files] load from client",
            "[1/2] FROM files",
            "[internal] load build context",
            "[2/2] COPY a /",
        ]
    );
    // As Docker's.
    assert_eq!(
        history(&lowered),
        ["local source for files", "COPY a / # buildkit"]
    );
    assert_eq!(lowered.config.config.working_dir, "/");
    assert_eq!(lowered.config.architecture, "amd64");
}

#[test]
fn a_context_of_a_stage_s_name_replaces_the_whole_stage() {
    let text =
        "FROM missing AS dep\nRUN nothing\nONBUILD RUN nothing\nFROM dep\nCOPY --from=dep a /\nRUN x\n";
    for contexts in [
        ["dep=/dir"],
        ["dep=docker-image://other"],
        ["dep=docker-image://with-trigger"],
    ] {
        let names = names(&lowered(text, &contexts));
        assert!(!names.iter().any(|name| name.contains("nothing")), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("triggered")), "{names:?}");
    }
    // The copy reads the directory itself, not the root that the FROM makes of it.
    let lowered = lowered(text, &["dep=/dir"]);
    let copies = lowered.contexts.into_iter().collect::<Vec<_>>();
    assert_eq!(copies, ["dep"]);
}

#[test]
fn the_order_is_stage_name_then_earlier_stage_then_image_name() {
    // An earlier stage hides the context of an image's name: that one counts where no stage is.
    let text = "FROM busybox AS a\nRUN one\nFROM a AS b\nRUN two\nFROM b\n";
    for (given, steps) in [
        (
            vec!["busybox=docker-image://other"],
            vec!["[a 2/2] RUN one", "[b 1/1] RUN two"],
        ),
        (vec!["a=docker-image://other"], vec!["[b 1/1] RUN two"]),
        (vec!["b=docker-image://other", "a=/never"], vec![]),
    ] {
        let names = names(&lowered(text, &given));
        let runs: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| name.contains("RUN"))
            .collect();
        assert_eq!(runs, steps, "{given:?}");
    }
}

#[test]
fn the_triggers_of_an_image_run_when_it_is_a_base_by_its_name() {
    let names = names(&lowered(
        "FROM busybox\n",
        &["busybox=docker-image://with-trigger"],
    ));
    assert!(names.last().unwrap().ends_with("RUN triggered"), "{names:?}");
}

#[test]
fn values_are_not_looked_up_again() {
    let resolver = resolver();
    let options = with(&["busybox=docker-image://other", "other=docker-image://busybox"]);
    let text = "FROM busybox AS one\nFROM other AS two\nCOPY --from=one / /\n";
    lower_with(text, &options, &resolver).unwrap();
    assert_eq!(
        resolver.asked(),
        [
            "docker.io/library/busybox:latest",
            "docker.io/library/other:latest"
        ]
    );
}

#[test]
fn a_later_stage_that_a_context_replaces_can_be_copied_from() {
    let text = "FROM busybox\nCOPY --from=later a /\nCOPY --from=1 b /\nFROM missing AS later\n";
    let mut options = with(&["later=/dir"]);
    options.target = Some("0".to_owned());
    lower_with(text, &options, &resolver()).unwrap();
}

#[test]
fn contexts_that_the_target_does_not_need_are_not_asked_for() {
    let text = "FROM one AS a\nCOPY --from=two a /\nFROM busybox\nRUN x\n";
    let resolver = resolver();
    let options = with(&["one=docker-image://missing", "two=/dir", "three=/dir"]);
    let lowered = lower_with(text, &options, &resolver).unwrap();
    assert_eq!(resolver.asked(), ["docker.io/library/busybox:latest"]);
    assert!(lowered.contexts.is_empty());
}

#[test]
fn scratch_and_layouts_can_stand_for_images() {
    let lowered = lowered(
        "FROM base\nCOPY --from=none a* /\n",
        &["base=oci-layout://other", "none=docker-image://scratch"],
    );
    assert!(names(&lowered).contains(&"[context base] OCI load from client".to_owned()));
}
