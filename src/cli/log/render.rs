//! A record of the binary log as a line.
//!
//! Knows the names of all roles' records and what their fields mean; what it does not know it shows as it is.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use crate::binlog::{Entry, Value};
use crate::cli::tool::date::stamp;
use crate::wire::NodeAddress;

/// Role, name in the log, meaning. The role's letter is the original's.
const RECORDS: [(char, &str, &str); 12] = [
    ('S', "SS", "server started"),
    ('S', "ers", "set not replicated"),
    ('S', "erd", "delete not replicated"),
    ('M', "SM", "manager started"),
    ('M', "nS", "server found"),
    ('M', "lS", "server lost"),
    ('M', "eP", "partner lost"),
    ('W', "SW", "gateway started"),
    ('W', "eg", "get failed"),
    ('W', "es", "set failed"),
    ('W', "ed", "delete failed"),
    ('?', "", "unknown record"),
];

/// Fields that hold an address.
const ADDRESSES: [&str; 6] = ["addr", "Padd", "mgr1", "mgr2", "sadd", "to"];

/// Most characters of a value in text; JSON has all of it.
const SHOWN: usize = 256;

fn about(entry: &Entry) -> (char, &'static str) {
    let known = RECORDS.iter().find(|(_, name, _)| *name == entry.name);
    known.map_or(('?', "unknown record"), |(role, _, meaning)| (*role, *meaning))
}

/// `[2026-11-22 12:00:00 +0000 S.SS v2]: server started: addr=127.0.0.1:19800 ...`
pub(super) fn text(entry: &Entry) -> String {
    let (role, meaning) = about(entry);
    let time = entry.time().map_or_else(|| "no time".to_owned(), stamp);
    let mut line = format!("[{time} {role}.{} v{}]: {meaning}:", printable(entry.name.as_bytes()), entry.version);
    for (name, value) in entry.fields.iter().filter(|(name, _)| name != "time") {
        let _ = write!(line, " {}={}", printable(name.as_bytes()), shown(name, value));
    }
    line.push('\n');
    line
}

/// The same as a JSON object in a line. Bytes that are no text are an object with their hexadecimal digits.
pub(super) fn json(entry: &Entry) -> String {
    let (role, meaning) = about(entry);
    let mut object = Map::new();
    object.insert("time".to_owned(), entry.time().map_or(Json::Null, Json::from));
    object.insert("role".to_owned(), Json::from(role.to_string()));
    object.insert("name".to_owned(), Json::from(entry.name.clone()));
    object.insert("version".to_owned(), Json::from(entry.version));
    object.insert("meaning".to_owned(), Json::from(meaning));
    let fields = entry.fields.iter().filter(|(name, _)| name != "time");
    let fields = fields.map(|(name, value)| (name.clone(), json_value(name, value))).collect::<Map<_, _>>();
    object.insert("fields".to_owned(), Json::from(fields));
    Json::from(object).to_string() + "\n"
}

fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Uint(number) if name == "cktm" => format!("{}.{}", number >> 32, number & u64::from(u32::MAX)),
        Value::Uint(number) if name == "hash" => format!("{number:016x}"),
        Value::Uint(number) => number.to_string(),
        Value::Raw(bytes) => match address(name, bytes) {
            Held::Address(address) => address.to_string(),
            Held::NoAddress => "none".to_owned(),
            Held::Bytes => format!("\"{}\"", printable(bytes)),
        },
        Value::Other(bytes) => format!("<{}>", hex(bytes)),
    }
}

fn json_value(name: &str, value: &Value) -> Json {
    match value {
        Value::Uint(number) => Json::from(*number),
        Value::Raw(bytes) => match address(name, bytes) {
            Held::Address(address) => Json::from(address.to_string()),
            Held::NoAddress => Json::Null,
            Held::Bytes => std::str::from_utf8(bytes).map_or_else(|_| in_hex("hex", bytes), Json::from),
        },
        Value::Other(bytes) => in_hex("messagepack", bytes),
    }
}

fn in_hex(what: &str, bytes: &[u8]) -> Json {
    Json::from(Map::from_iter([(what.to_owned(), Json::from(hex(bytes)))]))
}

/// The content of a field of bytes.
enum Held {
    Address(NodeAddress),
    /// The zeros that stand for a node that there is not.
    NoAddress,
    Bytes,
}

fn address(name: &str, bytes: &[u8]) -> Held {
    match NodeAddress::parse(bytes) {
        Ok(address) if ADDRESSES.contains(&name) => address.map_or(Held::NoAddress, Held::Address),
        _ => Held::Bytes,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Text with everything that a terminal might obey made visible, and cut if it is long.
fn printable(bytes: &[u8]) -> String {
    let head = bytes.get(..SHOWN).unwrap_or(bytes);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => head.escape_ascii().to_string(),
    };
    if head.len() < bytes.len() { format!("{text}... ({} bytes)", bytes.len()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, fields: &[(&str, Value)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Entry { name: name.to_owned(), version: 3, fields }
    }

    #[test]
    fn records_of_every_role_are_named() {
        let address = Value::Raw(vec![0x4d, 0x58, 127, 0, 0, 1]);
        let none = Value::Raw(vec![0; 6]);
        for (name, field, value, line) in [
            ("SM", "Padd", &none, "M.SM v3]: manager started: Padd=none\n"),
            ("nS", "addr", &address, "M.nS v3]: server found: addr=127.0.0.1:19800\n"),
            ("lS", "addr", &address, "M.lS v3]: server lost: addr=127.0.0.1:19800\n"),
            ("eP", "addr", &address, "M.eP v3]: partner lost: addr=127.0.0.1:19800\n"),
            ("SW", "mgr1", &address, "W.SW v3]: gateway started: mgr1=127.0.0.1:19800\n"),
            ("eg", "key", &Value::Raw(b"a\x1b[2J".to_vec()), "W.eg v3]: get failed: key=\"a\\u{1b}[2J\"\n"),
            ("es", "val", &Value::Raw(vec![0xff, 0]), "W.es v3]: set failed: val=\"\\xff\\x00\"\n"),
            ("ed", "err", &Value::Uint(6), "W.ed v3]: delete failed: err=6\n"),
            ("erd", "hash", &Value::Uint(255), "S.erd v3]: delete not replicated: hash=00000000000000ff\n"),
            ("zz", "x", &Value::Other(vec![0xc0]), "?.zz v3]: unknown record: x=<c0>\n"),
        ] {
            let entry = entry(name, &[("time", Value::Uint(1_795_348_800)), (field, value.clone())]);
            let expected = format!("[2026-11-22 12:00:00 +0000 {line}");
            assert_eq!(text(&entry), expected);
        }
    }

    #[test]
    fn long_values_are_cut_in_text_and_whole_in_json() {
        let entry = entry("ers", &[("val", Value::Raw(vec![b'x'; 300]))]);
        assert!(text(&entry).ends_with("xxx... (300 bytes)\"\n"), "{}", text(&entry));
        let object: Json = serde_json::from_str(&json(&entry)).unwrap();
        assert_eq!(object["fields"]["val"].as_str().unwrap().len(), 300);
        assert_eq!((&object["time"], &object["role"]), (&Json::Null, &Json::from("S")));
    }
}
