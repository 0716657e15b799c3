//! Random lines of the text protocol and of meta commands.

use fastrand::Rng;

use super::Step;

/// Values of any kind.
const KEYS: [&str; 4] = ["a", "b", "cc", "d"];
/// Values that are counted.
const NUMBERS: [&str; 3] = ["n", "m", "o"];
/// Keys in base64: of no key above.
const ENCODED: [&str; 2] = ["AQID", "//8A"];
/// What lines that make little sense are made of.
const WORDS: [&str; 43] = [
    "get", "gets", "gat", "gats", "set", "add", "replace", "append", "prepend", "cas", "incr", "decr", "touch",
    "delete", "mg", "ms", "md", "ma", "x", "y", "z", "0", "1", "5", "-1", "100", "noreply", "v", "k", "q", "Oab", "C1",
    "T900", "c", "t", "f", "MA", "b", "D", "!", "AQI=", "Get", "",
];
/// The last ones wrap at 32 bits: to -1, to -2^31, to 0, to 100.
const EXPTIMES: [&str; 11] =
    ["0", "0", "0", "0", "100", "900", "-1", "4294967295", "2147483648", "4294967296", "4294967396"];

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

pub(super) fn value(random: &mut Rng) -> Vec<u8> {
    let len = match random.u8(..20) {
        0 => random.usize(..20_000),
        1..4 => 0,
        _ => random.usize(..12),
    };
    // Nothing that looks like the end of an answer, and no number that could be padded.
    (0..len).map(|_| *b"abcxyz\r\n \0\xff".get(random.usize(..11)).expect("one of them")).collect()
}

pub(super) fn number(random: &mut Rng) -> String {
    match random.u8(..8) {
        // Above the 63 bits that even sums of these do not reach, memcached looks for a sign in whatever lies behind the number.
        0 => (1_u64 << 58).to_string(),
        1 => "x1".to_owned(),
        2 => "18446744073709551616".to_owned(),
        _ => random.u64(..1500).to_string(),
    }
}

fn noreply(random: &mut Rng) -> &'static str {
    if random.u8(..8) == 0 { " noreply" } else { "" }
}

/// A step whose bytes do not depend on a unique.
fn plain(key: &str, bytes: Vec<u8>, forgets: bool) -> Step {
    let key = key.as_bytes().to_vec();
    Step { key, make: Box::new(move |_| bytes.clone()), wrong: false, forgets, binary: false }
}

/// The next step.
pub(super) fn step(random: &mut Rng) -> Step {
    match random.u8(..21) {
        0..4 => get(random),
        4..8 => store(random),
        8 => cas(random),
        9..11 => count(random),
        11 => delete(random),
        12 => touch(random),
        13..15 => meta_get(random),
        15..17 => meta_set(random),
        17 => meta_delete(random),
        18 => meta_count(random),
        19 => plain("a", format!("me {}\r\n", pick(random, &KEYS)).into_bytes(), false),
        _ => nonsense(random),
    }
}

fn get(random: &mut Rng) -> Step {
    let command = pick(random, &["get", "gets", "gat 0", "gats 900", "gat 100", "gat -1", "gat 4294967295"]);
    let all = [&KEYS[..], &NUMBERS, &["nothing"]].concat();
    if !command.starts_with("get") {
        let key = pick(random, &all);
        return plain(key, format!("{command} {key}\r\n").into_bytes(), true);
    }
    let keys: Vec<_> = (0..random.usize(1..6)).map(|_| pick(random, &all)).collect();
    plain(keys[0], format!("{command} {}\r\n", keys.join(" ")).into_bytes(), false)
}

fn store(random: &mut Rng) -> Step {
    let (key, command, value) = if random.bool() {
        let command = pick(random, &["set", "set", "add", "replace", "append", "prepend"]);
        (pick(random, &KEYS), command, value(random))
    } else {
        (pick(random, &NUMBERS), pick(random, &["set", "add", "replace"]), number(random).into_bytes())
    };
    let (flags, exptime) = (random.u32(..), pick(random, &EXPTIMES));
    let mut bytes = format!("{command} {key} {flags} {exptime} {}{}\r\n", value.len(), noreply(random)).into_bytes();
    bytes.extend_from_slice(&value);
    bytes.extend_from_slice(if random.u8(..30) == 0 { b"z\r\n" } else { b"\r\n" });
    plain(key, bytes, false)
}

fn cas(random: &mut Rng) -> Step {
    let key = pick(random, &[&KEYS[..], &["nothing"]].concat());
    let (wrong, noreply, value) = (random.u8(..3) == 0, noreply(random), random.u8(..));
    let make = move |unique| format!("cas {key} 1 0 3 {unique}{noreply}\r\n{value:03}\r\n").into_bytes();
    Step { key: key.as_bytes().to_vec(), make: Box::new(make), wrong, forgets: false, binary: false }
}

fn count(random: &mut Rng) -> Step {
    let key = pick(random, &[&NUMBERS[..], &["nothing"]].concat());
    let command = pick(random, &["incr", "decr"]);
    let delta = if random.u8(..10) == 0 { "x".to_owned() } else { random.u64(..300).to_string() };
    plain(key, format!("{command} {key} {delta}{}\r\n", noreply(random)).into_bytes(), false)
}

fn delete(random: &mut Rng) -> Step {
    let key = pick(random, &[&KEYS[..], &NUMBERS].concat());
    let more = pick(random, &["", "", " 0", " noreply", " 0 noreply", " 5"]);
    plain(key, format!("delete {key}{more}\r\n").into_bytes(), false)
}

fn touch(random: &mut Rng) -> Step {
    let key = pick(random, &[&KEYS[..], &NUMBERS].concat());
    let exptime = pick(random, &[&EXPTIMES[..], &["9223372036854775808"]].concat());
    plain(key, format!("touch {key} {exptime}{}\r\n", noreply(random)).into_bytes(), true)
}

/// A key for a meta command, and its flag if it is in base64.
fn meta_key(random: &mut Rng, others: &[&'static str]) -> (&'static str, &'static str) {
    if random.u8(..4) == 0 { (pick(random, &ENCODED), " b") } else { (pick(random, others), "") }
}

/// Some of these flags, in any order.
fn flags(random: &mut Rng, from: &[&str]) -> String {
    let mut chosen = from.to_vec();
    random.shuffle(&mut chosen);
    chosen.truncate(random.usize(..=from.len()));
    chosen.iter().flat_map(|flag| [" ", flag]).collect()
}

fn meta_get(random: &mut Rng) -> Step {
    let (key, base64) = meta_key(random, &[&KEYS[..], &["nothing"]].concat());
    // A key in base64 that memcached creates is shown as it is, not as it was given. What is to be nothing stays so.
    let touches = ["", "", "", " T100", " T0", " T-1", " T4294967295", " T4294967396", " N0", " N900", " N100 T900"];
    let touch = pick(random, if base64.is_empty() && key != "nothing" { &touches } else { &touches[..8] });
    // What memcached says of the seconds that something expired has left is not worth copying.
    let seconds = if [" T-1", " T4294967295"].contains(&touch) { "u" } else { "t" };
    let flags = flags(random, &["v", "k", "c", "f", "s", "q", "Oabc", seconds, "Px"]);
    plain(key, format!("mg {key}{base64}{touch}{flags}\r\n").into_bytes(), !touch.is_empty())
}

fn meta_set(random: &mut Rng) -> Step {
    let (key, base64) = meta_key(random, &KEYS);
    let value = value(random);
    let expiry = pick(random, &["T900", "T900", "T4294967295", "T4294967296"]);
    let flags = flags(random, &["k", "c", "F4294967295", expiry, "q", "Oabc", "t", "f"]);
    // What it has appended to, memcached no longer knows to have a key in base64.
    let modes =
        if base64.is_empty() { &["", "", " MA", " MP", " MS", " ME", " MR", " Mx"][..] } else { &["", " ME", " MR"] };
    let mode = pick(random, modes);
    let (compare, wrong) = (random.u8(..4) == 0, random.bool());
    let make = move |unique| {
        let compare = if compare { format!(" C{unique}") } else { String::new() };
        let mut bytes = format!("ms {key} {}{base64}{mode}{flags}{compare}\r\n", value.len()).into_bytes();
        bytes.extend_from_slice(&value);
        bytes.extend_from_slice(b"\r\n");
        bytes
    };
    Step { key: key.as_bytes().to_vec(), make: Box::new(make), wrong, forgets: false, binary: false }
}

fn meta_delete(random: &mut Rng) -> Step {
    let (key, base64) = meta_key(random, &KEYS);
    let flags = flags(random, &["k", "q", "Oabc"]);
    let (compare, wrong) = (random.bool(), random.bool());
    let make = move |unique| {
        let compare = if compare { format!(" C{unique}") } else { String::new() };
        format!("md {key}{base64}{flags}{compare}\r\n").into_bytes()
    };
    Step { key: key.as_bytes().to_vec(), make: Box::new(make), wrong, forgets: false, binary: false }
}

/// Without `T`: memcached may forget the new expiry if the number was read shortly before.
fn meta_count(random: &mut Rng) -> Step {
    let key = pick(random, &NUMBERS);
    let mode = pick(random, &["", "", " MI", " M+", " Mi", " MD", " M-", " Md", " Mx"]);
    let create = pick(random, &["", "", " N0", " N900 J15", " N4294967396", " J15"]);
    // Asked to be quiet, memcached still shows what it has created.
    let quiet = if create.contains('N') { "u" } else { "q" };
    let flags = flags(random, &["v", "t", "c", "k", "Oabc", quiet, "D7"]);
    let (compare, wrong) = (random.u8(..4) == 0, random.bool());
    let make = move |unique| {
        let compare = if compare { format!(" C{unique}") } else { String::new() };
        format!("ma {key}{mode}{create}{flags}{compare}\r\n").into_bytes()
    };
    Step { key: key.as_bytes().to_vec(), make: Box::new(make), wrong, forgets: false, binary: false }
}

/// A line of any words; what follows ends every data block that it may have begun.
fn nonsense(random: &mut Rng) -> Step {
    let line = (0..random.usize(1..8)).map(|_| pick(random, &WORDS)).collect::<Vec<_>>().join(" ");
    // Without a key, memcached takes gat for one that found nothing.
    let more = if line.trim_start().starts_with("gat") { " x" } else { "" };
    plain("x", format!("{line}{more}\r\n{}\r\n", "z".repeat(110)).into_bytes(), true)
}
