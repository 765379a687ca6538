//! The image configuration: what a stage inherits, and what is settled at the end.

use kiln_image::{ImageConfig, Platform};

use crate::history;
use crate::options::LowerOptions;
use crate::path;

/// The search path of an image that sets none, and of every process in it.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The configuration that FROM scratch starts with.
pub(crate) fn scratch(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::default();
    set_platform(&mut config, platform);
    "/".clone_into(&mut config.config.working_dir);
    ensure_path(&mut config);
    config
}

/// The configuration that FROM a context without an image starts with: its files are one layer.
pub(crate) fn files(context: &str, platform: &Platform) -> ImageConfig {
    let mut config = scratch(platform);
    let created_by = format!("local source for {context}");
    config.history.push(history::exported(created_by));
    config
}

/// The configuration that FROM this image starts with. Its ONBUILD triggers are taken out: they run now.
/// Its creation time, its layers and what only its own builder understands are not the new image's.
pub(crate) fn inherit_image(base: &ImageConfig) -> ImageConfig {
    let mut config = base.clone();
    config.created = None;
    config.rootfs.diff_ids.clear();
    config.extra.clear();
    config.config.extra.clear();
    config.config.on_build.clear();
    if !config.config.working_dir.is_empty() && !config.config.working_dir.starts_with('/') {
        config.config.working_dir = path::resolve("/", &config.config.working_dir);
    }
    ensure_path(&mut config);
    config
}

/// The configuration that FROM a stage with this one starts with.
pub(crate) fn inherit_stage(base: &ImageConfig) -> ImageConfig {
    let mut config = base.clone();
    config.config.on_build.clear();
    config
}

/// Settles the target's configuration.
pub(crate) fn finish(config: &mut ImageConfig, options: &LowerOptions) {
    config.config.labels.extend(
        options
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    if options.platform_requested {
        set_platform(config, &options.target_platform);
    }
}

fn set_platform(config: &mut ImageConfig, platform: &Platform) {
    let same = config.os == platform.os && config.architecture == platform.architecture;
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    if platform.variant.is_some() || !same {
        config.variant.clone_from(&platform.variant);
    }
    if platform.os_version.is_some() || !same {
        config.os_version.clone_from(&platform.os_version);
    }
    if !platform.os_features.is_empty() {
        config.os_features.clone_from(&platform.os_features);
    }
}

fn ensure_path(config: &mut ImageConfig) {
    if config.os != "windows"
        && !config
            .config
            .env
            .iter()
            .any(|variable| variable.starts_with("PATH="))
    {
        config.config.env.push(DEFAULT_PATH.to_owned());
    }
}
