//! Values as users write them, good and bad.

use super::*;

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("64m", 64 << 20),
        ("1.5GiB", 3 << 29),
        ("2 kb", 2048),
        ("1B", 1),
    ] {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for text in ["", "m", "-1", "1x", "1.2.3", "99999999999999999999p"] {
        assert_eq!(parse_size(text), None, "{text}");
    }
}

#[test]
fn durations() {
    for (text, milliseconds) in [
        ("1m30s", 90_000),
        ("1.5h", 5_400_000),
        ("300ms", 300),
        ("0", 0),
        ("+2s", 2_000),
        (".5s", 500),
    ] {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_millis(milliseconds)),
            "{text}"
        );
    }
    assert!(matches!(parse_duration("30"), Err(DurationError::MissingUnit(_))));
    assert!(matches!(parse_duration("-1s"), Err(DurationError::Negative(_))));
    assert!(matches!(
        parse_duration("9999999h"),
        Err(DurationError::TooLong(_))
    ));
    let endless = format!("{}s", "9".repeat(100));
    assert!(matches!(parse_duration(&endless), Err(DurationError::TooLong(_))));
    for text in ["", "s", ".s", "1d", "1..5s", "x"] {
        assert!(
            matches!(parse_duration(text), Err(DurationError::Invalid(_))),
            "{text}"
        );
    }
}

#[test]
fn ports() {
    let ports = parse_ports("80").unwrap();
    assert_eq!(
        (ports.first, ports.last, ports.protocol, ports.host_part),
        (80, 80, "tcp", false)
    );
    let ports = parse_ports("8000-8010/UDP").unwrap();
    assert_eq!(
        (ports.first, ports.last, ports.protocol, ports.protocol_casing),
        (8000, 8010, "udp", true)
    );
    assert!(parse_ports("127.0.0.1:80:8080").unwrap().host_part);
    for text in ["", "http", "65536", "1-", "-1", "80/", "+80"] {
        assert_eq!(parse_ports(text).is_ok(), text == "80/", "{text}");
    }
    assert!(matches!(parse_ports("80/icmp"), Err(PortError::Protocol(_))));
    assert!(matches!(parse_ports("90-80"), Err(PortError::Range(_))));
}

#[test]
fn signals() {
    for (text, number) in [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
    ] {
        assert_eq!(parse_signal(text), Some(number), "{text}");
    }
    for text in ["", "0", "65", "SIGNOPE", "RTMIN+31", "RTMAX-31", "-1"] {
        assert_eq!(parse_signal(text), None, "{text}");
    }
}
