//! Which names of variables promise a secret.

/// Words that do.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Words that say that it is none after all.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether one of the words of `name`, between underscores, says that it is secret, and none the contrary.
pub(super) fn is_secret(name: &str) -> bool {
    let has = |words: &[&str]| {
        name.split('_')
            .any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn words_between_underscores_count() {
        for name in [
            "KEY",
            "api_key",
            "DATABASE_PASSWORD",
            "secret_MESSAGE",
            "AUTH",
            "a_apikey_b",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "",
            "MONKEY",
            "KEYS",
            "PUBLIC_KEY",
            "TOKEN_FILE",
            "API_KEY_VERSION",
            "authors",
            "my-key",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
