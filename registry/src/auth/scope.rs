//! What a token is asked for.

/// What a request wants to do, in the words of the token service: one entry a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    pub(crate) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// Nothing but being known.
    pub(crate) fn nothing() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }

    pub(super) fn is_pull_only(&self) -> bool {
        // Who only wants to be known must not be answered as nobody.
        !self.0.is_empty() && self.0.iter().all(|entry| entry.ends_with(":pull"))
    }

    /// This scope and what the challenge asks for: a proxy may know the repository by another name.
    pub(super) fn with_challenge(&self, challenge: Option<&str>) -> Vec<String> {
        let mut entries = self.0.clone();
        for entry in challenge
            .unwrap_or_default()
            .split(' ')
            .filter(|entry| !entry.is_empty())
        {
            let covered = entries
                .iter()
                .any(|own| match (own.rsplit_once(':'), entry.rsplit_once(':')) {
                    (Some((own_name, own_actions)), Some((name, actions))) => {
                        own_name == name
                            && actions
                                .split(',')
                                .all(|action| own_actions.split(',').any(|own| own == action))
                    }
                    _ => false,
                });
            if !covered {
                entries.push(entry.to_owned());
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn scopes_take_in_the_challenge() {
        let cases: &[(Scope, Option<&str>, &[&str])] = &[
            (Scope::pull("a/b"), None, &["repository:a/b:pull"]),
            (
                Scope::pull("a/b"),
                Some("repository:a/b:pull"),
                &["repository:a/b:pull"],
            ),
            (
                Scope::push("a/b"),
                Some("repository:a/b:pull"),
                &["repository:a/b:pull,push"],
            ),
            (
                Scope::pull("b"),
                Some("repository:proxy/b:pull"),
                &["repository:b:pull", "repository:proxy/b:pull"],
            ),
            (
                Scope::push("a").and_pull("c"),
                Some("repository:c:pull repository:a:push,pull"),
                &["repository:a:pull,push", "repository:c:pull"],
            ),
        ];
        for (scope, challenge, want) in cases {
            assert_eq!(&scope.with_challenge(*challenge), want);
        }
    }
}
