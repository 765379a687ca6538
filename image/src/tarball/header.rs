//! Fields of a tar header block.

use super::BLOCK;

/// Where the checksum is in a header.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// A numeric field: octal text or, with the top bit set, a big-endian two's complement number. A blank field is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return base256(field);
    }
    let text = field
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default()
        .trim_ascii();
    text.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn base256(field: &[u8]) -> Option<i64> {
    // The top bit only marks the form; the next one is the sign.
    let negative = field[0] & 0x40 != 0;
    let first = if negative {
        field[0] | 0x80
    } else {
        field[0] & 0x7f
    };
    let start: i64 = if negative { -1 } else { 0 };
    std::iter::once(first)
        .chain(field[1..].iter().copied())
        .try_fold(start, |value, byte| {
            value.checked_mul(256)?.checked_add(i64::from(byte))
        })
}

/// Whether the block's checksum is right. Both sums that have ever been in use are taken: of unsigned and signed bytes.
pub(super) fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let Some(stated) = number(&block[CHECKSUM]) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, &byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    stated == unsigned || stated == signed
}

/// Whether the bytes begin like a tar archive with at least one entry.
pub(crate) fn is_tar_header(bytes: &[u8]) -> bool {
    bytes
        .first_chunk::<BLOCK>()
        .is_some_and(|block| block.iter().any(|&byte| byte != 0) && checksum_holds(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"12345678", None),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\x01\x00", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, value) in cases {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn text_is_no_tar() {
        assert!(!is_tar_header(&[0; 512]));
        assert!(!is_tar_header(&[b'a'; 512]));
        assert!(!is_tar_header(b"short"));
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_cksum();
        assert!(is_tar_header(header.as_bytes()));
    }
}
