//! Copies in the name of a node of the hash space: clocktimes that are later than those of all stored records.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, ClockTime};
use crate::env::dial_blocking;
use crate::time::Time;
use crate::wire::method::{GetStatus, STATUS_CLOCKTIME};
use crate::wire::params::decode;
use crate::wire::{Message, Scanner, frame};

/// Largest answer to it.
const ANSWER_LIMIT: usize = 64;

/// A clock ahead of those of all `servers`. The error names the server that does not tell.
pub(super) fn clock_ahead_of(servers: &[SocketAddr], timeout: Duration) -> Result<Arc<Clock>, (SocketAddr, io::Error)> {
    let mut greatest = 0;
    for server in servers {
        // Not by `adjust`: a new counter would take itself for one that has wrapped past theirs.
        greatest = greatest.max(clocktime(*server, timeout).map_err(|error| (*server, error))?.clock());
    }
    Ok(Arc::new(Clock::new(&Time::real(), greatest.wrapping_add(1))))
}

/// A server's clocktime, asked as a client.
fn clocktime(server: SocketAddr, timeout: Duration) -> io::Result<ClockTime> {
    let mut stream = dial_blocking(server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = Vec::new();
    frame::request(&mut request, 1, &GetStatus { number: STATUS_CLOCKTIME });
    stream.write_all(&request)?;
    let mut scanner = Scanner::new(ANSWER_LIMIT);
    let (mut answer, mut piece) = (Vec::new(), [0; ANSWER_LIMIT]);
    loop {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(piece.get(..len).unwrap_or_default());
        if let Some(len) = scanner.advance(&answer).map_err(io::Error::other)? {
            return read(answer.get(..len).unwrap_or_default());
        }
    }
}

fn read(answer: &[u8]) -> io::Result<ClockTime> {
    match Message::parse(answer).map_err(io::Error::other)? {
        Message::Response(response) => {
            let result = response.result.map_err(|code| io::Error::other(code.to_string()))?;
            decode(result).map_err(io::Error::other)
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
