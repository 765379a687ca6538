//! An ordered set of variables.

use std::collections::HashMap;

/// Variables in the order in which their names first appeared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: Vec<(String, String)>,
    positions: HashMap<String, usize>,
    /// Bytes of all names and values.
    bytes: usize,
}

impl Environment {
    /// The variables of `NAME=value` strings, as image configs have them.
    pub(crate) fn from_strings<'a>(strings: impl IntoIterator<Item = &'a String>) -> Self {
        let mut environment = Self::default();
        environment.extend_from_strings(strings);
        environment
    }

    /// Sets the variables of `NAME=value` strings.
    pub(crate) fn extend_from_strings<'a>(&mut self, strings: impl IntoIterator<Item = &'a String>) {
        for string in strings {
            let (name, value) = string.split_once('=').unwrap_or((string, ""));
            self.set(name, value);
        }
    }

    /// The value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.positions
            .get(name)
            .map(|&position| self.variables[position].1.as_str())
    }

    /// Sets a variable; one that exists keeps its position.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        self.bytes += value.len();
        if let Some(&position) = self.positions.get(name) {
            self.bytes -= self.variables[position].1.len();
            self.variables[position].1 = value;
        } else {
            self.bytes += name.len();
            self.positions.insert(name.to_owned(), self.variables.len());
            self.variables.push((name.to_owned(), value));
        }
    }

    /// What a copy of it takes, roughly, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.variables.len() * size_of::<String>()
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    /// The variables as `NAME=value`.
    pub(crate) fn to_strings(&self) -> Vec<String> {
        self.variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Environment;

    #[test]
    fn a_variable_set_again_keeps_its_position() {
        let mut environment =
            Environment::from_strings(&["A=1".to_owned(), "B=2=3".to_owned(), "C".to_owned()]);
        environment.set("A", "4");
        assert_eq!(environment.to_strings(), ["A=4", "B=2=3", "C="]);
        assert_eq!((environment.get("B"), environment.get("D")), (Some("2=3"), None));
        assert_eq!(environment.weight(), "A4B2=3C".len() + 3 * size_of::<String>());
    }
}
