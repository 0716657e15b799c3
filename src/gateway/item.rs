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
        let header = if rules.expiry { 4 } else { 0 } + if rules.flags { 2 } else { 0 };
        let Some((header, data)) = stored.split_at_checked(header) else { return whole };
        let (expires, flags) = if rules.expiry { header.split_at_checked(4).unwrap_or_default() } else { (&[][..], header) };
        let expires = expires.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let flags = flags.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        Self { data, flags, expires, ..whole }
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
    if length > rules.value_limit {
        return Err(Failure::TooLarge);
    }
    let mut out = Vec::with_capacity(length.saturating_add(6));
    if rules.expiry {
        out.extend_from_slice(&expires.to_be_bytes());
    } else if expires != 0 {
        return Err(Failure::ExpiryNotKept);
    }
    if rules.flags {
        out.extend_from_slice(&u16::try_from(flags).map_err(|_| Failure::FlagsTooLarge)?.to_be_bytes());
    } else if flags != 0 {
        return Err(Failure::FlagsNotKept);
    }
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    Ok(out)
}
