//! Layers from arbitrary bytes, unpacked into a directory of their own.
//!
//! Almost no mutation of a tar has the right checksums, so they are set first.
#![no_main]

use kiln_image::layer::{self, UnpackOptions};
use kiln_tree::Root;

const BLOCK: usize = 512;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const REAL_SIZE: std::ops::Range<usize> = 483..495;

/// Sets the checksums of what will be read as headers.
fn set_checksums(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        if header.iter().any(|&byte| byte != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits = header[SIZE]
            .iter()
            .take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = digits.fold(0_usize, |size, digit| size * 8 + usize::from(digit - b'0'));
        let has_data = !matches!(header[156], b'1'..=b'6');
        at += BLOCK + if has_data { size.next_multiple_of(BLOCK) } else { 0 };
    }
}

/// Makes sparse files small. Their holes are hashed, so some hundred bytes may rightly cost as much as 64 GiB do.
fn limit_holes(tar: &mut [u8]) {
    for header in tar.chunks_exact_mut(BLOCK).filter(|block| block[156] == b'S') {
        header[REAL_SIZE][..5].fill(b'0');
    }
    let names: Vec<usize> = tar
        .windows(5)
        .enumerate()
        .filter(|(_, bytes)| bytes == b"size=")
        .map(|(at, _)| at)
        .collect();
    for name in names {
        let value = &mut tar[name + 5..];
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
        value[..digits.saturating_sub(7)].fill(b'0');
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut tar = data.to_vec();
    limit_holes(&mut tar);
    set_checksums(&mut tar);
    let path = std::env::temp_dir().join(format!("kiln-fuzz-layer-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).expect("make a directory");
    let root = Root::open(&path).expect("open it");
    if let Ok(unpacked) = layer::unpack(tar.as_slice(), &root, &UnpackOptions::default()) {
        assert_eq!(unpacked.size, tar.len() as u64);
        // What was taken must be told exactly: packing reads every file and compares. Only device nodes may be missing.
        if unpacked.refused == kiln_tree::Refused::default() {
            layer::diff_id(&unpacked.listing, &root).expect("what was unpacked can be packed");
        }
    }
    let _ = std::fs::remove_dir_all(&path);
});
