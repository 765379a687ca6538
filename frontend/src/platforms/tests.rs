use super::*;
use crate::testing::{FakeImage, FakeResolver, options};

const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN tools\nARG TARGETARCH\nRUN make $TARGETARCH\n\
                     FROM busybox\nCOPY --from=build /out /out\nCOPY . /src\n";

fn platforms(names: &[&str]) -> Vec<Platform> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn lower_for(
    text: &str,
    names: &[&str],
    options: &LowerOptions,
    resolver: &FakeResolver,
) -> Result<LoweredAll, Vec<Diagnostic>> {
    let parsed = kiln_parser::parse(text.as_bytes());
    assert!(!parsed.has_errors());
    lower_all(
        &parsed.dockerfile,
        options,
        &platforms(names),
        Checks::All(None),
        resolver,
    )
}

fn names(lowered: &LoweredAll) -> Vec<String> {
    let targets: Vec<VertexId> = lowered.images.iter().map(|image| image.target).collect();
    let order = lowered.graph.order(&targets);
    order
        .into_iter()
        .filter_map(|id| lowered.graph.get(id))
        .map(|vertex| vertex.name.split("@sha256").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn stages_of_the_build_platform_run_once() {
    let resolver = FakeResolver::new([]);
    let lowered = lower_for(CROSS, &["linux/arm64", "linux/amd64"], &options(), &resolver).unwrap();
    assert!(lowered.is_index);
    assert_eq!(
        names(&lowered),
        [
            "[linux/arm64 stage-1 1/3] FROM docker.io/library/busybox:latest",
            "[linux/amd64 build 1/3] FROM docker.io/library/busybox:latest",
            "[linux/amd64 build 2/3] RUN tools",
            "[linux/amd64->arm64 build 3/3] RUN make arm64",
            "[linux/arm64 stage-1 2/3] COPY --from=build /out /out",
            "[internal] load build context",
            "[linux/arm64 stage-1 3/3] COPY . /src",
            "[linux/amd64 build 3/3] RUN make amd64",
            "[linux/amd64 stage-1 2/3] COPY --from=build /out /out",
            "[linux/amd64 stage-1 3/3] COPY . /src",
        ]
    );
    // Once for each platform that some stage wants, not once for each target.
    assert_eq!(resolver.asked().len(), 2);
    let architectures: Vec<&str> = lowered
        .images
        .iter()
        .map(|image| image.config.architecture.as_str())
        .collect();
    assert_eq!(architectures, ["arm64", "amd64"]);
}

#[test]
fn one_platform_keeps_its_short_names_unless_an_index_is_wanted() {
    let text = "FROM busybox\nRUN x\n";
    let resolver = FakeResolver::new([]);
    for (argument, platform, is_index, last) in [
        (None, &["linux/arm64"][..], false, "[2/2] RUN x"),
        (Some("false"), &["linux/arm64"], false, "[2/2] RUN x"),
        (Some(""), &["linux/arm64"], false, "[2/2] RUN x"),
        (Some("1"), &["linux/arm64"], true, "[linux/arm64 2/2] RUN x"),
        (Some("true"), &[], true, "[linux/amd64 2/2] RUN x"),
    ] {
        let mut options = options();
        options
            .build_args
            .extend(argument.map(|value| ("BUILDKIT_MULTI_PLATFORM".to_owned(), Some(value.to_owned()))));
        let lowered = lower_for(text, platform, &options, &resolver).unwrap();
        assert_eq!(lowered.is_index, is_index, "{argument:?}");
        assert_eq!(names(&lowered).last().unwrap(), last, "{argument:?}");
        assert!(lowered.unused_build_args.is_empty());
    }
}

#[test]
fn the_argument_is_checked() {
    for (value, platforms, message) in [
        (
            "maybe",
            &["linux/amd64"][..],
            "invalid boolean value for BUILDKIT_MULTI_PLATFORM: \"maybe\"",
        ),
        (
            "0",
            &["linux/amd64", "linux/arm64"],
            "BUILDKIT_MULTI_PLATFORM=false forbids a result for several platforms",
        ),
    ] {
        let mut options = options();
        options
            .build_args
            .insert("BUILDKIT_MULTI_PLATFORM".to_owned(), Some(value.to_owned()));
        let errors = lower_for(
            "FROM scratch\nCOPY a /\n",
            platforms,
            &options,
            &FakeResolver::new([]),
        );
        assert_eq!(errors.unwrap_err()[0].message, message);
    }
}

#[test]
fn arguments_of_the_target_differ_and_can_be_overridden() {
    let text =
        "FROM busybox\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDARCH TARGETSTAGE\nRUN x\n";
    let environment = |options: &LowerOptions, name: &str| {
        let lowered = lower_for(
            text,
            &["linux/arm/v6", "linux/s390x"],
            options,
            &FakeResolver::new([]),
        )
        .unwrap();
        let variables = lowered.images.iter().map(|image| {
            let vertex = lowered.graph.get(image.target).unwrap();
            let kiln_solver::graph::Op::Exec(exec) = &vertex.op else {
                panic!("a RUN is an exec")
            };
            let prefix = format!("{name}=");
            let found = exec
                .env
                .iter()
                .find_map(|variable| variable.strip_prefix(&prefix));
            found.unwrap_or("not set").to_owned()
        });
        variables.collect::<Vec<String>>()
    };
    for (name, expected) in [
        ("TARGETPLATFORM", ["linux/arm/v6", "linux/s390x"]),
        ("TARGETOS", ["linux", "linux"]),
        ("TARGETARCH", ["arm", "s390x"]),
        ("TARGETVARIANT", ["v6", ""]),
        ("BUILDARCH", ["amd64", "amd64"]),
        ("TARGETSTAGE", ["default", "default"]),
        // Nobody declared it.
        ("BUILDPLATFORM", ["not set", "not set"]),
    ] {
        assert_eq!(environment(&options(), name), expected, "{name}");
    }
    let mut overridden = options();
    overridden
        .build_args
        .insert("TARGETARCH".to_owned(), Some("mine".to_owned()));
    assert_eq!(environment(&overridden, "TARGETARCH"), ["mine", "mine"]);
}

#[test]
fn warnings_are_told_once() {
    let amd64_only = FakeImage {
        layers: 1,
        platform: "linux/amd64".to_owned(),
        ..FakeImage::default()
    };
    let resolver = FakeResolver::new([("old".to_owned(), amd64_only)]);
    let lowered = lower_for(
        "FROM old\nRUN x\n",
        &["linux/amd64", "linux/arm64"],
        &options(),
        &resolver,
    )
    .unwrap();
    let messages: Vec<&str> = lowered
        .warnings
        .iter()
        .map(|warning| warning.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "Base image old was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build"
        ]
    );
}

#[test]
fn an_image_that_is_missing_is_asked_for_once_and_told_with_its_place() {
    let resolver = FakeResolver::new([]);
    let text = "FROM --platform=$BUILDPLATFORM missing AS a\nRUN x\nFROM scratch\nCOPY --from=a / /\n";
    let errors = lower_for(text, &["linux/arm64", "linux/s390x"], &options(), &resolver).unwrap_err();
    assert_eq!(resolver.asked(), ["docker.io/library/missing:latest"]);
    let span = errors[0].span;
    assert_eq!((errors.len(), &text[span.start..span.end]), (1, "missing"));
}
