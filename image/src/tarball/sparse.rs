//! Maps of sparse files.

use std::io::Read;

use super::{BLOCK, TarError, shown};
use crate::limits;

/// A run of stored bytes in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Checks that the regions are in order, lie within the file and are all that is stored.
pub(super) fn check(path: &[u8], regions: &[Region], real_size: u64, stored: u64) -> Result<(), TarError> {
    let error = || TarError::Sparse { path: shown(path) };
    let (mut end, mut sum) = (0_u64, 0_u64);
    for region in regions {
        if region.offset < end {
            return Err(error());
        }
        end = region.offset.checked_add(region.length).ok_or_else(error)?;
        sum += region.length;
    }
    if end > real_size || sum != stored {
        return Err(error());
    }
    Ok(())
}

/// Offset and length in turn.
pub(super) fn pairs(path: &[u8], numbers: &[u64]) -> Result<Vec<Region>, TarError> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > limits::SPARSE_REGIONS {
        return Err(TarError::Sparse { path: shown(path) });
    }
    let regions = numbers.chunks_exact(2).map(|pair| Region {
        offset: pair[0],
        length: pair[1],
    });
    Ok(regions.collect())
}

/// The map in front of the data (PAX form 1.0): decimal numbers, one a line, padded to whole blocks. Gives the regions
/// and how many bytes the map took.
pub(super) fn map_in_data(
    path: &[u8],
    reader: &mut impl Read,
    stored: u64,
) -> Result<(Vec<Region>, u64), TarError> {
    let error = || TarError::Sparse { path: shown(path) };
    let mut block = [0; BLOCK];
    let (mut used, mut at) = (0, BLOCK);
    let mut next = || -> Result<(u64, u64), TarError> {
        let mut value = 0_u64;
        for digits in 0.. {
            if at == BLOCK {
                if used + BLOCK as u64 > stored {
                    return Err(error());
                }
                reader.read_exact(&mut block).map_err(|_| TarError::Truncated {
                    inside: "a sparse map",
                })?;
                used += BLOCK as u64;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    value = value
                        .checked_mul(10)
                        .and_then(|v| v.checked_add(digit))
                        .ok_or_else(error)?;
                }
                b'\n' if digits > 0 => break,
                _ => return Err(error()),
            }
        }
        Ok((value, used))
    };
    let (count, mut read) = next()?;
    if count > limits::SPARSE_REGIONS as u64 {
        return Err(error());
    }
    let mut regions = Vec::new();
    for _ in 0..count {
        let (offset, _) = next()?;
        let (length, now) = next()?;
        read = now;
        regions.push(Region { offset, length });
    }
    Ok((regions, read))
}
