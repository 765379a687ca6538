//! `--volume HOST:CONTAINER[:OPTIONS]`.

use std::path::PathBuf;

/// A folder or file of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Volume {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// Why a `--volume` value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// It has not the form `HOST:CONTAINER[:OPTIONS]`.
    #[error("volume {0:?}: expected HOST:CONTAINER[:ro]")]
    Form(String),
    /// A path is not absolute. Docker would take a name for a named volume.
    #[error("volume {value:?}: {path:?} is not an absolute path; named volumes are not supported yet")]
    Relative {
        /// The whole value.
        value: String,
        /// The path.
        path: String,
    },
    /// Its place is the root of the container.
    #[error("volume {0:?}: the root of the container cannot be replaced")]
    Root(String),
    /// An option is not known.
    #[error("volume {value:?}: unknown option {option:?}")]
    Option {
        /// The whole value.
        value: String,
        /// The option.
        option: String,
    },
}

impl Volume {
    /// Reads a `--volume` value.
    pub fn parse(value: &str) -> Result<Self, VolumeError> {
        let mut fields = value.split(':');
        let (Some(source), Some(target), options, None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(VolumeError::Form(value.to_owned()));
        };
        for path in [source, target] {
            if !path.starts_with('/') {
                return Err(VolumeError::Relative {
                    value: value.to_owned(),
                    path: path.to_owned(),
                });
            }
        }
        if std::path::Path::new(target) == std::path::Path::new("/") {
            return Err(VolumeError::Root(value.to_owned()));
        }
        let mut read_only = false;
        for option in options.unwrap_or("rw").split(',') {
            match option {
                "ro" | "readonly" => read_only = true,
                // SELinux labels and propagation: what they ask for is how it is, or does not exist here.
                "rw" | "z" | "Z" | "rprivate" | "private" | "consistent" | "cached" | "delegated" => {}
                other => {
                    return Err(VolumeError::Option {
                        value: value.to_owned(),
                        option: other.to_owned(),
                    });
                }
            }
        }
        Ok(Self {
            source: source.into(),
            target: target.into(),
            read_only,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Volume, VolumeError};

    #[test]
    fn reads_what_docker_reads() {
        let volume = |target: &str, read_only| Volume {
            source: "/a".into(),
            target: target.into(),
            read_only,
        };
        assert_eq!(Volume::parse("/a:/b"), Ok(volume("/b", false)));
        assert_eq!(Volume::parse("/a:/b:ro"), Ok(volume("/b", true)));
        assert_eq!(Volume::parse("/a:/b:ro,z"), Ok(volume("/b", true)));
        assert!(matches!(
            Volume::parse("data:/b"),
            Err(VolumeError::Relative { .. })
        ));
        assert!(matches!(
            Volume::parse("/a:/b:xx"),
            Err(VolumeError::Option { .. })
        ));
        assert!(matches!(Volume::parse("/a://"), Err(VolumeError::Root(_))));
        assert!(matches!(Volume::parse("/a"), Err(VolumeError::Form(_))));
        assert!(matches!(Volume::parse("/a:/b:ro:x"), Err(VolumeError::Form(_))));
    }
}
