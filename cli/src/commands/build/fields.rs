//! Flags whose value is a list of fields, `id=x,src=y`: CSV, as Docker reads it.

use crate::report::Failure;

/// The fields of `text`, each `key=value`. A field in double quotes may have commas.
pub(super) fn fields(flag: &str, text: &str) -> Result<Vec<(String, String)>, Failure> {
    split(text)
        .ok_or_else(|| Failure::usage(format!("{flag} {text}: a quote is not closed")))?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.to_ascii_lowercase(), value.to_owned())),
            None => Err(Failure::usage(format!(
                "{flag} {text}: invalid field '{field}' must be a key=value pair"
            ))),
        })
        .collect()
}

/// The fields between commas; `None` when a quoted one does not end.
fn split(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest
                .split_once(',')
                .map_or((rest, None), |(field, after)| (field, Some(after)));
            fields.push(field.to_owned());
            rest = match after {
                Some(after) => after,
                None => return Some(fields),
            };
            continue;
        };
        let (field, after) = unquote(quoted)?;
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// The text up to the closing quote, and what comes after it. Two quotes are one of the text.
fn unquote(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_hold_fields_together() {
        for (text, expected) in [
            ("id=a,src=b", Some(vec!["id=a", "src=b"])),
            ("id=a,\"src=b,c\"", Some(vec!["id=a", "src=b,c"])),
            ("\"src=a\"\"b\",id=c", Some(vec!["src=a\"b", "id=c"])),
            ("id=a,", Some(vec!["id=a", ""])),
            ("\"id=a", None),
            ("\"id=a\"b", None),
        ] {
            let expected = expected.map(|fields| fields.into_iter().map(str::to_owned).collect());
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
