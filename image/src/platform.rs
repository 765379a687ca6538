//! `Platform`: operating system, processor architecture and variant of an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// For which machine an image is: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Processor architecture in Go's names: `amd64`, `arm64`, `arm`, `386`, `riscv64`, `s390x`, `ppc64le`.
    #[serde(default)]
    pub architecture: String,
    /// Operating system in Go's names: `linux`, `windows`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system, as good as only on Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system that are needed, on Windows only.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the processor: `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text is no [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    /// One, two or three components are expected.
    #[error("platform {text:?} is not of the form os[/architecture[/variant]]")]
    Form {
        /// The text.
        text: String,
    },
    /// A component with other characters than letters, digits, `.`, `_` and `-`.
    #[error("platform {text:?} has the invalid component {component:?}")]
    Component {
        /// The text.
        text: String,
        /// The component.
        component: String,
    },
    /// A single component that is neither an operating system nor an architecture.
    #[error("{text:?} is neither a known operating system nor a known architecture")]
    Unknown {
        /// The text.
        text: String,
    },
}

/// Operating systems that may stand alone.
const SYSTEMS: [&str; 14] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];

/// Architectures that may stand alone, in canonical names.
const ARCHITECTURES: [&str; 15] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le",
    "riscv64", "s390x", "sparc64", "wasm",
];

impl Platform {
    /// A platform with these names, made canonical.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "i686", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            architecture: architecture.to_owned(),
            os,
            os_version: None,
            os_features: Vec::new(),
            variant: (!variant.is_empty()).then(|| variant.to_owned()),
        }
    }

    /// The platform that this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }

    /// The platform with the version of its operating system, when it has one: `windows(10.0.17763)/amd64`.
    pub fn full(&self) -> String {
        match &self.os_version {
            Some(version) if !version.is_empty() => {
                let text = self.to_string();
                let (os, rest) = text.split_once('/').unwrap_or((&text, ""));
                format!("{os}({version})/{rest}")
            }
            _ => self.to_string(),
        }
    }

    /// This platform in its canonical names: `x86_64` is `amd64`, `aarch64` is `arm64`, `arm64/v8` has no variant.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let mut platform = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        platform.os_version.clone_from(&self.os_version);
        platform.os_features.clone_from(&self.os_features);
        platform
    }

    /// Whether an image for `self` is one for `wanted`, without any fallback. Versions of the operating system do not
    /// count.
    pub fn matches(&self, wanted: &Platform) -> bool {
        let (this, wanted) = (self.normalized(), wanted.normalized());
        this.os == wanted.os && this.architecture == wanted.architecture && this.variant == wanted.variant
    }

    /// Whether an image for `self` runs where `wanted` is asked for, fallbacks included.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        wanted.fallbacks().iter().any(|fallback| self.matches(fallback))
    }

    /// The platforms whose images run where this one is asked for, best first. The order is containerd's: older variants
    /// of the architecture, then the 32-bit architecture that the processor also runs.
    pub fn fallbacks(&self) -> Vec<Platform> {
        let this = self.normalized();
        let variant = this.variant.as_deref().unwrap_or_default();
        let number = |variant: &str| {
            variant
                .strip_prefix('v')
                .and_then(|number| number.parse::<u32>().ok())
        };
        let mut names: Vec<(&str, Option<String>)> = vec![(&this.architecture, this.variant.clone())];
        let mut older = |architecture: &'static str, from: u32, to: u32| {
            names.extend(
                (to..=from)
                    .rev()
                    .map(|number| (architecture, Some(format!("v{number}")))),
            );
        };
        match this.architecture.as_str() {
            "amd64" => {
                if let Some(version @ 2..=9) = number(variant) {
                    older("amd64", version - 1, 1);
                }
                names.push(("386", None));
            }
            "arm" => {
                if let Some(version @ 6..=9) = number(variant) {
                    older("arm", version - 1, 5);
                }
            }
            "arm64" => {
                if let Some(version @ 9) = number(variant) {
                    older("arm64", version - 1, 8);
                }
                older("arm", 8, 5);
            }
            _ => {}
        }
        let platform = |(architecture, variant): (&str, Option<String>)| Self {
            os_version: this.os_version.clone(),
            ..Self::new(&this.os, architecture, variant.as_deref())
        };
        names.into_iter().map(platform).collect()
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `os(version)/…`, as containerd writes it.
        let (os, rest) = text
            .split_once('/')
            .map_or((text, None), |(os, rest)| (os, Some(rest)));
        if let Some((os, version)) = os.strip_suffix(')').and_then(|os| os.split_once('('))
            && !version.is_empty()
            && version
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
        {
            let plain = rest.map_or_else(|| os.to_owned(), |rest| format!("{os}/{rest}"));
            return Ok(Self {
                os_version: Some(version.to_owned()),
                ..plain.parse()?
            });
        }
        let shown = || text.chars().take(128).collect::<String>();
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if text.is_empty() || parts.len() > 3 {
            return Err(ParsePlatformError::Form { text: shown() });
        }
        if let Some(part) = parts.iter().find(|part| !valid(part)) {
            return Err(ParsePlatformError::Component {
                text: shown(),
                component: part.chars().take(128).collect(),
            });
        }
        match parts.as_slice() {
            [single] => {
                let host = Self::host();
                let named = Self::new(single, &host.architecture, host.variant.as_deref());
                if SYSTEMS.contains(&named.os.as_str()) {
                    return Ok(named);
                }
                let named = Self::new(&host.os, single, None);
                if ARCHITECTURES.contains(&named.architecture.as_str()) {
                    return Ok(named);
                }
                Err(ParsePlatformError::Unknown { text: shown() })
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(ParsePlatformError::Form { text: shown() }),
        }
    }
}

/// Characters of a name that are shown.
const SHOWN: usize = 64;

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Foreign names may be anything; no real one has other characters, or is as long.
        let shown = |name: &str| -> String {
            let ascii = |c: char| if c.is_ascii_graphic() { c } else { '?' };
            name.chars().take(SHOWN).map(ascii).collect()
        };
        let or_unknown = |name: &str| {
            if name.is_empty() {
                "unknown".to_owned()
            } else {
                shown(name)
            }
        };
        write!(f, "{}/{}", or_unknown(&self.os), or_unknown(&self.architecture))?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{}", shown(variant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_normalized() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("s390x", "linux/s390x"),
            ("windows/amd64", "windows/amd64"),
        ];
        for (text, expected) in cases {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), expected, "{text}");
            assert_eq!(platform.normalized(), platform, "{text}");
        }
        assert_eq!("linux".parse(), Ok(Platform::host()));
    }

    #[test]
    fn a_version_of_the_system_is_kept() {
        let platform: Platform = "windows(10.0.17763)/x86_64".parse().unwrap();
        assert_eq!(platform.os_version.as_deref(), Some("10.0.17763"));
        assert_eq!(
            (platform.to_string().as_str(), platform.full().as_str()),
            ("windows/amd64", "windows(10.0.17763)/amd64")
        );
        assert_eq!(platform.full().parse(), Ok(platform.clone()));
        assert_eq!(platform.normalized(), platform);
        let plain: Platform = "linux/arm/v7".parse().unwrap();
        assert_eq!(plain.full(), "linux/arm/v7");
        for text in [
            "windows()/amd64",
            "windows(1/amd64",
            "windows)/amd64",
            "(1)/amd64",
            "linux(1 2)/amd64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn fallbacks_are_in_containerds_order() {
        let names = |text: &str| {
            let fallbacks = text.parse::<Platform>().unwrap().fallbacks();
            let names: Vec<String> = fallbacks.iter().map(ToString::to_string).collect();
            names.join(" ")
        };
        for (platform, expected) in [
            ("linux/amd64", "linux/amd64 linux/386"),
            (
                "linux/amd64/v3",
                "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386",
            ),
            ("linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
            ("linux/arm/v5", "linux/arm/v5"),
            (
                "linux/arm64",
                "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
            ),
            ("linux/386", "linux/386"),
            ("linux/s390x", "linux/s390x"),
        ] {
            assert_eq!(names(platform), expected);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/",
            "linux/",
            "a/b/c/d",
            "linux/amd 64",
            "nonsense",
            "linux/amd64/",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn fallbacks_go_downwards_only() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let cases = [
            ("linux/amd64", "linux/amd64", true),
            ("linux/386", "linux/amd64", true),
            ("linux/amd64", "linux/386", false),
            ("linux/amd64/v2", "linux/amd64", false),
            ("linux/amd64", "linux/amd64/v3", true),
            ("linux/arm/v6", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm/v7", "linux/arm64", true),
            ("linux/arm64", "linux/arm64/v9", true),
            ("linux/arm64", "linux/amd64", false),
            ("windows/amd64", "linux/amd64", false),
        ];
        for (image, wanted, expected) in cases {
            assert_eq!(
                platform(image).satisfies(&platform(wanted)),
                expected,
                "{image} for {wanted}"
            );
        }
    }
}
