//! The platforms in the step names of a multi-platform build: `[linux/amd64->arm64 build 2/4]`.

use kiln_image::Platform;

use crate::environment::Environment;

/// The target that the variables of a step speak of: `TARGETPLATFORM`, or `TARGETOS` and its like.
pub(crate) fn target(environment: &Environment) -> Option<Target> {
    let value = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    if let Some(platform) = value("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok()) {
        return Some(Target {
            os: Some(platform.os),
            architecture: Some(platform.architecture),
            variant: platform.variant,
        });
    }
    let [os, architecture, variant] = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(value);
    (os.is_some() || architecture.is_some() || variant.is_some()).then(|| Target {
        os: os.map(str::to_owned),
        architecture: architecture.map(str::to_owned),
        variant: variant.map(str::to_owned),
    })
}

/// A platform of which not all parts need be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

/// The platform of a stage, and the target where that is another one: `linux/amd64->arm64`.
pub(crate) fn label(stage: &Platform, target: Option<&Target>) -> String {
    let stage = stage.normalized();
    let Some(target) = target else {
        return stage.full();
    };
    let target = Platform::new(
        target.os.as_deref().unwrap_or(&stage.os),
        target.architecture.as_deref().unwrap_or(&stage.architecture),
        target.variant.as_deref(),
    );
    if target.os != stage.os {
        return format!("{}->{target}", stage.full());
    }
    if target.architecture == stage.architecture {
        return stage.full();
    }
    match &target.variant {
        Some(variant) => format!("{}->{}/{variant}", stage.full(), target.architecture),
        None => format!("{}->{}", stage.full(), target.architecture),
    }
}

#[cfg(test)]
mod tests {
    use super::{label, target};
    use crate::environment::Environment;

    #[test]
    fn the_target_shows_where_it_is_another_architecture() {
        let cases: [(&str, &[&str], &str); 9] = [
            ("linux/amd64", &[], "linux/amd64"),
            ("linux/amd64", &["TARGETARCH=arm64"], "linux/amd64->arm64"),
            ("linux/amd64", &["TARGETARCH=amd64"], "linux/amd64"),
            ("linux/amd64", &["TARGETARCH="], "linux/amd64"),
            (
                "linux/amd64",
                &["TARGETARCH=arm", "TARGETVARIANT=v6"],
                "linux/amd64->arm/v6",
            ),
            (
                "linux/amd64",
                &["TARGETPLATFORM=linux/arm64/v8", "TARGETARCH=s390x"],
                "linux/amd64->arm64",
            ),
            ("linux/amd64", &["TARGETOS=windows"], "linux/amd64->windows/amd64"),
            (
                "linux/amd64",
                &["TARGETPLATFORM=no/such/plat/form"],
                "linux/amd64",
            ),
            ("linux/arm64/v8", &["TARGETOS=linux"], "linux/arm64"),
        ];
        for (stage, variables, expected) in cases {
            let variables: Vec<String> = variables.iter().map(|text| (*text).to_owned()).collect();
            let target = target(&Environment::from_strings(&variables));
            assert_eq!(
                label(&stage.parse().unwrap(), target.as_ref()),
                expected,
                "{variables:?}"
            );
        }
    }
}
