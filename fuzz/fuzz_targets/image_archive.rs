//! What `kiln load` reads: a tar from arbitrary bytes, or one of arbitrary documents that name each other.
//!
//! No mutation finds a digest. So input that begins with `text:` is a list of files, separated by NUL: a name, a line
//! feed, the content. In both, `@N` is the digest of the Nth file before (`@0` is the first), and `#N` its size; a file
//! called `@` is the blob of its digest, and `->` in front of a content makes it a link.
#![no_main]

use kiln_image::Digest;
use kiln_image::load::{self, ImageFiles};

const BLOCK: usize = 512;

/// Replaces `@N` and `#N` by the digest and the size of an earlier file.
fn filled_in(text: &[u8], earlier: &[(Digest, usize)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let digit = rest.peek().copied().filter(u8::is_ascii_digit);
        let named = digit.and_then(|digit| earlier.get(usize::from(digit - b'0')));
        match (byte, named) {
            (b'@', Some((digest, _))) => out.extend(digest.hex().into_bytes()),
            (b'#', Some((_, size))) => out.extend(size.to_string().into_bytes()),
            _ => {
                out.push(byte);
                continue;
            }
        }
        rest.next();
    }
    out
}

fn header(name: &[u8], kind: u8, size: usize, link: &[u8]) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    header[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[156] = kind;
    header[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    header[257..265].copy_from_slice(b"ustar\x0000");
    set_checksum(&mut header);
    header
}

fn set_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The archive that a list of files describes.
fn archive(text: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut earlier = Vec::new();
    for file in text.split(|&byte| byte == 0) {
        let at = file.iter().position(|&byte| byte == b'\n').unwrap_or(file.len());
        let (name, content) = (&file[..at], file.get(at + 1..).unwrap_or_default());
        let content = filled_in(content, &earlier);
        let digest = Digest::sha256_of(&content);
        let name = match name {
            b"@" => format!("blobs/sha256/{}", digest.hex()).into_bytes(),
            name => filled_in(name, &earlier),
        };
        earlier.push((digest, content.len()));
        if let Some(target) = content.strip_prefix(b"->") {
            tar.extend(header(&name, b'2', 0, target));
            continue;
        }
        tar.extend(header(&name, b'0', content.len(), b""));
        tar.extend(&content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

/// Sets the checksums of what will be read as headers: almost no mutation has them right.
fn set_checksums(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        if header.iter().any(|&byte| byte != 0) {
            set_checksum(header);
        }
        let digits = header[124..136]
            .iter()
            .take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = digits.fold(0_usize, |size, digit| size * 8 + usize::from(digit - b'0'));
        let has_data = !matches!(header[156], b'1'..=b'6');
        at += BLOCK + if has_data { size.next_multiple_of(BLOCK) } else { 0 };
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let tar = match data.strip_prefix(b"text:") {
        Some(text) => archive(text),
        None => {
            let mut tar = data.to_vec();
            set_checksums(&mut tar);
            tar
        }
    };
    let folder = std::env::temp_dir().join(format!("kiln-fuzz-archive-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("make a directory");
    for platforms in [&[][..], &["linux/arm64".parse().expect("a platform")]] {
        let inside = folder.join(platforms.len().to_string());
        std::fs::create_dir(&inside).expect("make a directory");
        let Ok(mut files) = ImageFiles::of_tar(tar.as_slice(), &inside) else {
            break;
        };
        let Ok(images) = load::contents(&mut files, platforms) else {
            continue;
        };
        for manifest in images.iter().flat_map(|image| &image.manifests) {
            assert_eq!(manifest.layers.len(), manifest.config.rootfs.diff_ids.len());
            for (layer, diff_id) in manifest.layers.iter().zip(&manifest.config.rootfs.diff_ids) {
                assert_eq!(layer.diff_id, *diff_id);
                let file = files.get(&layer.file).expect("a file").expect("that is there");
                assert!(file.path.starts_with(&inside), "{}", file.path.display());
                if let Some(blob) = &layer.blob {
                    assert_eq!((blob.digest, blob.size), (file.digest, file.size));
                }
            }
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
});
