//! `LABEL key=value …`: labels of the image; and what ENV has in common with it.

use kiln_parser::Diagnostic;
use kiln_parser::ast::{KeyValue, Label};

use super::Context;
use crate::state::StageState;

pub(super) fn lower(label: &Label, stage: &mut StageState, context: Context<'_>) -> Result<(), Diagnostic> {
    let pairs = expand(&label.pairs, "LABEL", stage, context)?;
    let created_by = created_by("LABEL", &pairs);
    stage.config.config.labels.extend(pairs);
    stage.record(created_by);
    Ok(())
}

/// The keys and values of ENV and LABEL, all expanded in the environment from before the instruction.
pub(super) fn expand(
    pairs: &[KeyValue],
    keyword: &str,
    stage: &StageState,
    context: Context<'_>,
) -> Result<Vec<(String, String)>, Diagnostic> {
    let expand = |pair: &KeyValue| {
        let key = context.expander.word(&pair.key, &stage.environment)?;
        if key.is_empty() {
            return Err(Diagnostic::error(
                pair.key.span,
                format!("{keyword} names can not be blank"),
            ));
        }
        Ok((key, context.expander.word(&pair.value, &stage.environment)?))
    };
    pairs.iter().map(expand).collect()
}

/// Docker writes the expanded pairs without quotes: `LABEL one=1 two words=x y`.
pub(super) fn created_by(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(key, value)| format!("{key}={value}"));
    std::iter::once(keyword.to_owned())
        .chain(pairs)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use crate::testing::{FakeResolver, history, lower_with, options};

    #[test]
    fn the_requests_labels_come_last() {
        let mut options = options();
        options.labels.insert("b".to_owned(), "request".to_owned());
        let text = "FROM busybox\nARG V=v\nLABEL a.$V=1 b=file 'two words'=\"x y\"\n";
        let lowered = lower_with(text, &options, &FakeResolver::new([])).unwrap();
        let labels: Vec<_> = lowered.config.config.labels.into_iter().collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            labels,
            [pair("a.v", "1"), pair("b", "request"), pair("two words", "x y")]
        );
        // Docker prints the labels without quotes.
        let text = lowered.config.history.last().unwrap().created_by.clone().unwrap();
        assert_eq!(text, "LABEL a.v=1 b=file two words=x y");
    }

    #[test]
    fn labels_of_other_stages_do_not_leak() {
        let lowered =
            crate::testing::lowered("FROM busybox AS a\nLABEL x=1\nFROM busybox\nCOPY --from=a /x /x\n");
        assert!(lowered.config.config.labels.is_empty());
        assert_eq!(history(&lowered), ["COPY /x /x # buildkit"]);
    }
}
