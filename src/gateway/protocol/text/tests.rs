//! Conversations in the text protocol: what memcached 1.6.18 answers to the same lines, but for CAS uniques.

use crate::gateway::fake::{FakeGateway, RULES, converse};
use crate::gateway::item::Rules;
use crate::gateway::layout::Layout;

#[test]
fn values_are_stored_and_read() {
    converse(&[
        ("get a", "END"),
        ("set a 7 0 2\nab", "STORED"),
        ("get a", "VALUE a 7 2\nab\nEND"),
        ("gets a", "VALUE a 7 2 1\nab\nEND"),
        ("get  a  b a ", "VALUE a 7 2\nab\nVALUE a 7 2\nab\nEND"),
        ("set empty 0 0 0\n", "STORED"),
        ("get empty", "VALUE empty 0 0\n\nEND"),
        ("set lines 65535 0 4\n\n\n", "STORED"),
        ("mg lines s f", "HD s4 f65535"),
        ("set a 0 0 1 noreply\nx", ""),
        ("get a", "VALUE a 0 1\nx\nEND"),
        ("set a 0 0 1 other\ny", "STORED"),
    ]);
}

#[test]
fn conditions_decide_over_writes() {
    converse(&[
        ("replace a 0 0 1\nx", "NOT_STORED"),
        ("append a 0 0 1\nx", "NOT_STORED"),
        ("prepend a 0 0 1\nx", "NOT_STORED"),
        ("add a 7 0 1\nb", "STORED"),
        ("add a 0 0 1\nx", "NOT_STORED"),
        ("append a 3 0 1\nc", "STORED"),
        ("prepend a 0 100 1\na", "STORED"),
        ("gets a", "VALUE a 7 3 3\nabc\nEND"),
        ("cas a 1 0 1 2\nx", "EXISTS"),
        ("cas a 1 0 1 3\nx", "STORED"),
        ("cas nope 0 0 1 3\nx", "NOT_FOUND"),
        ("cas a 0 0 1 0\nx", "EXISTS"),
        ("cas nope 0 0 1 0\nx", "NOT_FOUND"),
        ("replace a 0 0 1\ny", "STORED"),
        ("get a", "VALUE a 0 1\ny\nEND"),
        ("delete a", "DELETED"),
        ("delete a", "NOT_FOUND"),
    ]);
}

#[test]
fn numbers_are_counted() {
    converse(&[
        ("incr n 1", "NOT_FOUND"),
        ("set n 3 0 2\n10", "STORED"),
        ("incr n 5", "15"),
        ("decr n 100", "0"),
        ("incr n 18446744073709551615", "18446744073709551615"),
        ("incr n 2", "1"),
        ("get n", "VALUE n 3 1\n1\nEND"),
        ("incr n 1 noreply", ""),
        ("incr n 0", "2"),
        ("incr n", "ERROR"),
        ("incr n 1 2 3", "ERROR"),
        ("incr n abc", "CLIENT_ERROR invalid numeric delta argument"),
        ("incr n -1", "CLIENT_ERROR invalid numeric delta argument"),
        ("incr n 18446744073709551616", "CLIENT_ERROR invalid numeric delta argument"),
    ]);
    let not_a_number = "CLIENT_ERROR cannot increment or decrement non-numeric value";
    for (value, expected) in [
        ("abc", not_a_number),
        ("1 ", "2"),
        (" 1", "2"),
        ("+1", "2"),
        ("-1", not_a_number),
        ("", not_a_number),
        ("000000000000000000001", "2"),
        ("18446744073709551615", "0"),
        ("18446744073709551616", not_a_number),
        ("1ab", not_a_number),
        ("1 b", "2"),
    ] {
        converse(&[(&format!("set s 0 0 {}\n{value}", value.len()), "STORED"), ("incr s 1", expected)]);
    }
}

#[test]
fn an_expiry_is_touched_and_hides() {
    let mut gateway = FakeGateway::new(RULES);
    assert_eq!(gateway.talk("set a 0 10 1\r\nx\r\ntouch a 20\r\n"), "STORED\r\nTOUCHED\r\n");
    gateway.now += 19;
    assert_eq!(gateway.talk("get a\r\n"), "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(gateway.talk("gat 10 a nope\r\n"), "VALUE a 0 1\r\nx\r\nEND\r\n");
    gateway.now += 10;
    for (line, expected) in [
        ("get a", "END"),
        ("gat 10 a", "END"),
        ("touch a 10", "NOT_FOUND"),
        ("incr a 1", "NOT_FOUND"),
        ("delete a", "NOT_FOUND"),
        ("append a 0 0 1\r\nx", "NOT_STORED"),
        ("replace a 0 0 1\r\nx", "NOT_STORED"),
        // The clocktime is what it was; what has expired does not exist all the same.
        ("cas a 0 0 1 3\r\nx", "NOT_FOUND"),
        ("add a 0 0 1\r\ny", "STORED"),
        ("gats 0 a", "VALUE a 0 1 4\r\ny\r\nEND"),
        ("set a 0 -1 1\r\nz", "STORED"),
        ("get a", "END"),
        ("touch a", "ERROR"),
        ("touch a x", "CLIENT_ERROR invalid exptime argument"),
        ("gat x a", "CLIENT_ERROR invalid exptime argument"),
        ("gat 1", "ERROR"),
    ] {
        assert_eq!(gateway.talk(&format!("{line}\r\n")), format!("{expected}\r\n"), "{line}");
    }
}

#[test]
fn an_unchanged_expiry_writes_nothing() {
    let mut gateway = FakeGateway::new(RULES);
    gateway.talk("set a 0 100 1\r\nx\r\nset b 0 0 1\r\nx\r\n");
    assert_eq!(gateway.talk("touch a 100\r\ngat 0 b\r\ngets a b\r\n").matches(" 0 1 2\r\n").count(), 1);
}

#[test]
fn what_is_not_kept_is_refused() {
    let mut gateway = FakeGateway::new(Rules { layout: Layout::BARE, ..RULES });
    for (line, expected) in [
        ("set a 1 0 1\r\nx", "SERVER_ERROR flags are not kept: the gateway runs without -F"),
        ("set a 0 1 1\r\nx", "SERVER_ERROR exptime is not kept: the gateway runs without -E"),
        ("set a 0 -1 1\r\nx", "SERVER_ERROR exptime is not kept: the gateway runs without -E"),
        ("set a 0 0 1\r\nx", "STORED"),
        ("touch a 1", "SERVER_ERROR exptime is not kept: the gateway runs without -E"),
        ("touch a 0", "TOUCHED"),
        // Ignored, as always.
        ("append a 9 9 1\r\ny", "STORED"),
    ] {
        assert_eq!(gateway.talk(&format!("{line}\r\n")), format!("{expected}\r\n"), "{line}");
    }
    assert_eq!(gateway.records.get(&b"a"[..]).unwrap().2, b"xy");
    converse(&[(
        "set a 65536 0 1\nx",
        "SERVER_ERROR flags over 65535 are not kept: the gateway runs without --flag-bytes 4",
    )]);
}

#[test]
fn bad_lines_are_answered_as_memcached_does() {
    let long = "k".repeat(251);
    let fits = "k".repeat(250);
    let bad = "CLIENT_ERROR bad command line format";
    converse(&[
        ("", "ERROR"),
        ("foo", "ERROR"),
        ("GET a", "ERROR"),
        ("get", "ERROR"),
        ("set a 0 0", "ERROR"),
        ("set a b 0 1\nx", &format!("{bad}\nERROR")),
        ("set a 0 b 1\nx", &format!("{bad}\nERROR")),
        ("set a 0 0 b\nx", &format!("{bad}\nERROR")),
        ("set a 0 0 -1\n", &format!("{bad}\nERROR")),
        ("set a -1 0 1\nx", &format!("{bad}\nERROR")),
        ("set a 0 0 2147483647", bad),
        ("set a 0 0 1\nxyz", "CLIENT_ERROR bad data chunk\nERROR"),
        ("set a 0 0 1 noreply\nxyz", "ERROR"),
        ("set a 0 0 1 noreply foo\nx", "ERROR\nERROR"),
        ("cas a 0 0 1\nx", "ERROR\nERROR"),
        ("cas a 0 0 1 b\nx", &format!("{bad}\nERROR")),
        ("delete", "ERROR"),
        ("delete a 0", "NOT_FOUND"),
        ("delete a 0 noreply", ""),
        ("delete a noreply", ""),
        ("delete a 5", &format!("{bad}.  Usage: delete <key> [noreply]")),
        ("delete a 0 0 0", "ERROR"),
        (&format!("get a {long} a"), bad),
        (&format!("get {fits}"), "END"),
        (&format!("set {long} 0 0 1\nx"), &format!("{bad}\nERROR")),
        (&format!("delete {long}"), bad),
        (&format!("incr {long} 1"), bad),
        (&format!("touch {long} 1"), bad),
    ]);
}

#[test]
fn the_rest_is_answered() {
    converse(&[
        ("version", concat!("VERSION 1.6.18-kumo-server-", env!("CARGO_PKG_VERSION"))),
        ("verbosity", "ERROR"),
        ("verbosity 1", "OK"),
        ("verbosity abc", "CLIENT_ERROR bad command line format"),
        ("verbosity 1 noreply", ""),
        ("flush_all", "OK"),
        ("flush_all 0 noreply", ""),
        ("flush_all noreply", ""),
        ("flush_all abc", "CLIENT_ERROR invalid exptime argument"),
        ("flush_all 1 2 3", "ERROR"),
        ("stats", "STAT pid 1\nEND"),
        ("stats foo", "ERROR"),
        ("stats noreply", "ERROR"),
        ("stats reset", "RESET"),
        ("stats detail", "CLIENT_ERROR usage: stats detail on|off|dump"),
        ("stats detail on", "OK"),
        ("stats detail dump", "END"),
        ("stats detail off", "OK"),
        ("stats cachedump 1", "CLIENT_ERROR bad command line"),
        ("stats cachedump 1 0", "END"),
        ("stats cachedump 64 0", "CLIENT_ERROR Illegal slab id"),
        ("stats cachedump x 0", "CLIENT_ERROR bad command line format"),
    ]);
}

#[test]
fn quit_ends_the_connection_without_an_answer() {
    let mut gateway = FakeGateway::new(RULES);
    assert_eq!(gateway.talk("version\r\nquit\r\nversion\r\n").matches("VERSION").count(), 1);
    assert!(gateway.closed);
}

#[test]
fn a_value_over_the_limit_is_dropped_and_nothing_else() {
    let mut gateway = FakeGateway::new(RULES);
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    let value = "get a\r\n".repeat(200);
    let lines = format!("set a 0 0 {}\r\n{value}\r\nget a\r\n", value.len());
    assert_eq!(gateway.talk(&lines), format!("{too_large}END\r\n"));
    let lines = format!("set a 0 0 {} noreply\r\n{value}\r\nget a\r\n", value.len());
    assert_eq!(gateway.talk(&lines), "END\r\n");
    let exact = "x".repeat(1000);
    assert_eq!(
        gateway.talk(&format!("set a 0 0 1000\r\n{exact}\r\nappend a 0 0 1\r\nx\r\n")),
        format!("STORED\r\n{too_large}")
    );
}

/// After a set that failed a client must not read what it meant to replace.
#[test]
fn a_set_that_is_refused_takes_the_old_value_with_it() {
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    let (value, old) = ("x".repeat(1001), "set a 0 0 3\r\nold\r\n");
    let (kept, gone) = ("VALUE a 0 3\r\nold\r\nEND\r\n", "END\r\n");
    for (line, answer, then) in [
        ("set a 0 0 1001", too_large, gone),
        ("set a 0 0 1001 noreply", "", gone),
        ("ms a 1001", too_large, gone),
        ("ms a 1001 ME q", too_large, gone),
        ("add a 0 0 1001", too_large, kept),
        ("replace a 0 0 1001", too_large, kept),
        ("append a 0 0 1001", too_large, kept),
        ("cas a 0 0 1001 1", too_large, kept),
        ("set a 65536 0 1001", too_large, gone),
    ] {
        let answers = FakeGateway::new(RULES).talk(&format!("{old}{line}\r\n{value}\r\nget a\r\n"));
        assert_eq!(answers, format!("STORED\r\n{answer}{then}"), "{line}");
    }
    let flags = "SERVER_ERROR flags over 65535 are not kept: the gateway runs without --flag-bytes 4\r\n";
    for (line, then) in [("set a 65536 0 1\r\nx", gone), ("replace a 65536 0 1\r\nx", kept)] {
        let answers = FakeGateway::new(RULES).talk(&format!("{old}{line}\r\nget a\r\n"));
        assert_eq!(answers, format!("STORED\r\n{flags}{then}"), "{line}");
    }
}

#[test]
fn lines_of_other_protocols_end_the_connection() {
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nset a 0 0 1\r\nx\r\n";
    for (lines, answers) in [
        (post, ""),
        ("version\r\nGET / HTTP/1.0\r\nset a 0 0 1\r\nx\r\n", "VERSION 1.6"),
        ("gets /x HTTP/1.1\r\nhost: localhost\r\n\r\nset a 0 0 1\r\nx\r\n", "END\r\n"),
        ("touch /x HTTP/1.1\r\nset a 0 0 1\r\nx\r\n", ""),
        ("PRI * HTTP/2.0\r\n\r\nset a 0 0 1\r\nx\r\n", ""),
        ("OPTIONS * RTSP/1.0\r\nset a 0 0 1\r\nx\r\n", ""),
        ("*3\r\n$3\r\nSET\r\n$23\r\nset a 0 0 1\r\nx\r\n", ""),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nset a 0 0 1\r\nx\r\n", ""),
        ("\x16\x03\x01set a 0 0 1\r\nx\r\nset a 0 0 1\r\nx\r\n", ""),
        ("\0\0\0\x08set a 0 0 1\r\nx\r\n", ""),
    ] {
        let mut gateway = FakeGateway::new(RULES);
        let found = gateway.talk(lines);
        assert!(gateway.closed && gateway.records.is_empty(), "{lines}");
        assert!(found.starts_with(answers) && found.matches("\r\n").count() == usize::from(!answers.is_empty()));
    }
    // These are memcached's own.
    converse(&[
        ("set HTTP/1.1 0 0 1\nx", "STORED"),
        ("get a HTTP/1.1", "VALUE HTTP/1.1 0 1\nx\nEND"),
        ("delete HTTP/1.1", "DELETED"),
        ("* x", "ERROR"),
        ("hello", "ERROR"),
    ]);
}

#[test]
fn a_line_without_end_is_bounded() {
    for (start, limit) in [("x", 2048), ("get ", 1 << 20), ("gats ", 1 << 20)] {
        let mut gateway = FakeGateway::new(RULES);
        let line = format!("{start}{}", "a ".repeat(limit));
        assert_eq!(gateway.talk(&line[..limit - 1]), "");
        assert_eq!(gateway.talk(&line[limit - 1..limit]), "CLIENT_ERROR line too long\r\n", "{start}");
        assert!(gateway.closed);
    }
}

#[test]
fn memory_that_is_not_there_is_not_managed() {
    converse(&[
        ("cache_memlimit", "ERROR"),
        ("cache_memlimit x", "ERROR"),
        ("cache_memlimit 7", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m"),
        ("cache_memlimit 64", "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust"),
        ("cache_memlimit 64 noreply", ""),
        ("slabs", "ERROR"),
        ("slabs reassign 1 2", "CLIENT_ERROR slab reassignment disabled"),
        ("slabs automove 1", "OK"),
        ("slabs automove 3", "ERROR"),
        ("slabs automove x", "CLIENT_ERROR bad command line format"),
        ("slabs automove 1 noreply", ""),
        ("lru mode flat", "ERROR"),
        ("lru tune 10 20 0.1 2.0", "OK"),
        ("lru tune 10 20 0.1 2.0 noreply", ""),
        ("lru tune 10 20 0.1", "ERROR"),
        ("lru_crawler", "ERROR"),
        ("lru_crawler enable", "ERROR failed to start lru crawler thread"),
        ("lru_crawler disable", "OK"),
        ("lru_crawler sleep 100", "OK"),
        ("lru_crawler crawl all", "NOTSTARTED no items to crawl"),
        ("lru_crawler metadump all", "ERROR metadump not allowed"),
    ]);
}
