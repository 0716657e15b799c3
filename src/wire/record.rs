//! Records as they travel and as they are stored: raw keys and raw values.
//!
//! ```text
//! raw key     hash u64 | key                        hash big-endian; the key may be empty
//! raw value   clocktime u64 | meta u16 | data       big-endian; meta is kept as it came
//! tombstone   clocktime u64                         exactly 8 bytes: when the key was deleted
//! ```

use super::Error;
use crate::clock::ClockTime;

/// Bytes of a raw key before the key itself.
pub(crate) const KEY_HEADER: usize = 8;
/// Bytes of a live raw value before its data.
pub(crate) const VALUE_HEADER: usize = 10;
/// Bytes of a value's meta, which stands between its clocktime and its data.
pub(crate) const META_LEN: usize = 2;
/// Bytes of a tombstone.
pub(crate) const TOMBSTONE_LEN: usize = 8;
/// The meta of a value in front of which no gateway has put anything.
pub(crate) const META_BARE: u16 = 0x4b00;

/// A raw key: at least eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKey<'a>(&'a [u8]);

impl<'a> RecordKey<'a> {
    /// Checks the length.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() < KEY_HEADER { Err(Error::Malformed) } else { Ok(Self(bytes)) }
    }

    /// The whole raw key.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The place in the hash space, as the client computed it.
    #[inline]
    pub fn hash(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The application's key, behind the hash.
    pub fn key(&self) -> &'a [u8] {
        self.0.get(KEY_HEADER..).unwrap_or_default()
    }
}

/// A raw key for `key`: its hash in front.
pub fn raw_key(hash: u64, key: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(KEY_HEADER + key.len());
    raw.extend_from_slice(&hash.to_be_bytes());
    raw.extend_from_slice(key);
    raw
}

/// A raw value or a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordValue<'a>(&'a [u8]);

impl<'a> RecordValue<'a> {
    /// Accepts a live value or a tombstone.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() >= VALUE_HEADER || bytes.len() == TOMBSTONE_LEN {
            Ok(Self(bytes))
        } else {
            Err(Error::Malformed)
        }
    }

    /// Accepts a live value only: what a client may set.
    #[inline]
    pub fn live(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() >= VALUE_HEADER { Ok(Self(bytes)) } else { Err(Error::Malformed) }
    }

    /// The whole raw value.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// When it was written or deleted.
    #[inline]
    pub fn clocktime(&self) -> ClockTime {
        ClockTime(self.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
    }

    /// Whether this is the mark of a deletion.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.0.len() == TOMBSTONE_LEN
    }

    /// Meta and data, behind the clocktime; empty for a tombstone.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.0.get(TOMBSTONE_LEN..).unwrap_or_default()
    }

    /// The two bytes in front of the data; 0 for a tombstone.
    pub fn meta(&self) -> u16 {
        self.body().first_chunk().map_or(0, |meta| u16::from_be_bytes(*meta))
    }

    /// The application's bytes.
    pub fn data(&self) -> &'a [u8] {
        self.0.get(VALUE_HEADER..).unwrap_or_default()
    }
}

/// The tombstone of a deletion at `clocktime`.
pub fn tombstone(clocktime: ClockTime) -> [u8; TOMBSTONE_LEN] {
    clocktime.0.to_be_bytes()
}

/// A live raw value with the given meta.
pub fn raw_value(clocktime: ClockTime, meta: u16, data: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(VALUE_HEADER + data.len());
    raw.extend_from_slice(&clocktime.0.to_be_bytes());
    raw.extend_from_slice(&meta.to_be_bytes());
    raw.extend_from_slice(data);
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_decide_what_a_value_is() {
        for (len, any, live) in
            [(0, false, false), (7, false, false), (8, true, false), (9, false, false), (10, true, true)]
        {
            let bytes = vec![0; len];
            assert_eq!(RecordValue::new(&bytes).is_ok(), any, "{len}");
            assert_eq!(RecordValue::live(&bytes).is_ok(), live, "{len}");
        }
        assert!(RecordKey::new(&[0; 7]).is_err());
        assert!(RecordKey::new(&[0; 8]).is_ok());
    }

    #[test]
    fn fields_lie_where_they_should() {
        let raw = raw_value(ClockTime(0x0102_0304_0506_0708), 0x090a, b"data");
        let value = RecordValue::new(&raw).unwrap();
        assert_eq!(value.clocktime(), ClockTime(0x0102_0304_0506_0708));
        assert_eq!(value.body(), b"\x09\x0adata");
        assert_eq!((value.meta(), RecordValue::new(&[9; 8]).unwrap().meta()), (0x090a, 0));
        assert_eq!(value.data(), b"data");
        let raw = raw_key(7, b"k");
        let key = RecordKey::new(&raw).unwrap();
        assert_eq!((key.hash(), key.key()), (7, &b"k"[..]));
    }
}
