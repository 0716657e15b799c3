//! Other protocols than memcached's, by their first bytes and request lines. Knows no command.
//!
//! A browser can be made to send commands in the body of a POST, and other clients in what they carry. They are cut off
//! at their first line, so that nothing behind it is run.

use super::line::Words;

/// Beginnings of the last word of a request line: its protocol's version.
const VERSIONS: [&[u8]; 4] = [b"HTTP/", b"RTSP/", b"SIP/", b"ICAP/"];
/// First words that no command has: of HTTP headers (which stand behind a method that is a command, too), mail, and the
/// PROXY protocol, whose line would get an answer that the client takes for that to its first command.
const WORDS: [&[u8]; 5] = [b"Host:", b"EHLO", b"HELO", b"LHLO", b"PROXY"];

/// Whether a connection that begins with this byte speaks no text, nor memcached's binary protocol: TLS, for one.
pub(super) fn is_binary(first: u8) -> bool {
    !matches!(first, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

/// Whether a line that is no valid command, `command` its first word, is one of another protocol.
pub(super) fn is_request(command: &[u8], rest: Words<'_>) -> bool {
    let last = rest.last().unwrap_or(command);
    VERSIONS.iter().any(|version| last.starts_with(version))
        || WORDS.iter().any(|word| command.eq_ignore_ascii_case(word))
        || command.starts_with(b"SSH-")
        || is_redis_array(command)
}

/// `*` and the number of words, with which every request to a Redis begins.
fn is_redis_array(command: &[u8]) -> bool {
    command.strip_prefix(b"*").is_some_and(|count| !count.is_empty() && count.iter().all(u8::is_ascii_digit))
}
