//! What the listing commands share: a table, JSON lines, or only ids.

use serde_json::Value;

use crate::report::Failure;
use crate::table::Table;

/// A list in the form that was asked for.
#[derive(Debug)]
pub(super) enum List {
    /// `--quiet`
    Ids(Vec<String>),
    /// `--format json`
    Json(Vec<String>),
    /// Neither.
    Table(Table),
}

impl List {
    /// An empty list with these columns. `--quiet` comes before `--format`, as in Docker.
    pub(super) fn new(quiet: bool, format: Option<&str>, heading: &[&str]) -> Result<Self, Failure> {
        let as_json = super::is_json(format, "table")?;
        Ok(match (quiet, as_json) {
            (true, _) => Self::Ids(Vec::new()),
            (false, true) => Self::Json(Vec::new()),
            (false, false) => Self::Table(Table::new(heading)),
        })
    }

    /// Adds an item.
    pub(super) fn add(
        &mut self,
        id: &str,
        json: impl FnOnce() -> Value,
        cells: impl FnOnce() -> Vec<String>,
    ) {
        match self {
            Self::Ids(ids) => ids.push(id.to_owned()),
            Self::Json(lines) => lines.push(json().to_string()),
            Self::Table(table) => table.row(cells()),
        }
    }

    /// The text of the list.
    pub(super) fn render(&self) -> String {
        match self {
            Self::Ids(lines) | Self::Json(lines) => lines.iter().flat_map(|line| [line, "\n"]).collect(),
            Self::Table(table) => table.render(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::List;

    #[test]
    fn an_item_has_three_forms() {
        let table = [
            (false, None, "ID   NAME\n1    a\n"),
            (false, Some("table"), "ID   NAME\n1    a\n"),
            (false, Some("json"), "{\"ID\":\"1\"}\n"),
            (true, None, "1\n"),
            (true, Some("json"), "1\n"),
        ];
        for (quiet, format, expected) in table {
            let mut list = List::new(quiet, format, &["ID", "NAME"]).unwrap();
            list.add(
                "1",
                || json!({ "ID": "1" }),
                || vec!["1".to_owned(), "a".to_owned()],
            );
            assert_eq!(list.render(), expected, "{quiet} {format:?}");
        }
        let refused = format!("{:?}", List::new(false, Some("{{.ID}}"), &[]).unwrap_err());
        assert!(
            refused.contains("Go templates are not supported yet"),
            "{refused}"
        );
    }
}
