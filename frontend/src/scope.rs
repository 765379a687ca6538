//! Who sees which ARG: predefined arguments, global ARGs, and the declarations of a stage.

use std::collections::BTreeSet;

use kiln_image::Platform;
use kiln_parser::ast::{Arg, Instruction};
use kiln_parser::{Diagnostic, Dockerfile};

use crate::environment::Environment;
use crate::expansion::Expander;
use crate::options::LowerOptions;

/// Proxy settings: given to every RUN without a declaration, and kept out of its key and history. Matched in
/// any case.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Arguments that steer the builder; nobody has to declare them.
const CONTROLS: [&str; 11] = [
    "BUILDKIT_SYNTAX",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE",
    "SOURCE_DATE_EPOCH",
];

/// Whether `name` is a proxy setting.
pub(crate) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

/// The global scope: what FROM lines see, and where stage ARGs without a default get their values.
#[derive(Debug, Default)]
pub(crate) struct GlobalScope {
    /// Predefined and global arguments that have a value.
    pub(crate) values: Environment,
    /// The predefined ones, whether or not the file names them.
    predefined: BTreeSet<String>,
}

impl GlobalScope {
    /// Evaluates the ARGs before the first FROM. Later declarations see earlier ones.
    pub(crate) fn evaluate(
        dockerfile: &Dockerfile,
        options: &LowerOptions,
        expander: Expander<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut values = predefined(dockerfile, options);
        let predefined = values.names().map(str::to_owned).collect();
        let mut errors = Vec::new();
        for statement in dockerfile.global() {
            let Instruction::Arg(arg) = &statement.instruction else {
                continue;
            };
            if let Err(error) = evaluate_global(arg, &mut values, options, expander) {
                errors.push(error);
            }
        }
        if errors.is_empty() {
            Ok(Self { values, predefined })
        } else {
            Err(errors)
        }
    }

    /// Whether a build argument of this name needs no declaration.
    pub(crate) fn is_predefined(&self, name: &str) -> bool {
        is_proxy(name) || CONTROLS.contains(&name) || self.predefined.contains(name)
    }
}

fn evaluate_global(
    arg: &Arg,
    values: &mut Environment,
    options: &LowerOptions,
    expander: Expander<'_>,
) -> Result<(), Diagnostic> {
    for declaration in &arg.declarations {
        let name = expander.word(&declaration.name, values)?;
        if let Some(value) = options.build_arg(&name) {
            values.set(&name, value);
        } else if let Some(default) = &declaration.default {
            let value = expander.word(default, values)?;
            values.set(&name, value);
        }
    }
    Ok(())
}

/// The platform arguments and `TARGETSTAGE`; all can be overridden by build arguments.
fn predefined(dockerfile: &Dockerfile, options: &LowerOptions) -> Environment {
    let mut values = Environment::default();
    // Of the target alone, the platform includes a version of the operating system.
    for (prefix, platform, text) in [
        (
            "BUILD",
            &options.build_platform,
            options.build_platform.to_string(),
        ),
        ("TARGET", &options.target_platform, options.target_platform.full()),
    ] {
        values.set(&format!("{prefix}PLATFORM"), text);
        for (suffix, value) in platform_arguments(platform) {
            values.set(&format!("{prefix}{suffix}"), value);
        }
    }
    let stage = match &options.target {
        Some(target) => Some(target.clone()),
        None => dockerfile.stages.last().and_then(|stage| stage.name.clone()),
    };
    values.set("TARGETSTAGE", stage.unwrap_or_else(|| "default".to_owned()));
    let overrides: Vec<(String, String)> = values
        .names()
        .filter_map(|name| Some((name.to_owned(), options.build_arg(name)?.to_owned())))
        .collect();
    for (name, value) in overrides {
        values.set(&name, value);
    }
    values
}

fn platform_arguments(platform: &Platform) -> [(&'static str, String); 4] {
    [
        ("OS", platform.os.clone()),
        ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
        ("ARCH", platform.architecture.clone()),
        ("VARIANT", platform.variant.clone().unwrap_or_default()),
    ]
}

/// The ARGs that a stage has declared, its parents' included: what a RUN's history entry lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeclaredArgs {
    /// Names in order of declaration, with the value that the declaration gave.
    declared: Environment,
}

impl DeclaredArgs {
    /// Notes a declaration.
    pub(crate) fn declare(&mut self, name: &str, value: Option<&str>) {
        self.declared.set(name, value.unwrap_or_default());
    }

    /// Whether there is a declaration, with a value or without.
    pub(crate) fn is_declared(&self, name: &str) -> bool {
        self.declared.get(name).is_some()
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.names()
    }

    /// The words `|2 A=1 B=2` that go before a RUN's command in the history; none without ARGs. A later ENV of
    /// the same name shows here too, as it did in the step's environment.
    pub(crate) fn history_words(&self, environment: &Environment) -> Vec<String> {
        let mut words: Vec<String> = self
            .names()
            .map(|name| {
                let value = environment
                    .get(name)
                    .or(self.declared.get(name))
                    .unwrap_or_default();
                format!("{name}={value}")
            })
            .collect();
        if !words.is_empty() {
            words.insert(0, format!("|{}", words.len()));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::{DeclaredArgs, Environment, is_proxy};

    #[test]
    fn history_lists_declared_args_with_their_values_of_the_moment() {
        let mut args = DeclaredArgs::default();
        let mut environment = Environment::default();
        assert!(args.history_words(&environment).is_empty());
        args.declare("A", Some("a"));
        args.declare("http_proxy", None);
        environment.set("A", "fromenv");
        assert_eq!(
            args.history_words(&environment),
            ["|2", "A=fromenv", "http_proxy="]
        );
    }

    #[test]
    fn proxies_are_known_in_any_case() {
        assert!(is_proxy("HTTP_PROXY") && is_proxy("no_proxy") && !is_proxy("MY_PROXY"));
    }
}
