//! Carrying out file operations: copies, directories and files, written through an overlay of the base so that
//! the kernel decides what a change means for the layers below.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use kiln_image::archive::{self, Extracted};
use kiln_image::layer::LayerError;
use kiln_tree::copy::{self, CopyError, CopyRequest, ModeChange, Prehashed, SourceTree};
use kiln_tree::{ContentHasher, EntryKind, Listing, Refused, Root, TreePath, accounts};

use crate::cancel::Cancel;
use crate::context::ContextView;
use crate::error::StepFailure;
use crate::graph::{Copy, FileAction, FileOp, MakeDirectory, MakeFile};
use crate::select::Place;

/// What a copy reads from.
#[derive(Debug)]
pub(crate) enum CopyTree {
    /// A local directory: somebody may change its files meanwhile.
    Context(Arc<ContextView>),
    /// The root of another step: nobody changes it.
    Snapshot(Root, Arc<Listing>),
}

impl SourceTree for CopyTree {
    fn root(&self) -> &Root {
        match self {
            Self::Context(view) => &view.root,
            Self::Snapshot(root, _) => root,
        }
    }

    fn listing(&self) -> &Listing {
        match self {
            Self::Context(view) => &view.listing,
            Self::Snapshot(_, listing) => listing,
        }
    }

    fn verify(&self) -> bool {
        matches!(self, Self::Context(_))
    }
}

/// What a copy takes.
#[derive(Debug)]
pub(crate) struct CopyInput {
    /// From where.
    pub(crate) tree: CopyTree,
    /// What of it, in order.
    pub(crate) places: Vec<Place>,
}

/// What came of file actions.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Hashes of the files written.
    pub(crate) written: Prehashed,
    /// What had to be left as it is.
    pub(crate) refused: Refused,
}

/// A line for each kind of thing that was refused, other than attributes.
pub(crate) fn warnings(refused: Refused) -> impl Iterator<Item = String> {
    let owners = format!(
        "{} files keep the owner of this user: the user ids that they should have are not mapped here",
        refused.owners
    );
    let devices = format!(
        "{} devices were left out: an ordinary user cannot make any",
        refused.devices
    );
    [(refused.owners, owners), (refused.devices, devices)]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(_, warning)| warning)
}

/// Carries out all actions of `op` on `base`. `inputs` is by the action's position; those of actions that copy
/// nothing are `None`.
pub(crate) fn apply(
    op: &FileOp,
    base: &Root,
    inputs: &[Option<CopyInput>],
    stop: &Cancel,
) -> Result<Applied, StepFailure> {
    let mut applied = Applied::default();
    for (position, action) in op.actions.iter().enumerate() {
        match action {
            FileAction::Copy(action) => {
                let input = inputs.get(position).and_then(Option::as_ref);
                let input = input.ok_or(StepFailure::Graph("a copy without its input"))?;
                copy_all(action, base, input, stop, &mut applied)?;
            }
            FileAction::MakeDirectory(action) => make_directory(action, base)?,
            FileAction::MakeFile(action) => make_file(action, base)?,
        }
    }
    Ok(applied)
}

fn copy_all(
    action: &Copy,
    base: &Root,
    input: &CopyInput,
    stop: &Cancel,
    applied: &mut Applied,
) -> Result<(), StepFailure> {
    let owner = action
        .owner
        .as_deref()
        .map(|owner| accounts::owner(base, owner))
        .transpose()?;
    let mode = action.mode.as_deref().map(str::parse::<ModeChange>).transpose()?;
    for place in &input.places {
        if stop.is_raised() {
            return Err(StepFailure::Canceled);
        }
        if action.unpack
            && let Some(extracted) = unpack(action, base, &input.tree, place, owner)?
        {
            applied.refused.absorb(extracted.refused);
            continue;
        }
        let mut request = CopyRequest::new(&input.tree, place.written.clone(), action.destination.as_bytes());
        // As Docker does: a file copied onto a symlink goes where that leads, inside the root.
        request.follow_dest_symlink = true;
        request.owner = owner;
        request.mode.clone_from(&mode);
        let filter = place.filter.as_deref();
        let left_out = |path: &TreePath| filter.is_some_and(|filter| !filter.takes(path.as_bytes()));
        if filter.is_some() {
            request.exclude = Some(&left_out);
        }
        let copied = copy::copy(&request, base).map_err(|source| match source {
            CopyError::Changed { path } => StepFailure::SourceChanged { path, attempts: 1 },
            source => StepFailure::Copy {
                destination: action.destination.clone(),
                source,
            },
        })?;
        applied.refused.absorb(copied.refused);
        applied.written.absorb(copied.prehashed);
    }
    Ok(())
}

fn is_directory(root: &Root, path: &str) -> Result<bool, StepFailure> {
    Ok(root.stat_opt(path)?.is_some_and(|metadata| metadata.is_dir()))
}

/// Unpacks `place` when it is a tar archive, compressed or not; `None` when it is none.
fn unpack(
    action: &Copy,
    base: &Root,
    tree: &CopyTree,
    place: &Place,
    owner: Option<(u32, u32)>,
) -> Result<Option<Extracted>, StepFailure> {
    let Some(EntryKind::File { content, .. }) =
        tree.listing().get_linked(&place.path).map(|entry| &entry.kind)
    else {
        return Ok(None);
    };
    let changed = || StepFailure::SourceChanged {
        path: place.path.clone(),
        attempts: 1,
    };
    let file = match tree.root().open_read(place.path.as_bytes()) {
        Err(_) if tree.verify() => return Err(changed()),
        file => file?,
    };
    let mut reader = Hashing {
        file,
        hasher: ContentHasher::new(),
    };
    let extracted = unpack_from(&mut reader, action, base, place, owner);
    // What a changed file led to says nothing; so the bytes are judged first. (A file that is no archive is copied,
    // and judged then.)
    if tree.verify() && !matches!(extracted, Ok(None)) {
        let read = io::copy(&mut reader, &mut io::sink());
        if read.is_err() || reader.hasher.finish() != *content {
            return Err(changed());
        }
    }
    extracted
}

fn unpack_from(
    reader: &mut Hashing,
    action: &Copy,
    base: &Root,
    place: &Place,
    owner: Option<(u32, u32)>,
) -> Result<Option<Extracted>, StepFailure> {
    let failed = |source| StepFailure::Unpack {
        path: place.path.clone(),
        source,
    };
    let Some(tar) = archive::open(reader).map_err(|source| failed(LayerError::Read(source)))? else {
        return Ok(None);
    };
    archive::extract(tar, base, action.destination.as_bytes(), owner)
        .map(Some)
        .map_err(failed)
}

/// Hashes what is read.
struct Hashing {
    file: File,
    hasher: ContentHasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
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
    let change = action.mode.as_deref().map(str::parse::<ModeChange>).transpose()?;
    let mode = change.as_ref().map_or(0o644, |change| change.apply(0o644, false));
    if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        // As for copied files: an octal mode is for the folders on the way, too.
        base.create_dir_all(parent, ModeChange::of_parents(change.as_ref()), Some((uid, gid)))?;
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
