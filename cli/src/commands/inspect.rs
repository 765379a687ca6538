//! `kiln inspect`: containers and images as JSON, with the fields of `docker inspect`.

use std::process::ExitCode;

use kiln_cache::{Found, ImageRecord, IndexRecord, Store};
use kiln_container::{Container, Containers, Status};
use kiln_image::{ImageConfig, Platform};
use serde_json::{Value, json};

use crate::arguments::{Inspect, Kind};
use crate::exit;
use crate::machine::Machine;
use crate::report::{self, Failure};

/// What Docker writes for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Runs `kiln inspect`: prints what was found even when something was not.
pub(crate) fn run(machine: &Machine, arguments: &Inspect) -> Result<ExitCode, Failure> {
    let in_one_line = super::is_json(arguments.format.as_deref(), "json")?;
    let store = machine.store()?;
    let containers = Containers::new(&store);
    let (platform, requested) = super::platform(arguments.platform.as_deref())?;
    let platform = requested.then_some(platform);
    let mut found = Vec::new();
    let mut failed = false;
    for name in &arguments.names {
        match inspect(&store, &containers, name, arguments.kind, platform.as_ref()) {
            Ok(value) => found.push(value),
            Err(failure) => {
                report::failure(&failure);
                failed = true;
            }
        }
    }
    if in_one_line {
        super::print(&format!("{}\n", Value::from(found)))?;
    } else {
        super::print_json(&found)?;
    }
    Ok(exit::code_of(failed))
}

/// A container of this name comes before an image, as in Docker.
fn inspect(
    store: &Store,
    containers: &Containers,
    name: &str,
    kind: Option<Kind>,
    platform: Option<&Platform>,
) -> Result<Value, Failure> {
    if kind != Some(Kind::Image) {
        match containers.find(name) {
            Ok(found) => return container(store, &found),
            Err(kiln_container::Error::NotFound(_)) if kind.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    match store.images().find(name) {
        Ok(Some(found)) => {
            let record = super::image(store, name, platform)?;
            let mut value = image(store, &record)?;
            if let Found::Index(index) = found {
                describe_index(store, &index, platform.is_some(), &mut value)?;
            }
            Ok(value)
        }
        Ok(None) if kind.is_none() => Err(Failure::message(format!("no such container or image: {name}"))),
        Ok(None) => Err(Failure::message(format!("no such image: {name}"))),
        Err(error) => Err(error.into()),
    }
}

/// Adds what is known of the multi-platform image that an image is of. Its id stands for all of them, unless one of
/// them was asked for.
fn describe_index(
    store: &Store,
    index: &IndexRecord,
    one_wanted: bool,
    value: &mut Value,
) -> Result<(), Failure> {
    let mut images = Vec::with_capacity(index.images.len());
    for entry in &index.images {
        let record = store.images().by_id(&entry.image)?;
        images.push(json!({
            "Id": entry.image,
            "Platform": entry.platform.full(),
            "Size": record.as_ref().map(|record| record.size),
            "Created": record.and_then(|record| record.created),
        }));
    }
    if !one_wanted {
        value["Id"] = json!(index.id);
    }
    value["Index"] = json!({ "Id": index.id, "Images": images });
    Ok(())
}

fn image(store: &Store, record: &ImageRecord) -> Result<Value, Failure> {
    let config = config(store, record)?;
    let familiar = |names: &[String]| -> Vec<String> {
        let short = |name: &String| {
            name.parse::<kiln_image::Reference>()
                .ok()
                .map(|name| name.familiar())
        };
        names
            .iter()
            .map(|name| short(name).unwrap_or_else(|| name.clone()))
            .collect()
    };
    Ok(json!({
        "Id": record.id,
        "RepoTags": familiar(&record.names),
        "RepoDigests": record.repo_digests,
        "Comment": config.history.last().and_then(|entry| entry.comment.clone()).unwrap_or_default(),
        "Created": record.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": record.size,
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
    }))
}

fn container(store: &Store, container: &Container) -> Result<Value, Failure> {
    let state = container.state();
    let options = &state.options;
    let id = options
        .image
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    // The image may be gone; the container is told of without it then.
    let image = match store.images().get(&id)? {
        Some(record) => config(store, &record)?.config,
        None => kiln_image::Config::default(),
    };
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| NEVER.to_owned());
    let (path, arguments) = state
        .command
        .split_first()
        .map_or(("", &[] as &[String]), |(path, rest)| (path, rest));
    let running = state.status == Status::Running;
    let pid = state.process.filter(|_| running).map_or(0, |process| process.pid);
    let mounts = options.volumes.iter().map(|volume| {
        json!({
            "Type": "bind",
            "Source": volume.source,
            "Destination": volume.target,
            "Mode": if volume.read_only { "ro" } else { "" },
            "RW": !volume.read_only,
        })
    });
    Ok(json!({
        "Id": state.id,
        "Created": state.created,
        "Path": path,
        "Args": arguments,
        "State": {
            "Status": state.status,
            "Running": running,
            "Pid": pid,
            "ExitCode": state.exit_code.unwrap_or_default(),
            "StartedAt": time(&state.started),
            "FinishedAt": time(&state.finished),
        },
        "Image": options.image,
        "Name": format!("/{}", state.name),
        "HostConfig": { "NetworkMode": if options.host_network { "host" } else { "none" } },
        "Mounts": mounts.collect::<Vec<_>>(),
        "Config": {
            "Hostname": options.hostname.clone().unwrap_or_else(|| state.id.chars().take(12).collect()),
            "User": options.user.as_ref().unwrap_or(&image.user),
            "Tty": options.terminal,
            "OpenStdin": options.interactive,
            "Env": image.env.iter().chain(&options.env).collect::<Vec<_>>(),
            "Cmd": if options.command.is_empty() { &image.cmd } else { &options.command },
            "Image": options.image_name,
            "WorkingDir": options.workdir.as_ref().unwrap_or(&image.working_dir),
            "Entrypoint": options.entrypoint.as_ref().map_or_else(|| image.entrypoint.clone(), |entrypoint| {
                vec![entrypoint.clone()]
            }),
            "Labels": image.labels,
        },
    }))
}

/// The configuration of an image of the store.
pub(super) fn config(store: &Store, record: &ImageRecord) -> Result<ImageConfig, Failure> {
    let bytes = store
        .blobs()
        .read(&record.config)?
        .ok_or_else(|| Failure::message(format!("the configuration of image {} is lost", record.id)))?;
    ImageConfig::parse(&bytes).map_err(|error| Failure::error(&error))
}
