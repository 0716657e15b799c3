//! The header in front of an application's bytes in a record's data, and how a record says which header it has.
//! Knows neither items nor protocols.
//!
//! ```text
//! expiry u32            with -E: unix seconds, big-endian; 0 never
//! flags u16 or u32      with -F: big-endian; u32 with --flag-bytes 4
//! data                  the application's bytes
//! ```
//!
//! Gateways of 2010 write meta 0, and read every record by their own flags. A layout that they do not have is named
//! by the record's meta, so that each of our gateways and tools reads the record right, whatever its flags are:
//!
//! ```text
//! meta u16      0x4b00 | 8 if awaited | bytes of flags (0, 2 or 4) | 1 with an expiry
//! ```
//!
//! A record is awaited that is empty because a client has been asked to store it; this, too, only our gateways know.

use std::fmt;

use crate::wire::record::META_BARE;

/// Bytes of an expiry.
const EXPIRY_LEN: usize = 4;
/// High byte of a meta that names a layout: that of one without a header.
const NAMED: u16 = META_BARE;
/// Its bit for an expiry.
const NAMED_EXPIRY: u16 = 1;
/// Its bit for what is awaited.
const AWAITED: u16 = 8;

/// How many bytes of flags stand in front of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FlagBytes {
    /// None: without `-F`.
    Zero = 0,
    /// As in 2010: up to 65,535.
    Two = 2,
    /// As in memcached.
    Four = 4,
}

/// The header of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// `-E`: whether an expiry stands in it.
    pub expiry: bool,
    /// `-F` and `--flag-bytes`: the length of the flags.
    pub flags: FlagBytes,
}

impl Layout {
    /// No header: all of the data is the application's.
    pub const BARE: Self = Self { expiry: false, flags: FlagBytes::Zero };

    /// Bytes of the header.
    pub fn length(self) -> usize {
        self.expiry_len() + usize::from(self.flags as u16)
    }

    fn expiry_len(self) -> usize {
        if self.expiry { EXPIRY_LEN } else { 0 }
    }

    /// The meta of a record whose gateways know this layout by their flags: 0 if those of 2010 have it.
    pub fn meta(self) -> u16 {
        if self.flags == FlagBytes::Four { self.named() } else { 0 }
    }

    /// The meta that names this layout, whatever the flags of gateways are.
    pub fn named(self) -> u16 {
        NAMED | (self.flags as u16) | u16::from(self.expiry)
    }

    /// The meta of an empty record that a client has been asked to store.
    pub fn awaited(self) -> u16 {
        self.named() | AWAITED
    }

    /// Whether a record with this meta is awaited.
    pub fn is_awaited(meta: u16) -> bool {
        meta & AWAITED != 0 && Self::of(meta).is_some()
    }

    /// The layout that a record's meta names; `None`: it follows from the flags of the gateways.
    pub fn of(meta: u16) -> Option<Self> {
        let flags = match meta & !(NAMED_EXPIRY | AWAITED) ^ NAMED {
            0 => FlagBytes::Zero,
            2 => FlagBytes::Two,
            4 => FlagBytes::Four,
            _ => return None,
        };
        Some(Self { expiry: meta & NAMED_EXPIRY != 0, flags })
    }

    /// Appends the header with this expiry and these flags; what has no room in it is left out, see
    /// [`Self::takes_flags`].
    pub fn write(self, out: &mut Vec<u8>, expires: u32, flags: u32) {
        if self.expiry {
            out.extend_from_slice(&expires.to_be_bytes());
        }
        match self.flags {
            FlagBytes::Zero => {}
            FlagBytes::Two => out.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_be_bytes()),
            FlagBytes::Four => out.extend_from_slice(&flags.to_be_bytes()),
        }
    }

    /// Whether there is room for these flags.
    pub fn takes_flags(self, flags: u32) -> bool {
        match self.flags {
            FlagBytes::Zero => flags == 0,
            FlagBytes::Two => u16::try_from(flags).is_ok(),
            FlagBytes::Four => true,
        }
    }

    /// Expiry, flags and the application's bytes of a record's data; `None` if it is too short to have this header.
    pub fn split(self, stored: &[u8]) -> Option<(u32, u32, &[u8])> {
        let (header, data) = stored.split_at_checked(self.length())?;
        let (expires, flags) = header.split_at_checked(self.expiry_len())?;
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        Some((number(expires), number(flags), data))
    }
}

/// The flags of a gateway that has it.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.expiry, self.flags) {
            (false, FlagBytes::Zero) => "neither -F nor -E",
            (true, FlagBytes::Zero) => "-E",
            (false, FlagBytes::Two) => "-F",
            (true, FlagBytes::Two) => "-F -E",
            (false, FlagBytes::Four) => "-F --flag-bytes 4",
            (true, FlagBytes::Four) => "-F -E --flag-bytes 4",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Layout; 6] = [
        Layout::BARE,
        Layout { expiry: true, flags: FlagBytes::Zero },
        Layout { expiry: false, flags: FlagBytes::Two },
        Layout { expiry: true, flags: FlagBytes::Two },
        Layout { expiry: false, flags: FlagBytes::Four },
        Layout { expiry: true, flags: FlagBytes::Four },
    ];

    #[test]
    fn a_header_has_what_it_is_to_keep() {
        let expected: [&[u8]; 6] = [
            b"data",
            b"\x01\x02\x03\x04data",
            b"\x05\x06data",
            b"\x01\x02\x03\x04\x05\x06data",
            b"\0\0\x05\x06data",
            b"\x01\x02\x03\x04\0\0\x05\x06data",
        ];
        for (layout, stored) in ALL.into_iter().zip(expected) {
            let mut out = Vec::new();
            layout.write(&mut out, 0x0102_0304, 0x0506);
            assert_eq!(out.len(), layout.length());
            out.extend_from_slice(b"data");
            assert_eq!(out, stored, "{layout:?}");
            let expires = if layout.expiry { 0x0102_0304 } else { 0 };
            let flags = if layout.flags == FlagBytes::Zero { 0 } else { 0x0506 };
            assert_eq!(layout.split(&out), Some((expires, flags, &b"data"[..])), "{layout:?}");
            assert_eq!(layout.split(&out[..layout.length()]), Some((expires, flags, &b""[..])), "{layout:?}");
            for length in 0..layout.length() {
                assert_eq!(layout.split(&out[..length]), None, "{layout:?}");
            }
        }
        let mut out = Vec::new();
        ALL[4].write(&mut out, 0, u32::MAX);
        assert_eq!(ALL[4].split(&out), Some((0, u32::MAX, &b""[..])));
    }

    #[test]
    fn meta_names_what_gateways_of_2010_do_not_have() {
        let own = ALL.map(Layout::meta);
        assert_eq!(own, [0, 0, 0, 0, 0x4b04, 0x4b05]);
        for layout in ALL {
            assert_eq!(Layout::of(layout.named()), Some(layout));
            assert_eq!(Layout::of(layout.awaited()), Some(layout));
            assert!(Layout::is_awaited(layout.awaited()) && !Layout::is_awaited(layout.named()));
        }
        let known = [ALL.map(Layout::named), ALL.map(Layout::awaited)].concat();
        for meta in (0..=u16::MAX).filter(|meta| !known.contains(meta)) {
            assert_eq!(Layout::of(meta), None, "{meta:#x}");
            assert!(!Layout::is_awaited(meta));
        }
    }

    #[test]
    fn there_is_room_for_as_many_flags_as_bytes() {
        let room = |flags| ALL.map(|layout| layout.takes_flags(flags));
        assert_eq!(room(0), [true; 6]);
        assert_eq!(room(1), [false, false, true, true, true, true]);
        assert_eq!(room(65_536), [false, false, false, false, true, true]);
        assert!(ALL[4].takes_flags(u32::MAX));
    }
}
