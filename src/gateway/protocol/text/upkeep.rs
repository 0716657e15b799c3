//! `cache_memlimit`, `slabs`, `lru` and `lru_crawler`: commands to memcached to manage its memory.
//!
//! The gateway has none to manage. It answers as a memcached does that runs with its background threads and dumps
//! switched off, so that what sends these commands goes on, and learns that nothing has happened.

use crate::gateway::failure::Failure;
use crate::gateway::protocol::line::{BAD_LINE, number};

/// No command takes as many arguments; what is behind them makes no difference.
pub(super) const MOST_ARGUMENTS: usize = 8;
/// Memcached takes no lower limit of its memory, in MiB.
const LOWEST_LIMIT: u32 = 8;

/// Whether such a command, with these arguments without `noreply`, is accepted without effect; else why not.
pub(super) fn accept(command: &[u8], arguments: &[&[u8]]) -> Result<(), Failure> {
    match command {
        b"cache_memlimit" => cache_memlimit(arguments),
        b"slabs" => slabs(arguments),
        b"lru" => lru(arguments),
        b"lru_crawler" => lru_crawler(arguments),
        _ => Err(Failure::UnknownCommand),
    }
}

/// `cache_memlimit <MiB> [noreply]`
fn cache_memlimit(arguments: &[&[u8]]) -> Result<(), Failure> {
    let [limit] = arguments else { return Err(Failure::UnknownCommand) };
    Err(match number::<u32>(limit) {
        None => Failure::UnknownCommand,
        Some(..LOWEST_LIMIT) => Failure::Syntax("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m"),
        Some(_) => Failure::Syntax("MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust"),
    })
}

/// `slabs reassign <source> <destination>`, `slabs automove <level>`, `slabs automove ratio <share>`
fn slabs(arguments: &[&[u8]]) -> Result<(), Failure> {
    match arguments {
        [b"reassign", _, _] => Err(Failure::Syntax("CLIENT_ERROR slab reassignment disabled")),
        [b"automove", b"ratio", share] => number::<f64>(share).map(|_| ()).ok_or(BAD_LINE),
        [b"automove", level, ..] => match number::<u32>(level) {
            Some(0..=2) => Ok(()),
            Some(_) => Err(Failure::UnknownCommand),
            None => Err(BAD_LINE),
        },
        _ => Err(Failure::UnknownCommand),
    }
}

/// `lru tune <hot percent> <warm percent> <hot factor> <warm factor>`; `mode` and `temp_ttl` need the LRU thread.
fn lru(arguments: &[&[u8]]) -> Result<(), Failure> {
    match arguments {
        [b"tune", hot, warm, hot_factor, warm_factor] => {
            let shares = number::<u32>(hot).zip(number::<u32>(warm));
            let factors = number::<f64>(hot_factor).zip(number::<f64>(warm_factor));
            shares.zip(factors).map(|_| ()).ok_or(Failure::UnknownCommand)
        }
        _ => Err(Failure::UnknownCommand),
    }
}

/// `lru_crawler enable|disable|sleep|tocrawl|crawl|metadump ...`
fn lru_crawler(arguments: &[&[u8]]) -> Result<(), Failure> {
    match arguments {
        [b"enable"] => Err(Failure::Syntax("ERROR failed to start lru crawler thread")),
        [b"disable"] => Ok(()),
        [b"sleep" | b"tocrawl", count] => number::<u32>(count).map(|_| ()).ok_or(BAD_LINE),
        [b"crawl", _] => Err(Failure::Syntax("NOTSTARTED no items to crawl")),
        [b"metadump" | b"mgdump", _] => Err(Failure::Syntax("ERROR metadump not allowed")),
        _ => Err(Failure::UnknownCommand),
    }
}
