//! Operations on files that need no process: copies, new directories, new files.

use serde::{Deserialize, Serialize};

use super::SourceSpan;

/// A chain of file actions, applied in order to the base in slot 0; together they make one layer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
}

/// One change of files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FileAction {
    /// Copies from another input.
    Copy(Copy),
    /// Makes a directory and its missing parents; an existing one is left alone.
    MakeDirectory(MakeDirectory),
    /// Writes a file.
    MakeFile(MakeFile),
}

/// Copies files into the base. Semantics: Docker's `COPY` and `ADD`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copy {
    /// The input slot that is copied from (never 0).
    pub from: usize,
    /// What to copy, in order.
    pub sources: Vec<CopySource>,
    /// Absolute destination; a trailing slash means a directory.
    pub destination: String,
    /// The new owner as written (`user[:group]`), resolved against the base's own files.
    pub owner: Option<String>,
    /// The new mode as written, octal or symbolic.
    pub mode: Option<String>,
    /// Tar archives are unpacked (`ADD`); what is none is copied as it is.
    pub unpack: bool,
    /// What is left out, as patterns of an ignore file: below a copied directory by the path in it, of single files by
    /// their names.
    pub exclude: Vec<String>,
}

/// One source of a [`struct@Copy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    /// Path below the input's root; with wildcards as in Go's `filepath.Match`.
    pub pattern: String,
    /// Of the directories that `pattern` means, only what this pattern of an ignore file means, with the directories
    /// above it up to there (`COPY --parents`). Symlinks are not followed in it.
    pub below: Option<String>,
    /// Where this source was written, for messages.
    pub span: Option<SourceSpan>,
}

/// Makes a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// Absolute path.
    pub path: String,
    /// Permission bits of each directory that is made.
    pub mode: u32,
    /// Owner as `user[:group]`, resolved against the base's own files; empty means root.
    pub owner: String,
}

/// Writes a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeFile {
    /// Absolute path; a trailing slash or an existing directory takes `name` below it.
    pub destination: String,
    /// The file's name when the destination is a directory.
    pub name: String,
    /// The bytes.
    pub data: Vec<u8>,
    /// New mode as written, octal or symbolic; 0644 when absent.
    pub mode: Option<String>,
    /// The new owner as written, resolved against the base's own files; root when absent.
    pub owner: Option<String>,
}
