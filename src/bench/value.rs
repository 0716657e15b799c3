//! The values that the generator writes, and how it recognises those that it reads. Knows neither servers nor what was
//! acknowledged.
//!
//! ```text
//! key     `key:` | index, 12 decimal digits                       16 bytes
//! value   key | ` ` | version, 16 hexadecimal digits | ` ` | filler
//! ```
//!
//! The filler follows from index, version and length: a value that is cut, mixed from two or of another key shows. A
//! size too small for all of this takes the beginning of it.

/// Bytes of a key.
pub(super) const KEY_LEN: usize = 16;
/// Bytes of a value before its filler.
pub(super) const HEAD_LEN: usize = KEY_LEN + 1 + VERSION_LEN + 1;

const VERSION_LEN: usize = 16;
const KEY_PREFIX: &[u8; KEY_LEN - DIGITS] = b"key:";
const DIGITS: usize = 12;
/// Bytes of text that all filler is taken from; prime, so that no record size falls into step with it.
const TEXT_LEN: usize = 8191;

/// Why a value cannot have been written for the key that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    /// The value of another key, or nothing of this generator's.
    #[error("does not begin with its key")]
    Key,
    /// No version where one must be.
    #[error("names no version")]
    Version,
    /// Not the filler that belongs to its key, version and length.
    #[error("is cut, damaged or mixed from two")]
    Filler,
}

/// Writes and recognises values.
#[derive(Debug)]
pub(super) struct Values {
    text: Box<[u8]>,
}

impl Default for Values {
    fn default() -> Self {
        let text = (0..TEXT_LEN as u64).map(|at| printable(mix(at))).collect();
        Self { text }
    }
}

impl Values {
    /// Appends the value of `len` bytes for a key and a version.
    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>, index: u64, version: u64, len: usize) {
        let mut head = [b' '; HEAD_LEN];
        let (key, rest) = head.split_at_mut(KEY_LEN);
        key.copy_from_slice(&self::key(index));
        write_hex(rest.get_mut(1..=VERSION_LEN).unwrap_or_default(), version);
        out.extend_from_slice(head.get(..len).unwrap_or(&head));
        for piece in self.filler(index, version, len) {
            out.extend_from_slice(piece);
        }
    }

    /// Checks a value read from a key; the result is the version it names, if it is long enough for one.
    #[inline]
    pub(super) fn check(&self, index: u64, value: &[u8]) -> Result<Option<u64>, Wrong> {
        let key = self::key(index);
        let Some((head, mut rest)) = value.split_at_checked(HEAD_LEN) else {
            let named = value.get(..KEY_LEN).unwrap_or(value);
            return if key.starts_with(named) { Ok(None) } else { Err(Wrong::Key) };
        };
        let version = head.strip_prefix(&key).ok_or(Wrong::Key)?;
        let version = version.get(1..=VERSION_LEN).and_then(read_hex).ok_or(Wrong::Version)?;
        for piece in self.filler(index, version, value.len()) {
            rest = rest.strip_prefix(piece).ok_or(Wrong::Filler)?;
        }
        Ok(Some(version))
    }

    /// The filler of a value in pieces of [`Values::text`], beginning anywhere in it.
    #[inline]
    fn filler(&self, index: u64, version: u64, len: usize) -> impl Iterator<Item = &[u8]> {
        let start = mix(index ^ version.rotate_left(32) ^ (len as u64).rotate_left(48)) % TEXT_LEN as u64;
        let mut from = usize::try_from(start).unwrap_or_default();
        let mut left = len.saturating_sub(HEAD_LEN);
        std::iter::from_fn(move || {
            let piece = self.text.get(std::mem::take(&mut from)..)?;
            let piece = piece.get(..left).unwrap_or(piece);
            left -= piece.len();
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// The key of an index below a million million.
#[inline]
pub(super) fn key(index: u64) -> [u8; KEY_LEN] {
    let mut key = [b'0'; KEY_LEN];
    let (prefix, digits) = key.split_at_mut(KEY_PREFIX.len());
    prefix.copy_from_slice(KEY_PREFIX);
    let mut left = index;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    key
}

#[inline]
fn write_hex(out: &mut [u8], number: u64) {
    let mut left = number;
    for digit in out.iter_mut().rev() {
        let nibble = (left & 15) as u8;
        *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        left >>= 4;
    }
}

#[inline]
fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(nibble))
    })
}

/// Spreads the bits of a number over all of it: multiplication and shifts, each of which can be undone.
#[inline]
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    number ^ number >> 32
}

fn printable(number: u64) -> u8 {
    match (number % 64) as u8 {
        letter @ 0..26 => b'a' + letter,
        letter @ 26..52 => b'A' + letter - 26,
        digit @ 52..62 => b'0' + digit - 52,
        62 => b'-',
        _ => b'_',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 11] = [0, 1, 15, 16, 17, 33, 34, 35, 100, 8192 + 34, 1 << 20];

    fn value(index: u64, version: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        Values::default().write(&mut out, index, version, len);
        out
    }

    #[test]
    fn a_value_names_its_key_and_version() {
        let text = String::from_utf8(value(123, 0xab, 60)).unwrap();
        assert!(text.starts_with("key:000000000123 00000000000000ab "), "{text}");
        assert_eq!(text.len(), 60);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{text}");
    }

    #[test]
    fn every_size_is_kept_and_recognised() {
        let values = Values::default();
        for len in SIZES {
            let value = value(7, 9, len);
            assert_eq!(value.len(), len);
            let version = (len >= HEAD_LEN).then_some(9);
            assert_eq!(values.check(7, &value), Ok(version), "{len}");
        }
    }

    #[test]
    fn the_value_of_another_key_is_wrong() {
        let values = Values::default();
        for len in SIZES.into_iter().filter(|len| *len >= KEY_LEN) {
            assert_eq!(values.check(8, &value(7, 9, len)), Err(Wrong::Key), "{len}");
        }
        assert_eq!(values.check(8, b"something else"), Err(Wrong::Key));
    }

    #[test]
    fn every_single_changed_byte_shows() {
        let values = Values::default();
        let good = value(7, 9, 200);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // The two blanks carry nothing.
            assert!(values.check(7, &bad).is_err() || good[at] == b' ', "{at}");
        }
    }

    #[test]
    fn a_cut_an_extended_and_a_mixed_value_are_wrong() {
        let values = Values::default();
        let good = value(7, 9, 200);
        assert_eq!(values.check(7, &good[..190]), Err(Wrong::Filler));
        assert_eq!(values.check(7, &[good.as_slice(), b"x"].concat()), Err(Wrong::Filler));
        let mixed = [&good[..100], &value(7, 10, 200)[100..]].concat();
        assert_eq!(values.check(7, &mixed), Err(Wrong::Filler));
        let mut unversioned = good;
        unversioned[20] = b'z';
        assert_eq!(values.check(7, &unversioned), Err(Wrong::Version));
    }

    #[test]
    fn keys_are_distinct_and_of_one_length() {
        assert_eq!(&key(0), b"key:000000000000");
        assert_eq!(&key(999_999_999_999), b"key:999999999999");
    }
}
