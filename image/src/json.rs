//! Foreign documents: how many values they may have is looked at before any of them takes memory.
//!
//! Fields that are not known here are kept, and `{"":0}` under such a name takes a hundred times the memory of its
//! text: a configuration of 8 MiB would take a gigabyte.

use serde::de::{DeserializeOwned, Error as _};

use crate::limits;

/// Reads a document, unless it has more values than any real one.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let limit = limits::JSON_VALUES;
    if values(bytes) > limit {
        return Err(serde_json::Error::custom(format_args!(
            "more than {limit} values"
        )));
    }
    serde_json::from_slice(bytes)
}

/// How many values a document has at most: each but the first of its list or object stands behind a comma, and that
/// one behind a bracket.
fn values(bytes: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b',' | b'[' | b'{') => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{from_slice, values};
    use crate::limits;

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (text, count) in [
            ("", 0),
            ("1", 0),
            ("[]", 1),
            ("[1,2,3]", 3),
            (r#"{"a":[1],"b":2}"#, 3),
            (r#"["[,{","\"[,","\\"]"#, 3),
        ] {
            assert_eq!(values(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn more_values_than_any_document_has() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        let most = list(limits::JSON_VALUES);
        assert!(from_slice::<Value>(most.as_bytes()).is_ok());
        let error = from_slice::<Value>(list(limits::JSON_VALUES + 1).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        assert!(from_slice::<Value>(b"[1").is_err());
    }
}
