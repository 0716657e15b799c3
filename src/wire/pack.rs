//! Writing the dialect: shortest integers, raws without `str8` or `bin`, arrays.
//!
//! Original peers drop a connection at any byte that `MessagePack` gained in 2013, so byte strings are written by
//! hand on the markers that existed before.

use rmp::Marker;

/// Appends an unsigned integer in its shortest form.
#[inline]
pub fn uint(out: &mut Vec<u8>, value: u64) {
    if let Ok(small) = u8::try_from(value) {
        if small >= 0x80 {
            out.push(Marker::U8.to_u8());
        }
        out.push(small);
    } else if let Ok(short) = u16::try_from(value) {
        out.push(Marker::U16.to_u8());
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        out.push(Marker::U32.to_u8());
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(Marker::U64.to_u8());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a byte string as fixraw, raw16 or raw32.
///
/// A string of more than `u32::MAX` bytes is cut to that length; callers are bound far below it by the message limit.
#[inline]
pub fn raw(out: &mut Vec<u8>, bytes: &[u8]) {
    raw_header(out, bytes.len());
    out.extend_from_slice(bytes.get(..u32::MAX as usize).unwrap_or(bytes));
}

/// Appends only the header of a byte string of `len` bytes; the caller appends the bytes.
#[inline]
pub(crate) fn raw_header(out: &mut Vec<u8>, len: usize) {
    sized(out, len, 31, 0xa0, Marker::Str16, Marker::Str32);
}

/// Appends the header of an array of `len` elements.
#[inline]
pub fn array(out: &mut Vec<u8>, len: usize) {
    sized(out, len, 15, 0x90, Marker::Array16, Marker::Array32);
}

/// Appends the header of a map of `len` pairs.
#[inline]
pub fn map(out: &mut Vec<u8>, len: usize) {
    sized(out, len, 15, 0x80, Marker::Map16, Marker::Map32);
}

/// Appends nil.
#[inline]
pub fn nil(out: &mut Vec<u8>) {
    out.push(Marker::Null.to_u8());
}

/// Appends true or false.
#[inline]
pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { Marker::True } else { Marker::False }.to_u8());
}

/// A length: in the marker's low bits up to `fix_limit`, else 16 or 32 bits behind a marker of their own.
#[inline]
fn sized(out: &mut Vec<u8>, len: usize, fix_limit: u8, fix: u8, short: Marker, long: Marker) {
    match u8::try_from(len) {
        Ok(small) if small <= fix_limit => out.push(fix | small),
        _ => {
            if let Ok(len) = u16::try_from(len) {
                out.push(short.to_u8());
                out.extend_from_slice(&len.to_be_bytes());
            } else {
                out.push(long.to_u8());
                out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn integers_take_the_shortest_form() {
        for (value, bytes) in [
            (0, "00"),
            (127, "7f"),
            (128, "cc80"),
            (255, "ccff"),
            (256, "cd0100"),
            (65_535, "cdffff"),
            (65_536, "ce00010000"),
            (u64::from(u32::MAX), "ceffffffff"),
            (1 << 32, "cf0000000100000000"),
        ] {
            assert_eq!(hex(&packed(|out| uint(out, value))), bytes, "{value}");
        }
    }

    #[test]
    fn raws_never_use_a_marker_of_the_new_dialect() {
        for (len, header) in [
            (0, "a0"),
            (31, "bf"),
            (32, "da0020"),
            (255, "da00ff"),
            (256, "da0100"),
            (65_535, "daffff"),
            (65_536, "db00010000"),
        ] {
            let out = packed(|out| raw(out, &vec![7; len]));
            assert_eq!(hex(&out[..out.len() - len]), header, "{len}");
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}
