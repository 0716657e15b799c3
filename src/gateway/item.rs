//! An item as clients see it, and when it has expired. [`super::layout`] says how it is stored in a record.
//! Knows no protocol.

use crate::clock::ClockTime;

use super::failure::Failure;
use super::layout::{FlagBytes, Layout};

/// An exptime up to this many seconds is relative to now, as in memcached.
const RELATIVE_LIMIT: i64 = 60 * 60 * 24 * 30;

/// The rules by which this gateway keeps values. All gateways of a cluster must agree on the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The header of the values that it writes, and of those that do not name theirs.
    pub layout: Layout,
    /// Longest value of an application, in bytes.
    pub value_limit: usize,
}

impl Rules {
    /// The layout of a record that does not name its own: gateways that keep four bytes of flags name theirs, so that
    /// it has been written by one that keeps two.
    fn unnamed(&self) -> Layout {
        match self.layout {
            Layout { expiry, flags: FlagBytes::Four } => Layout { expiry, flags: FlagBytes::Two },
            layout => layout,
        }
    }

    /// Whether a record with this meta has been written by a gateway that keeps flags in another number of bytes. One
    /// without a header is a tool's: any gateway takes it as it is.
    pub fn disagrees(&self, meta: u16) -> bool {
        match Layout::of(meta) {
            None => meta != self.layout.meta(),
            Some(layout) => layout != self.layout && layout != Layout::BARE,
        }
    }
}

/// An item as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// The record's clocktime: its CAS unique.
    pub clocktime: ClockTime,
    /// The application's flags.
    pub flags: u32,
    /// When it expires, in unix seconds; 0 never.
    pub expires: u32,
    /// The application's bytes.
    pub data: &'a [u8],
    /// It is empty because a client has been asked to store it, and has not done so yet.
    pub awaited: bool,
}

impl<'a> Item<'a> {
    /// Takes a record's data apart, by the layout that its meta names, else by that of the rules. What is too short
    /// for the layout has been written without it, and is all data.
    pub fn decode(clocktime: ClockTime, meta: u16, stored: &'a [u8], rules: &Rules) -> Self {
        let layout = Layout::of(meta).unwrap_or(rules.unnamed());
        let (expires, flags, data) = layout.split(stored).unwrap_or((0, 0, stored));
        Self { clocktime, flags, expires, data, awaited: Layout::is_awaited(meta) }
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

/// When an item with the exptime of a request expires, in unix seconds; 0 never. The text protocol gives 32 bits with
/// a sign, the binary one without.
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
/// Flags or an expiry that do not fit the layout are refused: dropping it silently would change what clients read back.
pub fn encode(flags: u32, expires: u32, parts: [&[u8]; 2], rules: &Rules) -> Result<Vec<u8>, Failure> {
    let [first, second] = parts;
    let (layout, length) = (rules.layout, first.len().saturating_add(second.len()));
    match layout {
        _ if length > rules.value_limit => return Err(Failure::TooLarge),
        Layout { expiry: false, .. } if expires != 0 => return Err(Failure::ExpiryNotKept),
        _ if layout.takes_flags(flags) => {}
        Layout { flags: FlagBytes::Zero, .. } => return Err(Failure::FlagsNotKept),
        _ => return Err(Failure::FlagsTooLarge),
    }
    let mut out = Vec::with_capacity(length.saturating_add(layout.length()));
    layout.write(&mut out, expires, flags);
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Rules = with(true, FlagBytes::Two);
    const FLAGS: Rules = with(false, FlagBytes::Two);
    const EXPIRY: Rules = with(true, FlagBytes::Zero);
    const NEITHER: Rules = with(false, FlagBytes::Zero);
    const FOUR: Rules = with(true, FlagBytes::Four);

    const fn with(expiry: bool, flags: FlagBytes) -> Rules {
        Rules { layout: Layout { expiry, flags }, value_limit: 10 }
    }

    #[test]
    fn what_is_written_is_read() {
        for (rules, expires, flags) in [
            (BOTH, 0x0102_0304, 0x0506),
            (FLAGS, 0, 0x0506),
            (EXPIRY, 0x0102_0304, 0),
            (NEITHER, 0, 0),
            (FOUR, 0x0102_0304, 0x0506_0708),
        ] {
            let stored = encode(flags, expires, [b"da", b"ta"], &rules).unwrap();
            let expected = Item { clocktime: ClockTime(7), flags, expires, data: b"data", awaited: false };
            assert_eq!(Item::decode(ClockTime(7), rules.layout.meta(), &stored, &rules), expected);
        }
    }

    #[test]
    fn gateways_that_disagree_read_what_the_others_have_written() {
        let item = |writer: Rules, reader: Rules, flags| {
            let stored = encode(flags, 5, [b"data", b""], &writer).unwrap();
            let item = Item::decode(ClockTime(7), writer.layout.meta(), &stored, &reader);
            (item.flags, item.expires, item.data.to_vec(), reader.disagrees(writer.layout.meta()))
        };
        assert_eq!(item(FOUR, BOTH, 70_000), (70_000, 5, b"data".to_vec(), true));
        assert_eq!(item(FOUR, NEITHER, 70_000), (70_000, 5, b"data".to_vec(), true));
        assert_eq!(item(BOTH, FOUR, 7), (7, 5, b"data".to_vec(), true));
        assert_eq!(item(FOUR, FOUR, 7), (7, 5, b"data".to_vec(), false));
        assert_eq!(item(BOTH, BOTH, 7), (7, 5, b"data".to_vec(), false));
        // An item that is awaited names its layout, whichever that is.
        for (writer, reader) in [(BOTH, BOTH), (BOTH, NEITHER), (EXPIRY, FOUR), (NEITHER, BOTH)] {
            let stored = encode(0, 0, [b"", b""], &writer).unwrap();
            let item = Item::decode(ClockTime(7), writer.layout.awaited(), &stored, &reader);
            assert_eq!((item.data, item.awaited), (&b""[..], true));
            let differs = writer.layout != reader.layout && writer.layout != Layout::BARE;
            assert_eq!(reader.disagrees(writer.layout.awaited()), differs);
        }
        // What a tool has written without a header says so.
        for reader in [FOUR, BOTH, FLAGS, EXPIRY, NEITHER] {
            let meta = Layout::BARE.named();
            assert_eq!(Item::decode(ClockTime(7), meta, b"longer than any", &reader).data, b"longer than any");
            assert!(!reader.disagrees(meta));
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
        assert!(encode(u32::MAX, 0, [b"12345", b"67890"], &FOUR).is_ok());
        assert_eq!(encode(0, 0, [b"12345", b"678901"], &BOTH), Err(Failure::TooLarge));
    }

    #[test]
    fn what_is_too_short_for_the_layout_is_all_data() {
        for length in 0..6 {
            let stored = vec![b'x'; length];
            let item = Item::decode(ClockTime(1), 0, &stored, &BOTH);
            assert_eq!((item.data, item.flags, item.expires), (&stored[..], 0, 0));
        }
        assert_eq!(Item::decode(ClockTime(1), 0, &[0; 6], &BOTH).data, b"");
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
        let item = |expires| Item { clocktime: ClockTime(1), flags: 0, expires, data: b"", awaited: false };
        assert!(!item(0).is_expired(u32::MAX));
        assert!(!item(101).is_expired(100));
        assert!(item(100).is_expired(100));
        assert_eq!((item(0).ttl(5), item(9).ttl(5), item(3).ttl(5)), (None, Some(4), Some(0)));
    }
}
