//! A context that a test writes and changes, and Kiln with a store of its own to build it.

use crate::builder::{Ended, Kiln, Request, run};
use crate::machine::TempFolder;
use crate::oci::{self, Image};
use crate::{Result, progress};
use std::path::PathBuf;

/// The context and the store; both go away with the value.
#[derive(Debug)]
pub struct Project {
    /// Kiln with the store.
    pub kiln: Kiln,
    /// What `build` is asked to do; its arguments may be changed.
    pub request: Request,
    folder: TempFolder,
}

impl Project {
    /// A project with the busybox image and these files.
    pub fn new(name: &str, files: &[(&str, &str)]) -> Result<Self> {
        Self::with_bases(name, &["busybox:latest"], files)
    }

    /// A project with these images and files.
    pub fn with_bases(name: &str, bases: &[&str], files: &[(&str, &str)]) -> Result<Self> {
        let folder = TempFolder::new(name)?;
        let kiln = Kiln::with_bases(&folder, bases)?;
        let context = folder.join("context");
        std::fs::create_dir(&context)?;
        let request = Request {
            context,
            file: None,
            tag: format!("{name}:test"),
            arguments: Vec::new(),
        };
        let project = Self {
            kiln,
            request,
            folder,
        };
        for (path, text) in files {
            project.write(path, text)?;
        }
        Ok(project)
    }

    /// A path in the project's temporary folder, outside the context.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A path in the context.
    pub fn path(&self, name: &str) -> PathBuf {
        self.request.context.join(name)
    }

    /// Writes a file of the context.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text)?)
    }

    /// Builds with further arguments; the build may fail.
    pub fn try_build(&self, arguments: &[&str]) -> Result<Ended> {
        let mut request = self.request.clone();
        request
            .arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        run(&mut self.kiln.build_command(&request))
    }

    /// Builds with further arguments and tells which steps were not cached.
    pub fn build(&self, arguments: &[&str]) -> Result<Vec<String>> {
        Ok(progress::not_cached(
            &self.try_build(arguments)?.success()?.stderr,
        ))
    }

    /// Exports the project's image and reads it.
    pub fn image(&self) -> Result<Image> {
        self.export(&self.request.tag)
    }

    /// Exports an image and reads it.
    pub fn export(&self, tag: &str) -> Result<Image> {
        let archive = self.scratch("export.tar");
        run(self
            .kiln
            .command(["save", "--format", "oci", "-o"])
            .arg(&archive)
            .arg(tag))?
        .success()?;
        oci::read(&archive)
    }

    /// What `sh -c SCRIPT` prints in the project's image.
    pub fn shell(&self, script: &str) -> Result<String> {
        Ok(self
            .kiln
            .run(["run", "--rm", &self.request.tag, "sh", "-c", script])?
            .success()?
            .stdout)
    }
}
