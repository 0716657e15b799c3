//! How an item lies inside a record's data (protocol, section 10), and when it has expired. Knows no protocol.
//!
//! ```text
//! expiry u32    with -E: unix seconds, big-endian; 0 never
//! flags u16     with -F: big-endian
//! data          the application's bytes
//! ```

use crate::clock::ClockTime;

use super::outcome::Failure;

/// An exptime up to this many seconds is relative to now, as in memcached.
const RELATIVE_LIMIT: i64 = 60 * 60 * 24 * 30;

const EXPIRY_LEN: usize = 4;
const FLAGS_LEN: usize = 2;

/// What this gateway keeps with a value. All gateways of a cluster must agree on the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `-E`: four bytes of expiry.
    pub expiry: bool,
    /// `-F`: two bytes of flags.
    pub flags: bool,
    /// Longest value of an application, in bytes.
    pub value_limit: usize,
}

/// An item as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// The record's clocktime: its CAS unique.
    pub clocktime: ClockTime,
    /// The application's flags.
    pub flags: u16,
    /// When it expires, in unix seconds; 0 never.
    pub expires: u32,
    /// The application's bytes.
    pub data: &'a [u8],
}

impl<'a> Item<'a> {
    /// Takes a record's data apart. What is too short for the layout has been written without it, and is all data.
    pub fn decode(clocktime: ClockTime, stored: &'a [u8], rules: &Rules) -> Self {
        let whole = Self { clocktime, flags: 0, expires: 0, data: stored };
        let before_flags = if rules.expiry { EXPIRY_LEN } else { 0 };
        let header = before_flags + if rules.flags { FLAGS_LEN } else { 0 };
        let Some((header, data)) = stored.split_at_checked(header) else { return whole };
        let (expires, flags) = header.split_at_checked(before_flags).unwrap_or_default();
        let expires = expires.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let flags = flags.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        Self { flags, expires, data, ..whole }
    }

    /// Whether it must not be seen any more.
    pub fn is_expired(&self, now: u32) -> bool {
        self.expires != 0 && self.expires <= now
    }

    /// Seconds until it expires; `None` if never.
    pub fn ttl(&self, now: u32) -> Option<u32> {
        (self.expires != 0).then(|| self.expires.saturating_sub(now))
    }
}

/// When an item with the exptime of a request expires, in unix seconds; 0 never.
pub fn expires(exptime: i64, now: u32) -> u32 {
    match exptime {
        0 => 0,
        // Past, but not 0, which means never.
        ..0 => 1,
        1..=RELATIVE_LIMIT => now.saturating_add(u32::try_from(exptime).unwrap_or(u32::MAX)),
        _ => u32::try_from(exptime).unwrap_or(u32::MAX),
    }
}

/// A record's data for these flags, this expiry (unix seconds) and the application's bytes, given in parts.
///
/// What the layout has no room for is refused: dropping it silently would change what clients read back.
pub fn encode(flags: u32, expires: u32, parts: [&[u8]; 2], rules: &Rules) -> Result<Vec<u8>, Failure> {
    let [first, second] = parts;
    let length = first.len().saturating_add(second.len());
    let kept_flags = u16::try_from(flags);
    match kept_flags {
        _ if length > rules.value_limit => return Err(Failure::TooLarge),
        _ if expires != 0 && !rules.expiry => return Err(Failure::ExpiryNotKept),
        _ if flags != 0 && !rules.flags => return Err(Failure::FlagsNotKept),
        Err(_) => return Err(Failure::FlagsTooLarge),
        Ok(_) => {}
    }
    let mut out = Vec::with_capacity(length.saturating_add(EXPIRY_LEN + FLAGS_LEN));
    if rules.expiry {
        out.extend_from_slice(&expires.to_be_bytes());
    }
    if rules.flags {
        out.extend_from_slice(&kept_flags.unwrap_or_default().to_be_bytes());
    }
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Rules = Rules { expiry: true, flags: true, value_limit: 10 };
    const FLAGS: Rules = Rules { expiry: false, ..BOTH };
    const EXPIRY: Rules = Rules { flags: false, ..BOTH };
    const NEITHER: Rules = Rules { expiry: false, flags: false, ..BOTH };

    #[test]
    fn a_layout_has_what_it_is_told_to_keep() {
        for (rules, expires, flags, stored) in [
            (BOTH, 0x0102_0304, 0x0506, &b"\x01\x02\x03\x04\x05\x06data"[..]),
            (FLAGS, 0, 0x0506, b"\x05\x06data"),
            (EXPIRY, 0x0102_0304, 0, b"\x01\x02\x03\x04data"),
            (NEITHER, 0, 0, b"data"),
        ] {
            assert_eq!(encode(flags.into(), expires, [b"da", b"ta"], &rules).unwrap(), stored);
            let expected = Item { clocktime: ClockTime(7), flags, expires, data: b"data" };
            assert_eq!(Item::decode(ClockTime(7), stored, &rules), expected);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (rules, expires, flags, failure) in [
            (NEITHER, 0, 1, Failure::FlagsNotKept),
            (NEITHER, 1, 0, Failure::ExpiryNotKept),
            (EXPIRY, 1, 1, Failure::FlagsNotKept),
            (EXPIRY, 0, 65_536, Failure::FlagsNotKept),
            (FLAGS, 1, 1, Failure::ExpiryNotKept),
            (BOTH, 0, 65_536, Failure::FlagsTooLarge),
        ] {
            assert_eq!(encode(flags, expires, [b"", b""], &rules), Err(failure));
        }
        assert!(encode(65_535, 0, [b"12345", b"67890"], &BOTH).is_ok());
        assert_eq!(encode(0, 0, [b"12345", b"678901"], &BOTH), Err(Failure::TooLarge));
    }

    #[test]
    fn what_is_too_short_for_the_layout_is_all_data() {
        for length in 0..6 {
            let stored = vec![b'x'; length];
            let item = Item::decode(ClockTime(1), &stored, &BOTH);
            assert_eq!((item.data, item.flags, item.expires), (&stored[..], 0, 0));
        }
        assert_eq!(Item::decode(ClockTime(1), &[0; 6], &BOTH).data, b"");
    }

    #[test]
    fn an_exptime_is_relative_up_to_thirty_days() {
        let now = 1_700_000_000;
        for (exptime, expected) in [
            (0, 0),
            (-1, 1),
            (i64::MIN, 1),
            (1, now + 1),
            (2_592_000, now + 2_592_000),
            (2_592_001, 2_592_001),
            (4_000_000_000, 4_000_000_000),
            (i64::MAX, u32::MAX),
        ] {
            assert_eq!(expires(exptime, now), expected, "{exptime}");
        }
    }

    #[test]
    fn an_item_is_gone_in_the_second_it_expires() {
        let item = |expires| Item { clocktime: ClockTime(1), flags: 0, expires, data: b"" };
        assert!(!item(0).is_expired(u32::MAX));
        assert!(!item(101).is_expired(100));
        assert!(item(100).is_expired(100));
        assert_eq!((item(0).ttl(5), item(9).ttl(5), item(3).ttl(5)), (None, Some(4), Some(0)));
    }
}
