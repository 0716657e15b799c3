//! Data blocks that follow a command line, as the text and the meta commands have them. Knows no command.

use super::line::number;
use crate::gateway::failure::Failure;
use crate::gateway::item::Rules;

/// A data block and its end.
pub(super) enum Block<'a> {
    /// The block, and the bytes of line and block together.
    Data(&'a [u8], usize),
    /// The request is over after so many bytes, and refused.
    Refused(Failure, usize),
    /// So many bytes are needed in all.
    NotYet(usize),
}

/// Bytes of a line and its data block of `length` bytes, with its end.
pub(super) fn with_block(line: usize, length: usize) -> usize {
    line.saturating_add(length).saturating_add(2)
}

/// The data block of `length` bytes that follows a line of `before` bytes.
pub(super) fn block<'a>(before: usize, behind: &'a [u8], length: usize, rules: &Rules) -> Block<'a> {
    let total = with_block(before, length);
    if length > rules.value_limit {
        return Block::Refused(Failure::TooLarge, total);
    }
    match behind.split_at_checked(length).map(|(data, rest)| (data, rest.get(..2))) {
        None | Some((_, None)) => Block::NotYet(total),
        Some((data, Some(b"\r\n"))) => Block::Data(data, total),
        Some((_, Some(_))) => Block::Refused(Failure::Syntax("CLIENT_ERROR bad data chunk"), total),
    }
}

/// The length of a data block, as a line gives it.
pub(super) fn block_length(word: &[u8]) -> Option<usize> {
    // What memcached takes: the end of the block must fit in 31 bits, too.
    number::<i32>(word).filter(|length| *length < i32::MAX - 2).and_then(|length| usize::try_from(length).ok())
}
