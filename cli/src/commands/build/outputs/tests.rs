//! The forms of `--output`, and what they come to together.

use kiln_image::compress::Compression;

use super::*;

#[test]
fn what_docker_takes() {
    let plain = LayerCompression::default();
    let zstd = LayerCompression {
        compression: Compression::Zstd,
        level: Some(9),
        force: true,
    };
    let name = |text: &str| text.parse::<Reference>().unwrap();
    let local = |dest: &str, split| Output::Local {
        dest: dest.into(),
        split,
    };
    let cases = [
        ("-", Output::Tar { dest: None }),
        ("out", local("out", None)),
        (
            "type=local,dest=out,platform-split=false",
            local("out", Some(false)),
        ),
        ("type=tar,dest=-", Output::Tar { dest: None }),
        ("type=cacheonly", Output::CacheOnly),
        ("type=registry", image(true)),
        ("type=docker", image(false)),
        (
            "type=image,\"name=a,b:2\",push=true,compression=zstd,compression-level=9,force-compression=true,oci-mediatypes=true",
            Output::Image {
                names: vec![name("a"), name("b:2")],
                push: true,
                by_digest: false,
                compression: zstd,
            },
        ),
        (
            "type=oci,dest=d,tar=false",
            Output::Archive {
                docker: false,
                dest: Some("d".into()),
                directory: true,
                names: Vec::new(),
                compression: plain,
            },
        ),
    ];
    for (text, output) in cases {
        assert_eq!(parse(text).unwrap(), output, "{text}");
    }
}

#[test]
fn what_cannot_be_is_said() {
    for (text, wrong) in [
        ("type=zip", "unknown type"),
        ("dest=x", "type is required"),
        ("type=local", "dest is required"),
        ("type=local,dest=-", "type=tar can"),
        ("type=local,dest=x,mode=delete", "only copy"),
        ("type=oci,tar=false", "needs dest"),
        ("type=image,nonsense=1", "no attribute \"nonsense\""),
        ("type=image,push=maybe", "expected true or false"),
        (
            "type=image,compression=estargz",
            "expected uncompressed, gzip or zstd",
        ),
        ("type=image,compression-level=10", "levels 0 to 9"),
        ("type=image,oci-mediatypes=false", "OCI media types only"),
        ("type=image,name=UPPER", "lower case"),
    ] {
        let message = parse(text).unwrap_err().message_text();
        assert!(message.contains(wrong), "{text}: {message}");
    }
}

#[test]
fn what_is_only_pushed_needs_no_files() {
    let pushed = |text: &str| parse(text).unwrap();
    let zstd = LayerCompression::from(Compression::Zstd);
    let cases: [(&[&str], Needs); 8] = [
        (&[], Needs::Files),
        (&["type=registry"], Needs::Blobs(LayerCompression::default())),
        (
            &["type=image,push=true,compression=zstd", "type=cacheonly"],
            Needs::Blobs(zstd),
        ),
        (&["type=cacheonly"], Needs::Nothing),
        (&["type=image"], Needs::Files),
        (&["type=registry", "type=image"], Needs::Files),
        (&["type=registry", "out"], Needs::Files),
        (&["type=registry", "type=registry,compression=zstd"], Needs::Files),
    ];
    for (texts, needs) in cases {
        let outputs = texts.iter().map(|text| pushed(text)).collect();
        assert_eq!(Outputs { outputs }.needs(), needs, "{texts:?}");
    }
}

#[test]
fn push_joins_the_image_that_is_asked_for() {
    let mut outputs = vec![Output::CacheOnly, image(false)];
    push_flag(&mut outputs);
    assert_eq!(outputs, [Output::CacheOnly, image(true)]);
    let mut outputs = vec![Output::CacheOnly];
    push_flag(&mut outputs);
    assert_eq!(outputs, [Output::CacheOnly, image(true)]);
}
