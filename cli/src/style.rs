//! Colour, by what a text is. Only here is it decided whether and how something is coloured.

use std::io::IsTerminal;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// A failure, and the place that it points at.
    Error,
    /// Something to know that stops nothing.
    Warning,
    /// Advice.
    Hint,
    /// A step that is done.
    Done,
    /// What is there for orientation only: times, output of a process.
    Faint,
}

/// Whether texts are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    enabled: bool,
}

impl Style {
    /// No colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { enabled: false };
    /// Colour.
    #[cfg(test)]
    pub(crate) const COLOURED: Self = Self { enabled: true };

    /// How standard error is written to: in colour on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn of_stderr() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            enabled: std::io::stderr().is_terminal() && !no_color && !is_dumb(),
        }
    }

    /// `text`, coloured when this is on.
    pub(crate) fn paint(self, label: Label, text: &str) -> String {
        if !self.enabled || text.is_empty() {
            return text.to_owned();
        }
        let style = console::Style::new().force_styling(true);
        let style = match label {
            Label::Error => style.red(),
            Label::Warning => style.yellow(),
            Label::Hint => style.cyan(),
            Label::Done => style.blue(),
            Label::Faint => style.dim(),
        };
        style.apply_to(text).to_string()
    }

    /// A rendered diagnostic: its label, the marked lines and the underlining.
    pub(crate) fn excerpt(self, text: &str) -> String {
        if !self.enabled {
            return text.to_owned();
        }
        let line = |line: &str| {
            let label = line.split_once(':').map(|(label, _)| label);
            let underlining = line.contains('^') && line.trim_start_matches([' ', '|', '^']).is_empty();
            match label {
                _ if underlining || line.contains("| >>> ") => self.paint(Label::Error, line),
                Some("error") => self.paint(Label::Error, line),
                Some("warning") => self.paint(Label::Warning, line),
                Some("hint") => self.paint(Label::Hint, line),
                _ => line.to_owned(),
            }
        };
        text.lines().map(|text| line(text) + "\n").collect()
    }
}

/// Whether the terminal cannot move its cursor.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::{Label, Style};

    #[test]
    fn colour_is_all_that_is_added() {
        let text =
            "error: bad\nDockerfile:1\n   1 | >>> RUN x\n     |     ^^^\n   2 |     RUN y ^\nhint: good\n";
        assert_eq!(Style::PLAIN.excerpt(text), text);
        let coloured = Style::COLOURED.excerpt(text);
        assert_ne!(coloured, text);
        assert_eq!(console::strip_ansi_codes(&coloured), text);
        assert!(coloured.contains("\n   2 |     RUN y ^\n"), "{coloured:?}");
        assert_eq!(Style::PLAIN.paint(Label::Error, "x"), "x");
        assert_eq!(Style::COLOURED.paint(Label::Error, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
