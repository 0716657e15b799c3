//! Why a request was refused or has failed, and how each protocol says so. Knows no request.

use std::borrow::Cow;

use crate::wire::NodeAddress;

/// Why a request was refused or has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The line does not conform to the text protocol; this is the whole answer.
    Syntax(&'static str),
    /// No such command.
    UnknownCommand,
    /// Fields of a binary request contradict each other or its command.
    Arguments,
    /// The value, or what an append would make of it, is longer than `--max-item-size`.
    TooLarge,
    /// The value is larger than this server, which must store it, takes: its limit, in bytes of a message.
    TooLargeFor(NodeAddress, usize),
    /// Flags are given, but without `-F` they are not stored.
    FlagsNotKept,
    /// Flags over 65,535 without `--flag-bytes 4`: the layout has two bytes for them.
    FlagsTooLarge,
    /// An expiry is given, but without `-E` it is not stored.
    ExpiryNotKept,
    /// Not a number that could be incremented.
    NotNumeric,
    /// `flush_all` without `--allow-flush`.
    FlushNotAllowed,
    /// No server that owns the key could be reached in time.
    Unavailable,
    /// The write is on some owners of the key, not on all, and further tries have failed.
    Partial,
    /// A write was sent, but whether it was done is not known.
    Unknown,
    /// Written, but a flush hides it: the clock of the server that wrote it lags behind those of the others.
    Hidden,
    /// Others kept changing the item; the bounded number of tries is used up.
    Contended,
    /// The gateway holds as much as it may.
    Overloaded,
}

impl Failure {
    /// The answer in the text protocol, without its end of line.
    pub fn line(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::TooLargeFor(server, limit) => {
                let text = format!("SERVER_ERROR object too large for server {server}: its limit is {limit} bytes");
                return text.into();
            }
            Self::Syntax(line) => line,
            Self::UnknownCommand => "ERROR",
            Self::Arguments => "CLIENT_ERROR bad command line format",
            Self::TooLarge => "SERVER_ERROR object too large for cache",
            Self::FlagsNotKept => "SERVER_ERROR flags are not kept: the gateway runs without -F",
            Self::FlagsTooLarge => {
                "SERVER_ERROR flags over 65535 are not kept: the gateway runs without --flag-bytes 4"
            }
            Self::ExpiryNotKept => "SERVER_ERROR exptime is not kept: the gateway runs without -E",
            Self::NotNumeric => "CLIENT_ERROR cannot increment or decrement non-numeric value",
            Self::FlushNotAllowed => "CLIENT_ERROR flush_all not allowed",
            Self::Unavailable => "SERVER_ERROR no server of this key can be reached",
            Self::Partial => "SERVER_ERROR not written to every replica",
            Self::Unknown => "SERVER_ERROR connection lost, whether this was done is not known",
            Self::Hidden => "SERVER_ERROR stored, but hidden by flush_all: the clock of its server lags",
            Self::Contended => "SERVER_ERROR too much contention, try again",
            Self::Overloaded => "SERVER_ERROR out of memory, try again",
        })
    }

    /// The status in the binary protocol.
    pub fn status(self) -> u16 {
        match self {
            Self::Syntax(_) | Self::Arguments => 0x04,
            Self::UnknownCommand => 0x81,
            Self::TooLarge | Self::TooLargeFor(..) => 0x03,
            Self::FlagsNotKept | Self::FlagsTooLarge | Self::ExpiryNotKept | Self::FlushNotAllowed => 0x83,
            Self::NotNumeric => 0x06,
            Self::Overloaded => 0x82,
            Self::Unavailable | Self::Partial | Self::Unknown | Self::Hidden => 0x84,
            Self::Contended => 0x86,
        }
    }

    /// The text of an answer in the binary protocol.
    pub fn text(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::UnknownCommand => "Unknown command",
            Self::Arguments => "Invalid arguments",
            Self::TooLarge => "Too large.",
            Self::NotNumeric => "Non-numeric server-side value for incr or decr",
            other => {
                let line = other.line();
                let text = line.split_once("_ERROR ").map(|(_, text)| text.to_owned());
                return text.map_or(line, Cow::Owned);
            }
        })
    }
}
