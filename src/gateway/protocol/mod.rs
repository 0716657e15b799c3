//! The memcached protocols: bytes to requests (`text`, `meta`, `binary`), outcomes to bytes (`answer`). Knows neither sockets
//! nor the cluster.
//!
//! A [`Codec`] serves one connection. It is given what has been read and yields one request at a time; a multi-get is
//! one request for each of its keys and one for its end. Every request has exactly one [`Form`], and the answers are
//! written in the order of the requests: that is all the gateway has to know about a protocol.

mod answer;
mod binary;
mod block;
mod foreign;
mod line;
mod meta;
mod opcode;
mod request;
mod section;
mod text;

pub use answer::{Early, Form, Writer};
pub use request::{Next, Request, Task};
pub use section::Section;

use super::item::Rules;

/// Parser of the requests of one connection.
#[derive(Debug, Default)]
pub struct Codec {
    /// Decided by the first byte.
    binary: Option<bool>,
    text: text::State,
}

impl Codec {
    /// A codec for a new connection: its first byte decides between binary and text.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next request at the front of `input`.
    ///
    /// `input` must begin where the last request ended, and have grown if this has said [`Next::NotYet`].
    pub fn next<'a>(&mut self, input: &'a [u8], rules: &Rules) -> Next<'a> {
        let Some(first) = input.first() else { return Next::NotYet { needed: 1 } };
        match self.binary {
            None if *first != binary::REQUEST && foreign::is_binary(*first) => {
                Next::Request { length: input.len(), request: Request::hang_up() }
            }
            known if known.unwrap_or(*first == binary::REQUEST) => {
                self.binary = Some(true);
                binary::next(input, rules)
            }
            _ => {
                self.binary = Some(false);
                self.text.next(input, rules)
            }
        }
    }
}

#[cfg(test)]
mod tests;
