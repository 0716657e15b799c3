//! The sections of `stats`, by their names in the text and in the binary protocol. Knows no counter.

use super::line::{BAD_LINE, Words, number};
use crate::gateway::failure::Failure;
use crate::gateway::outcome::Outcome;

/// Slab classes of memcached are numbered below this.
const CLASSES: u32 = 64;

/// A part of the statistics that the gateway has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `stats` alone: the counters.
    General,
    /// `settings`: the flags it runs with.
    Settings,
    /// `items`, by slab class: none, since the gateway keeps no items.
    Items,
    /// `slabs`: likewise.
    Slabs,
    /// `sizes`: not gathered.
    Sizes,
    /// `conns`: not listed.
    Connections,
    /// `reset`: sets the counters back.
    Reset,
}

impl Section {
    /// The section of this name, whole.
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"" => Self::General,
            b"settings" => Self::Settings,
            b"items" => Self::Items,
            b"slabs" => Self::Slabs,
            b"sizes" | b"sizes_enable" | b"sizes_disable" => Self::Sizes,
            b"conns" => Self::Connections,
            b"reset" => Self::Reset,
            _ => return None,
        })
    }
}

/// The outcome of parsing a request for statistics.
#[derive(Debug)]
pub(super) enum Asked {
    /// The gateway is to show a section.
    Section(Section),
    /// The answer is known.
    Answer(Outcome<'static>),
}

/// An empty list and its end.
fn nothing() -> Outcome<'static> {
    Outcome::Stats(Vec::new())
}

/// `stats [<name> [<argument>...]]`
pub(super) fn of_line(mut words: Words<'_>) -> Result<Asked, Failure> {
    let name = words.next().unwrap_or_default();
    Ok(Asked::Answer(match name {
        b"detail" => detail(words.next().unwrap_or_default())
            .ok_or(Failure::Syntax("CLIENT_ERROR usage: stats detail on|off|dump"))?,
        b"cachedump" => cachedump(words)?,
        b"extstore" => nothing(),
        name => return Section::named(name).map(Asked::Section).ok_or(Failure::UnknownCommand),
    }))
}

/// The key of a `stat` packet. One that is not known is not found.
pub(super) fn of_packet(key: &[u8]) -> Asked {
    Asked::Answer(match key {
        b"conns" => Outcome::Missing,
        b"detail dump" => Outcome::Stats(vec![("detailed".to_owned(), "END\r\n".to_owned())]),
        key => match (key.strip_prefix(b"detail "), Section::named(key)) {
            (Some(what), _) => detail(what).unwrap_or(Outcome::Missing),
            (None, Some(section)) => return Asked::Section(section),
            (None, None) => Outcome::Missing,
        },
    })
}

/// `detail on|off|dump`: counters by the prefix of a key. None are kept, so that no request pays for them.
fn detail(what: &[u8]) -> Option<Outcome<'static>> {
    match what {
        b"on" | b"off" => Some(Outcome::Done),
        b"dump" => Some(nothing()),
        _ => None,
    }
}

/// `cachedump <slab class> <limit>`: the keys of a class, of which there are none.
fn cachedump(mut words: Words<'_>) -> Result<Outcome<'static>, Failure> {
    let (Some(class), Some(limit)) = (words.next(), words.next()) else {
        return Err(Failure::Syntax("CLIENT_ERROR bad command line"));
    };
    match (number::<u32>(class), number::<u32>(limit)) {
        (Some(class), Some(_)) if class < CLASSES => Ok(nothing()),
        (Some(_), Some(_)) => Err(Failure::Syntax("CLIENT_ERROR Illegal slab id")),
        _ => Err(BAD_LINE),
    }
}
