//! Tables as Docker prints them: columns as wide as their widest cell, three spaces between.

use console::measure_text_width;

use crate::progress::visible;

/// Rows of cells, the first one the heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    /// Adds a row. Whatever cells have from elsewhere stays on its line and leaves the terminal as it is.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let shown = cells.into_iter().map(|cell| visible(cell.as_bytes()));
        self.rows.push(shown.collect());
    }

    /// The text of the table.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| measure_text_width(cell))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let last = row.len().saturating_sub(1);
            for (column, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if column < last {
                    let used = measure_text_width(cell);
                    let padding = widths.get(column).map_or(0, |width| width - used) + 3;
                    text.extend(std::iter::repeat_n(' ', padding));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn cells_leave_the_terminal_as_it_is() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x\u{1b}[2Jy\r\nz", "\u{9b}31m\u{7}"].map(str::to_owned).to_vec());
        assert_eq!(table.render(), "A      B\nxy z   \n");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["REPOSITORY", "TAG", "SIZE"]);
        table.row(["a", "latest", "1B"].map(str::to_owned).to_vec());
        table.row(["語", "", "2B"].map(str::to_owned).to_vec());
        let expected = "\
REPOSITORY   TAG      SIZE
a            latest   1B
語                    2B
";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_table_without_rows_is_its_heading() {
        assert_eq!(Table::new(&["A", "B"]).render(), "A   B\n");
    }
}
