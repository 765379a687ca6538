//! Limits on foreign input, each with its reason.

/// Bytes of a manifest or index. What registries and the other engines take at most.
pub const MANIFEST_SIZE: usize = 4 << 20;
/// Bytes of an image configuration. Engines allow 4 to 8 MiB; inline caches make the big ones.
pub const CONFIG_SIZE: usize = 8 << 20;
/// Layers of an image. overlayfs takes 500 lower directories; registries hold images with more, but nobody runs them.
pub const LAYERS: usize = 1000;
/// Manifests in an index. The largest known ones have a few dozen, twice that with attestations.
pub const INDEX_ENTRIES: usize = 2000;
/// History entries of a configuration: layers and metadata steps.
pub const HISTORY: usize = 10_000;
/// Values in a manifest, index or configuration: lists, objects and what is in them. The largest documents that the limits
/// above allow have some fifty thousand. Each may take 800 bytes of memory.
pub const JSON_VALUES: usize = 100_000;
/// How deep indexes may lie within each other. One level is all that is seen in practice.
pub const INDEX_DEPTH: usize = 4;

/// Entries of one layer: a file system of this machine class has 16 million inodes, and each entry costs memory for its
/// place in the listing.
pub const LAYER_ENTRIES: u64 = 8 << 20;
/// Bytes of one layer's tar, and so of the disk that it may fill.
pub const LAYER_SIZE: u64 = 1 << 40;
/// Bytes of holes that the sparse files of one layer may have. Holes cost neither network nor disk, but each byte is
/// hashed.
pub const LAYER_HOLES: u64 = 64 << 30;
/// Bytes of a path in a tar. The kernel refuses longer ones in one call.
pub const PATH_SIZE: usize = 4095;
/// Bytes of one component of a path.
pub const NAME_SIZE: usize = 255;
/// Bytes of the extension header of one tar entry, all its extended attributes included. Linux allows 64 KiB a value
/// and 64 KiB of names.
pub const TAR_EXTENSION_SIZE: u64 = 1 << 20;
/// Extension headers in a row in front of one tar entry: path, link, attributes and globals make four.
pub const TAR_EXTENSIONS: usize = 32;
/// Data regions of one sparse file.
pub const SPARSE_REGIONS: usize = 1 << 18;
/// Symbolic links followed in one path, as in the kernel.
pub const SYMLINKS: usize = 40;
/// Components of one path, those of its symbolic links included. The kernel has no such limit, but each entry of a tar
/// could lead through 40 links of 2000 components.
pub const PATH_STEPS: usize = 4096;
/// Entries of an archive of images. Docker's old form has three files a layer and one more an image.
pub const ARCHIVE_ENTRIES: usize = 100_000;
/// Bytes of all manifests and configurations that are read of one archive of images: thousands of ordinary ones.
pub const ARCHIVE_DOCUMENTS: usize = 32 << 20;
