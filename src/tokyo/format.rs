//! The fixed values of the format, and how its numbers are laid out in bytes.

/// First bytes of every Tokyo Cabinet file.
pub(crate) const MAGIC: &[u8] = b"ToKyO CaBiNeT";
/// Bytes of the header.
pub(super) const HEADER_LEN: usize = 256;
/// Option in the header: places of records have 64 bits.
pub(super) const OPTION_LARGE: u8 = 1;
/// First byte of a record.
pub(super) const RECORD: u8 = 0xc8;
/// First byte of a free block.
pub(super) const FREE: u8 = 0xb0;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) big_endian: bool,
    /// Places of children have eight bytes instead of four.
    pub(super) large: bool,
}

impl Layout {
    /// The number in up to eight bytes.
    pub(super) fn number(self, bytes: &[u8]) -> u64 {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    /// A number in `len` bytes, eight at most.
    pub(super) fn bytes(self, number: u64, len: usize) -> Vec<u8> {
        let bytes = number.to_le_bytes().into_iter().take(len);
        if self.big_endian { bytes.rev().collect() } else { bytes.collect() }
    }
}
