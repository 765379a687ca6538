//! Bringing the result of a build to where it was asked for.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use kiln_frontend::Built;
use kiln_image::layout::{Form, Writer};
use kiln_image::{Descriptor, Reference};
use kiln_solver::task::{Reporter, Task};
use kiln_solver::{Cancel, Engine, FilesError, PushRequest, SaveRequest};

use super::outputs::{Output, Outputs};
use crate::commands::save::{self, into_file};
use crate::report::Failure;

/// What leaves a finished build.
pub(super) struct Export<'a> {
    pub(super) engine: &'a Engine,
    pub(super) built: &'a Built,
    pub(super) tags: &'a [Reference],
    pub(super) reporter: &'a Reporter,
    pub(super) cancel: &'a Cancel,
}

impl Export<'_> {
    /// Goes through all outputs. Gives what the image is outside the store: a manifest or an index.
    pub(super) fn run(&self, outputs: &Outputs) -> Result<Option<Descriptor>, Failure> {
        let mut root = None;
        for output in &outputs.outputs {
            if self.cancel.is_raised() {
                return Err(Failure::canceled());
            }
            match output {
                Output::Image {
                    names,
                    push: true,
                    by_digest,
                    compression,
                } => {
                    let request = PushRequest {
                        image: self.built.id.to_string(),
                        names: self.all_names(names),
                        platforms: Vec::new(),
                        compression: *compression,
                        by_digest: *by_digest,
                        lazy: self.built.lazy.clone(),
                    };
                    let pushed = self.engine.push(&request, self.reporter, self.cancel);
                    let pushed = pushed.map_err(crate::commands::push::failure)?;
                    root = pushed.into_iter().next().map(|pushed| pushed.root).or(root);
                }
                Output::Archive { .. } => root = self.archive(output)?.or(root),
                Output::Local { dest, split } => self.local(dest, *split)?,
                Output::Tar { dest } => self.tar(dest.as_deref())?,
                Output::Image { push: false, .. } | Output::CacheOnly => {}
            }
        }
        Ok(root)
    }

    fn all_names(&self, own: &[Reference]) -> Vec<Reference> {
        let mut names = self.tags.to_vec();
        names.extend(own.iter().filter(|name| !self.tags.contains(name)).cloned());
        names
    }

    fn task(&self, name: &str) -> Task {
        let mut task = self.reporter.announce(name, Vec::new(), None);
        task.start();
        task
    }

    fn finish<T>(&self, task: &Task, result: Result<T, Failure>) -> Result<T, Failure> {
        match &result {
            Ok(_) => task.done(),
            Err(_) if self.cancel.is_raised() => task.canceled(),
            Err(failure) => task.failed(failure.message_text()),
        }
        result
    }

    fn archive(&self, output: &Output) -> Result<Option<Descriptor>, Failure> {
        let Output::Archive {
            docker,
            dest,
            directory,
            names,
            compression,
        } = output
        else {
            return Ok(None);
        };
        let request = SaveRequest {
            images: vec![self.built.id.to_string()],
            form: if *docker { Form::Docker } else { Form::Oci },
            platforms: Vec::new(),
            names: Some(self.all_names(names)),
            compression: Some(*compression),
        };
        let kind = if *docker { "docker" } else { "oci" };
        let task = self.task(&format!("exporting to {kind} image format"));
        let roots = match dest {
            Some(dest) if *directory => Writer::directory(dest)
                .map_err(kiln_solver::SaveError::from)
                .and_then(|writer| self.engine.save_to(&request, writer, self.cancel))
                .map(|(_, roots)| roots)
                .map_err(save::failure),
            Some(dest) => into_file(dest, |out| self.save_tar(&request, out)),
            None => to_stdout(|out| self.save_tar(&request, out)),
        };
        self.finish(&task, roots).map(|roots| roots.into_iter().next())
    }

    fn save_tar(&self, request: &SaveRequest, out: &mut dyn Write) -> Result<Vec<Descriptor>, Failure> {
        Writer::tar(out)
            .map_err(kiln_solver::SaveError::from)
            .and_then(|writer| self.engine.save_to(request, writer, self.cancel))
            .map(|(_, roots)| roots)
            .map_err(save::failure)
    }

    fn local(&self, dest: &Path, split: Option<bool>) -> Result<(), Failure> {
        let several = self.built.images.len() > 1;
        let task = self.task("exporting to client directory");
        let mut result = Ok(());
        for image in &self.built.images {
            let folder = if split.unwrap_or(several) {
                // As Docker: linux_arm64.
                dest.join(image.platform.to_string().replace('/', "_"))
            } else {
                dest.to_owned()
            };
            match self.engine.export_to_directory(&image.id, &folder) {
                Ok(written) => {
                    let part = format!("copying files {}", image.platform);
                    task.progress(part, written.bytes, Some(written.bytes), true);
                    for warning in written.warnings {
                        task.warn(warning, None);
                    }
                }
                Err(error) => {
                    result = Err(failure(&error));
                    break;
                }
            }
        }
        self.finish(&task, result)
    }

    fn tar(&self, dest: Option<&Path>) -> Result<(), Failure> {
        let [image] = self.built.images.as_slice() else {
            return Err(Failure::message(
                "--output type=tar: the build is for several platforms, and a tar has files of one",
            )
            .hint("type=local writes a directory for each"));
        };
        let task = self.task("exporting to client tarball");
        let write = |out: &mut dyn Write| {
            let size = self.engine.export_as_tar(&image.id, out, self.cancel);
            size.map(|size| task.progress("sending tarball", size, Some(size), true))
                .map_err(|error| failure(&error))
        };
        let result = match dest {
            Some(dest) => into_file(dest, write),
            None => to_stdout(write),
        };
        self.finish(&task, result)
    }
}

fn failure(error: &FilesError) -> Failure {
    Failure::error(error)
}

fn to_stdout<T>(write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>) -> Result<T, Failure> {
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        return Err(
            Failure::usage("an archive is not written to a terminal").hint("redirect, or give dest=FILE")
        );
    }
    let mut out = BufWriter::with_capacity(1 << 20, stdout.lock());
    let result = write(&mut out)?;
    out.flush()
        .map_err(|error| Failure::io("write to", "standard output", error))?;
    Ok(result)
}

/// Writes what the build came to, for other programs: `--metadata-file`.
pub(super) fn metadata(
    path: &Path,
    reference: &str,
    built: &Built,
    names: &[Reference],
    root: Option<&Descriptor>,
) -> Result<(), Failure> {
    let mut entries = serde_json::Map::new();
    let mut put = |key: &str, value: serde_json::Value| drop(entries.insert(key.to_owned(), value));
    put("buildx.build.ref", reference.into());
    if let [image] = built.images.as_slice() {
        put("containerimage.config.digest", image.id.to_string().into());
    }
    // What stays in the store has no manifest; its id is what Docker gives then.
    let digest = root.map_or(built.id, |root| root.digest);
    put("containerimage.digest", digest.to_string().into());
    if let Some(root) = root {
        let descriptor = serde_json::to_value(root).map_err(|error| Failure::error(&error))?;
        put("containerimage.descriptor", descriptor);
    }
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        put("image.name", names.join(",").into());
    }
    let text = serde_json::to_string_pretty(&entries).map_err(|error| Failure::error(&error))?;
    into_file(path, |out| {
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|error| Failure::io("write", path, error))
    })
}

/// Whether a file could be written there: a build must not fail for that in the end.
pub(super) fn check_file(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => {
            let error = std::io::Error::from(std::io::ErrorKind::NotFound);
            Err(Failure::io("write", path, error))
        }
        _ if path.is_dir() => {
            let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            Err(Failure::io("write", path, error))
        }
        _ => Ok(()),
    }
}
