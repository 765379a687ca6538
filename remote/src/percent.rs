//! Percent-encoding of URLs, and the queries that hold it.

/// Text with its `%xx` replaced; `None` when an escape is malformed or the result is no UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    decode_with(text, |byte| byte)
}

/// A part of a query: `+` is a space there.
fn decode_query(text: &str) -> Option<String> {
    decode_with(text, |byte| if byte == b'+' { b' ' } else { byte })
}

fn decode_with(text: &str, plain: impl Fn(u8) -> u8) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push((high * 16 + low) as u8);
        } else {
            decoded.push(plain(byte));
        }
    }
    String::from_utf8(decoded).ok()
}

/// The names and values of a query, in order; a name without `=` has an empty value.
pub(crate) fn query(text: &str) -> Option<Vec<(String, String)>> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode_query(name)?, decode_query(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{decode, query};

    #[test]
    fn escapes_are_replaced_once() {
        for (text, expected) in [
            ("a%20b", Some("a b")),
            ("%2e%2E%2f", Some("../")),
            ("a+b", Some("a+b")),
            ("%2520", Some("%20")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn queries_split_before_they_are_decoded() {
        let pairs = query("ref=a%26b&submodules&subdir=x+y").expect("a query");
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("ref", "a&b"), ("submodules", ""), ("subdir", "x y")]);
        assert_eq!(query("a=%"), None);
    }
}
