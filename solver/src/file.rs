//! Carrying out file operations: copies, directories and files, written through an overlay of the base so that
//! the kernel decides what a change means for the layers below.

use std::io::Read;

use kiln_image::archive;
use kiln_image::layer::LayerError;
use kiln_tree::copy::{self, CopyRequest, ListedSource, ModeChange, Prehashed};
use kiln_tree::{Listing, Root, accounts};

use crate::error::StepFailure;
use crate::graph::{Copy, FileAction, FileOp, MakeDirectory, MakeFile};
use crate::select::{Place, Selection};

/// What a copy reads from.
#[derive(Debug)]
pub(crate) struct CopyInput<'a> {
    /// The files.
    pub(crate) root: &'a Root,
    /// What is there.
    pub(crate) listing: &'a Listing,
    /// Whether somebody may change the files meanwhile (a local directory), so that bytes must be checked.
    pub(crate) verify: bool,
}

/// Carries out all actions of `op` on `base`. `inputs` and `selections` are by the action's position; those of
/// actions that copy nothing are `None`.
pub(crate) fn apply(
    op: &FileOp,
    base: &Root,
    inputs: &[Option<CopyInput<'_>>],
    selections: &[Option<Selection>],
) -> Result<Prehashed, StepFailure> {
    let mut written = Prehashed::default();
    for (position, action) in op.actions.iter().enumerate() {
        match action {
            FileAction::Copy(action) => {
                let input = inputs.get(position).and_then(Option::as_ref);
                let selection = selections.get(position).and_then(Option::as_ref);
                let (Some(input), Some(selection)) = (input, selection) else {
                    return Err(StepFailure::Graph("a copy without its input"));
                };
                written.absorb(copy_all(action, base, input, selection)?);
            }
            FileAction::MakeDirectory(action) => make_directory(action, base)?,
            FileAction::MakeFile(action) => make_file(action, base)?,
        }
    }
    Ok(written)
}

fn copy_all(
    action: &Copy,
    base: &Root,
    input: &CopyInput<'_>,
    selection: &Selection,
) -> Result<Prehashed, StepFailure> {
    let owner = action
        .owner
        .as_deref()
        .map(|owner| accounts::owner(base, owner))
        .transpose()?;
    let mode = action.mode.as_deref().map(parse_mode).transpose()?;
    let source = ListedSource {
        root: input.root,
        listing: input.listing,
        verify: input.verify,
    };
    let mut written = Prehashed::default();
    for place in &selection.places {
        if action.unpack && !place.is_dir && unpack(action, base, input, place, owner)? {
            continue;
        }
        let mut request = CopyRequest::new(&source, place.written.clone(), action.destination.as_bytes());
        // As Docker does: a file copied onto a symlink goes where that leads, inside the root.
        request.follow_dest_symlink = true;
        request.owner = owner;
        request.mode.clone_from(&mode);
        let copied = copy::copy(&request, base).map_err(|source| StepFailure::Copy {
            destination: action.destination.clone(),
            source,
        })?;
        written.absorb(copied.prehashed);
    }
    Ok(written)
}

fn is_directory(root: &Root, path: &str) -> Result<bool, StepFailure> {
    match root.stat(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Unpacks `place` when it is a tar archive, compressed or not; says whether it was one.
fn unpack(
    action: &Copy,
    base: &Root,
    input: &CopyInput<'_>,
    place: &Place,
    owner: Option<(u32, u32)>,
) -> Result<bool, StepFailure> {
    let failed = |source| StepFailure::Unpack {
        path: place.path.clone(),
        source,
    };
    let is_file = input
        .listing
        .get_linked(&place.path)
        .is_some_and(|entry| matches!(entry.kind, kiln_tree::EntryKind::File { .. }));
    if !is_file {
        return Ok(false);
    }
    let file = input.root.open_read(place.path.as_bytes())?;
    let Some(reader) = archive::open(file).map_err(|source| failed(LayerError::Read(source)))? else {
        return Ok(false);
    };
    let reader: Box<dyn Read> = reader;
    archive::extract(reader, base, action.destination.as_bytes(), owner).map_err(failed)?;
    Ok(true)
}

fn parse_mode(mode: &str) -> Result<ModeChange, StepFailure> {
    mode.parse().map_err(|source| StepFailure::Mode {
        mode: mode.to_owned(),
        source,
    })
}

fn make_directory(action: &MakeDirectory, base: &Root) -> Result<(), StepFailure> {
    if is_directory(base, &action.path)? {
        return Ok(());
    }
    let owner = if action.owner.is_empty() {
        (0, 0)
    } else {
        accounts::owner(base, &action.owner)?
    };
    base.create_dir_all(&action.path, action.mode, Some(owner))?;
    Ok(())
}

fn make_file(action: &MakeFile, base: &Root) -> Result<(), StepFailure> {
    let mut path = action.destination.clone();
    if path.ends_with('/') || is_directory(base, &path)? {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(&action.name);
    }
    let (uid, gid) = action
        .owner
        .as_deref()
        .map_or(Ok((0, 0)), |owner| accounts::owner(base, owner))?;
    let mode = match action.mode.as_deref() {
        Some(mode) => parse_mode(mode)?.apply(0o644, false),
        None => 0o644,
    };
    if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        base.create_dir_all(parent, 0o755, Some((uid, gid)))?;
    }
    let mut file = base.create_file(&path, mode)?;
    std::io::Write::write_all(&mut file, &action.data).map_err(|source| kiln_tree::Error::Io {
        operation: "write",
        path: path.clone().into(),
        source,
    })?;
    base.chown(&path, uid, gid)?;
    base.chmod(&path, mode)?;
    Ok(())
}

/// What a step's inputs are called in a message about a missing source.
pub(crate) fn place_name(is_snapshot: bool) -> &'static str {
    if is_snapshot {
        "the source stage or image"
    } else {
        "the build context"
    }
}
