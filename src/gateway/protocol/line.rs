//! Words and numbers of a command line. Knows no command.

use crate::gateway::failure::Failure;

/// A line that does not conform.
pub(super) const BAD_LINE: Failure = Failure::Syntax("CLIENT_ERROR bad command line format");

/// The words of a line, separated by any number of spaces.
#[derive(Debug, Clone)]
pub(super) struct Words<'a> {
    rest: &'a [u8],
}

/// The words of a line without its end.
pub(super) fn words(line: &[u8]) -> Words<'_> {
    Words { rest: line }
}

impl Words<'_> {
    /// Bytes of the line behind the last word taken.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|byte| *byte != b' ')?;
        let (_, line) = self.rest.split_at_checked(start)?;
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (word, rest) = line.split_at_checked(end)?;
        self.rest = rest;
        Some(word)
    }
}

/// A decimal number, if the word is nothing else.
pub(super) fn number<N: std::str::FromStr>(word: &[u8]) -> Option<N> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// An exptime or delay in seconds, wrapped to 32 bits as memcached does: clients send -1 as 4294967295, too.
pub(super) fn exptime(word: &[u8]) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what memcached keeps")]
    number::<i64>(word).map(|seconds| (seconds as i32).into())
}

/// A line without its end, `\n` or `\r\n`.
pub(super) fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Appends a decimal number.
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Appends a line and its end.
pub(super) fn write_line(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 1, 9, 10, 99, 100, 12_345_678_901, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn an_exptime_has_32_bits() {
        for (word, expected) in [
            ("0", Some(0)),
            ("+5", Some(5)),
            ("-1", Some(-1)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", Some(-2_147_483_648)),
            ("4294967295", Some(-1)),
            ("4294967296", Some(0)),
            ("4294967297", Some(1)),
            ("-2147483649", Some(2_147_483_647)),
            ("9223372036854775807", Some(-1)),
            ("9223372036854775808", None),
            ("5x", None),
            ("", None),
        ] {
            assert_eq!(exptime(word.as_bytes()), expected, "{word}");
        }
    }

    #[test]
    fn words_stand_between_spaces() {
        let found =
            |line: &'static str| words(line.as_bytes()).map(|word| str::from_utf8(word).unwrap()).collect::<Vec<_>>();
        assert_eq!(found("  get  a b "), ["get", "a", "b"]);
        assert_eq!(found(""), [""; 0]);
    }

    #[test]
    fn only_the_end_of_a_line_is_cut() {
        for (line, expected) in [("a\r\n", "a"), ("a\n", "a"), ("a\rb\r\n", "a\rb"), ("\r\n", ""), ("a\r\r\n", "a\r")] {
            assert_eq!(trimmed(line.as_bytes()), expected.as_bytes());
        }
    }
}
