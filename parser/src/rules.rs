//! The build checks as data: names, descriptions and addresses are those of Docker's Dockerfile frontend.

/// A build check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as in `# check=skip=NAME`.
    pub name: &'static str,
    /// What it is about.
    pub description: &'static str,
    /// The last part of the address of its page; empty when it has no page.
    page: &'static str,
    /// Off unless the file or the command turns it on.
    pub experimental: bool,
    /// What to change, where there is one way to do it.
    pub fix: Option<&'static str>,
    /// Whether what it finds depends on instructions before the one it speaks about. When some could not be
    /// read, such a finding may be wrong.
    pub needs_context: bool,
}

impl Rule {
    /// The address of its page.
    pub fn url(&self) -> Option<String> {
        (!self.page.is_empty()).then(|| format!("https://docs.docker.com/go/dockerfile/rule/{}/", self.page))
    }
}

/// The rule of this name.
pub fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

const PLAIN: Rule = Rule {
    name: "",
    description: "",
    page: "",
    experimental: false,
    fix: None,
    needs_context: false,
};

/// All of them.
pub const RULES: [Rule; 22] = [
    Rule {
        name: "StageNameCasing",
        description: "Stage names should be lowercase",
        page: "stage-name-casing",
        fix: Some("write the stage name in lowercase"),
        ..PLAIN
    },
    Rule {
        name: "FromAsCasing",
        description: "The 'as' keyword should match the case of the 'from' keyword",
        page: "from-as-casing",
        fix: Some("write AS in the case of FROM"),
        ..PLAIN
    },
    Rule {
        name: "NoEmptyContinuation",
        description: "Empty continuation lines will become errors in a future release",
        page: "no-empty-continuation",
        fix: Some("remove the empty line, or make it a comment"),
        ..PLAIN
    },
    Rule {
        name: "ConsistentInstructionCasing",
        description: "All commands within the Dockerfile should use the same casing (either upper or lower)",
        page: "consistent-instruction-casing",
        fix: Some("write the keyword in the case of the others"),
        ..PLAIN
    },
    Rule {
        name: "DuplicateStageName",
        description: "Stage names should be unique",
        page: "duplicate-stage-name",
        ..PLAIN
    },
    Rule {
        name: "ReservedStageName",
        description: "Reserved words should not be used as stage names",
        page: "reserved-stage-name",
        ..PLAIN
    },
    Rule {
        name: "JSONArgsRecommended",
        description: "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        page: "json-args-recommended",
        fix: Some("write the command as a JSON array: [\"program\", \"argument\"]"),
        needs_context: true,
        ..PLAIN
    },
    Rule {
        name: "MaintainerDeprecated",
        description: "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        page: "maintainer-deprecated",
        fix: Some("write LABEL org.opencontainers.image.authors=\"…\""),
        ..PLAIN
    },
    Rule {
        name: "UndefinedArgInFrom",
        description: "FROM command must use declared ARGs",
        page: "undefined-arg-in-from",
        needs_context: true,
        ..PLAIN
    },
    Rule {
        name: "WorkdirRelativePath",
        description: "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
        page: "workdir-relative-path",
        fix: Some("write the path from the root on"),
        needs_context: true,
        ..PLAIN
    },
    Rule {
        name: "UndefinedVar",
        description: "Variables should be defined before their use",
        page: "undefined-var",
        needs_context: true,
        ..PLAIN
    },
    Rule {
        name: "MultipleInstructionsDisallowed",
        description: "Multiple instructions of the same type should not be used in the same stage",
        page: "multiple-instructions-disallowed",
        fix: Some("remove all but the last one"),
        ..PLAIN
    },
    Rule {
        name: "LegacyKeyValueFormat",
        description: "Legacy key/value format with whitespace separator should not be used",
        page: "legacy-key-value-format",
        fix: Some("put = between key and value"),
        ..PLAIN
    },
    Rule {
        name: "InvalidBaseImagePlatform",
        description: "Base image platform does not match expected target platform",
        ..PLAIN
    },
    Rule {
        name: "RedundantTargetPlatform",
        description: "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        page: "redundant-target-platform",
        fix: Some("remove --platform"),
        ..PLAIN
    },
    Rule {
        name: "SecretsUsedInArgOrEnv",
        description: "Sensitive data should not be used in the ARG or ENV commands",
        page: "secrets-used-in-arg-or-env",
        fix: Some("use RUN --mount=type=secret"),
        ..PLAIN
    },
    Rule {
        name: "InvalidDefaultArgInFrom",
        description: "Default value for global ARG results in an empty or invalid base image name",
        page: "invalid-default-arg-in-from",
        fix: Some("give the ARG a default that is an image"),
        needs_context: true,
        ..PLAIN
    },
    Rule {
        name: "FromPlatformFlagConstDisallowed",
        description: "FROM --platform flag should not use a constant value",
        page: "from-platform-flag-const-disallowed",
        fix: Some("remove --platform, or write $BUILDPLATFORM"),
        ..PLAIN
    },
    Rule {
        name: "CopyIgnoredFile",
        description: "Attempting to Copy file that is excluded by .dockerignore",
        page: "copy-ignored-file",
        ..PLAIN
    },
    Rule {
        name: "ExposeProtoCasing",
        description: "Protocol in EXPOSE instruction should be lowercase",
        page: "expose-proto-casing",
        fix: Some("write the protocol in lowercase"),
        ..PLAIN
    },
    Rule {
        name: "ExposeInvalidFormat",
        description: "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
        page: "expose-invalid-format",
        fix: Some("write the container's port alone"),
        ..PLAIN
    },
    Rule {
        name: "InvalidDefinitionDescription",
        description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
        page: "invalid-definition-description",
        experimental: true,
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{RULES, find};

    #[test]
    fn names_are_unique_and_pages_are_made_of_them() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
        for rule in &RULES {
            assert_eq!(find(rule.name), Some(rule));
            assert!(!rule.description.is_empty());
            let Some(url) = rule.url() else {
                assert_eq!(rule.name, "InvalidBaseImagePlatform");
                continue;
            };
            let page = url.strip_prefix("https://docs.docker.com/go/dockerfile/rule/");
            let page = page.and_then(|page| page.strip_suffix('/')).unwrap();
            assert_eq!(page.replace('-', ""), rule.name.to_lowercase());
        }
        assert_eq!(find("Nothing"), None);
    }
}
