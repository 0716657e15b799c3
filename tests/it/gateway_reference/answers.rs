//! Answers with what may differ levelled: CAS uniques, seconds that have passed, numbers with spaces behind.

use std::fmt::Write;

use super::Uniques;

/// Seconds as they were given: all exptimes are whole hundreds.
fn hundreds(seconds: &str) -> String {
    seconds.parse::<i64>().map_or(seconds.to_owned(), |seconds| {
        if seconds < 0 { seconds } else { (seconds + 99) / 100 * 100 }.to_string()
    })
}

/// Memcached leaves the length of a number that has shrunk, and fills up with spaces.
fn unpadded(value: &[u8]) -> &[u8] {
    let trimmed = value.trim_ascii_end();
    let is_number = !trimmed.is_empty() && trimmed.iter().all(u8::is_ascii_digit);
    if is_number { trimmed } else { value }
}

/// Answers of the text protocol, a line each.
pub(super) fn level_lines(mut answer: &[u8], key: &[u8], uniques: &mut Uniques) -> String {
    let mut out = String::new();
    while !answer.is_empty() {
        let end = answer.windows(2).position(|pair| pair == b"\r\n").expect("a whole line");
        let line = String::from_utf8_lossy(&answer[..end]).into_owned();
        answer = &answer[end + 2..];
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let mut block = |len: &str| {
            let (value, rest) = answer.split_at(len.parse().expect("a length"));
            answer = rest.strip_prefix(b"\r\n").expect("the end of a block");
            unpadded(value).to_vec()
        };
        let value = match words[0].as_str() {
            "VALUE" => {
                let value = block(&words[3]);
                words[3] = value.len().to_string();
                if let [_, name, _, _, unique] = &mut words[..] {
                    uniques.insert(name.clone().into_bytes(), unique.parse().expect("a unique"));
                    "#".clone_into(unique);
                }
                Some(value)
            }
            "VA" => {
                let value = block(&words[1]);
                words[1] = value.len().to_string();
                level_flags(&mut words[2..], key, uniques);
                Some(value)
            }
            "HD" => {
                level_flags(&mut words[1..], key, uniques);
                None
            }
            "ME" => {
                // Memcached shows the seconds left with a minus.
                words.truncate(3);
                words[2] = hundreds(words[2].trim_start_matches("exp=").trim_start_matches('-'));
                None
            }
            _ => None,
        };
        writeln!(out, "{} {}", words.join(" "), value.unwrap_or_default().escape_ascii()).expect("a string");
    }
    out
}

/// What meta commands return.
fn level_flags(flags: &mut [String], key: &[u8], uniques: &mut Uniques) {
    for flag in flags {
        match flag.split_at_checked(1) {
            Some(("c", unique)) => {
                uniques.insert(key.to_vec(), unique.parse().expect("a unique"));
                "c#".clone_into(flag);
            }
            Some(("t", seconds)) => *flag = format!("t{}", hundreds(seconds)),
            _ => {}
        }
    }
}

/// Answers of the binary protocol, a line each.
pub(super) fn level_packets(mut answer: &[u8], key: &[u8], uniques: &mut Uniques) -> String {
    let mut out = String::new();
    while let Some((header, rest)) = answer.split_first_chunk::<24>() {
        let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let (body, rest) = rest.split_at(usize::try_from(body).expect("a length"));
        let (extras, value) = body.split_at(header[4].into());
        let (named, value) = value.split_at(header[3].into());
        let unique = header.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)).filter(|unique| *unique != 0);
        if let Some(unique) = unique {
            uniques.insert(key.to_vec(), unique);
        }
        let (opcode, status) = (header[1], header[7]);
        let (named, value) = (named.escape_ascii(), unpadded(value).escape_ascii());
        writeln!(out, "{opcode:02x} {status:02x} {extras:x?} {named} {value} {}", unique.is_some()).expect("a string");
        answer = rest;
    }
    assert!(answer.is_empty(), "half a packet: {answer:x?}");
    out
}
