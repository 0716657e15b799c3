//! How values lie in a cluster: flags of two or four bytes, gateways that disagree, and tools beside gateways.

use crate::harness::cluster::Cluster;
use crate::harness::{Finished, Gateway, Process, kumo_server, wait_until};

const FOUR: [&str; 4] = ["-F", "-E", "--flag-bytes", "4"];

fn gateway(cluster: &Cluster, flags: &[&str]) -> Gateway {
    let managers: Vec<_> = cluster.managers.iter().map(|(port, _)| port.address()).collect();
    Gateway::start(cluster.folder(), &managers, flags)
}

/// Runs a tool on a cluster, with these arguments behind its managers.
fn tool(cluster: &Cluster, name: &str, args: &[&str]) -> Finished {
    let manager = cluster.managers[0].0.address().to_string();
    Process::run(cluster.folder(), &kumo_server(), &[&[name, "-m", &manager], args].concat())
}

#[test]
fn flags_of_four_bytes_come_back_as_they_were() {
    let cluster = Cluster::start(3);
    let (first, second) = (gateway(&cluster, &FOUR), gateway(&cluster, &FOUR));
    let (mut client, mut other) = (first.client(), second.client());
    client.exchange(b"set a 4294967295 0 3\r\none\r\nset b 65536 0 3\r\ntwo\r\n", b"STORED\r\nSTORED\r\n");
    other.exchange(b"get a b\r\n", b"VALUE a 4294967295 3\r\none\r\nVALUE b 65536 3\r\ntwo\r\nEND\r\n");
    // What changes a value leaves its flags.
    client.exchange(b"append a 7 0 1\r\n!\r\nset n 70000 0 1\r\n5\r\nincr n 1\r\n", b"STORED\r\nSTORED\r\n6\r\n");
    client.exchange(b"touch b 1000\r\nmg n f v\r\n", b"TOUCHED\r\nVA 1 f70000\r\n6\r\n");
    other.exchange(
        b"get a b n\r\n",
        b"VALUE a 4294967295 4\r\none!\r\nVALUE b 65536 3\r\ntwo\r\nVALUE n 70000 1\r\n6\r\nEND\r\n",
    );
    let mut binary = first.client();
    // The answer to a get: a header of 24 bytes, the flags, the value.
    let request = [&b"\x80\0\0\x01\0\0\0\0\0\0\0\x01"[..], &[0; 12], b"a"].concat();
    let answer = binary.ask_bytes(&request, 24 + 4 + 4);
    assert_eq!(&answer[24..], b"\xff\xff\xff\xffone!");
    assert_eq!(cluster.client().get(b"a").expect("a record"), b"\0\0\0\0\xff\xff\xff\xffone!");
    assert_eq!((first.stat("foreign_layout_items"), second.stat("foreign_layout_items")), (0, 0));
}

#[test]
fn gateways_that_disagree_understand_each_other_and_say_so() {
    let cluster = Cluster::start(3);
    let (two, four) = (Gateway::of(&cluster, &[]), gateway(&cluster, &FOUR));
    let (mut narrow, mut wide) = (two.client(), four.client());
    narrow.exchange(b"set old 65535 0 3\r\none\r\n", b"STORED\r\n");
    wide.exchange(b"set new 65536 1000 3\r\ntwo\r\n", b"STORED\r\n");
    assert!(!two.process.stdout().contains("--flag-bytes") && !four.process.stdout().contains("--flag-bytes"));
    for client in [&mut narrow, &mut wide] {
        client.exchange(b"get old new\r\n", b"VALUE old 65535 3\r\none\r\nVALUE new 65536 3\r\ntwo\r\nEND\r\n");
    }
    let warning = "an item was written by a gateway with -F -E --flag-bytes 4, this one runs with -F -E:";
    wait_until("the first warns", || two.process.stdout().contains(warning));
    let warning = "an item was written by a gateway without --flag-bytes 4, this one runs with -F -E --flag-bytes 4:";
    wait_until("the second warns", || four.process.stdout().contains(warning));
    assert_eq!((two.stat("foreign_layout_items"), four.stat("foreign_layout_items")), (1, 1));
    // Flags that do not fit are refused, not cut.
    let refused = b"SERVER_ERROR flags over 65535 are not kept: the gateway runs without --flag-bytes 4\r\n";
    narrow.exchange(b"append new 0 0 1\r\n!\r\n", refused);
    narrow.exchange(b"replace new 65536 0 1\r\n!\r\n", refused);
    narrow.exchange(b"append old 0 0 1\r\n!\r\n", b"STORED\r\n");
    wide.exchange(b"prepend old 0 0 1\r\n!\r\n", b"STORED\r\n");
    for client in [&mut narrow, &mut wide] {
        client.exchange(b"get old new\r\n", b"VALUE old 65535 5\r\n!one!\r\nVALUE new 65536 3\r\ntwo\r\nEND\r\n");
    }
    assert!(two.stat("foreign_layout_items") > 1);
    assert_eq!(two.process.stdout().matches("--flag-bytes 4, this").count(), 1, "it warns once");
}

#[test]
fn tools_read_and_write_values_as_gateways_do() {
    let cluster = Cluster::start(3);
    let value = "a value long enough to hide any header in front of it";
    for flags in [&[][..], &["-F"], &["-E"], &["-F", "-E"], &FOUR] {
        let gateway = gateway(&cluster, flags);
        let mut client = gateway.client();
        let own = if flags.contains(&"-F") { 7 } else { 0 };
        client.exchange(format!("set theirs {own} 0 5\r\nhello\r\n").as_bytes(), b"STORED\r\n");
        let got = tool(&cluster, "get", &[flags, &["theirs"]].concat());
        assert_eq!((got.stdout.as_str(), got.status.code()), ("hello", Some(0)), "{flags:?}");

        // With the flags of the gateways, or with none: they find what was set.
        let answer = format!("VALUE ours 0 {}\r\n{value}\r\nEND\r\n", value.len());
        for given in [flags, &[]] {
            assert!(tool(&cluster, "set", &[given, &["ours", value]].concat()).status.success());
            client.exchange(b"get ours\r\n", answer.as_bytes());
            assert_eq!(tool(&cluster, "get", &[flags, &["ours"]].concat()).stdout, value, "{flags:?} {given:?}");
        }
        client.exchange(b"append ours 0 0 1\r\n!\r\n", b"STORED\r\n");
        assert_eq!(tool(&cluster, "get", &[flags, &["ours"]].concat()).stdout, format!("{value}!"), "{flags:?}");

        if flags.contains(&"-E") {
            client.exchange(b"set late 0 -1 1\r\nx\r\n", b"STORED\r\n");
            for name in ["get", "delete"] {
                let gone = tool(&cluster, name, &[flags, &["late"]].concat());
                assert_eq!((gone.status.code(), gone.stdout.as_str()), (Some(1), ""), "{flags:?}: {gone:?}");
                assert_eq!(gone.stderr, format!("kumo-server {name}: late: not found\n"));
            }
        }
        assert_eq!(gateway.stat("foreign_layout_items"), 0, "{flags:?}");
        for (key, status) in [("theirs", 0), ("ours", 0), ("late", 1)] {
            let deleted = tool(&cluster, "delete", &[flags, &[key]].concat());
            assert_eq!(deleted.status.code(), Some(status), "{flags:?} {key}: {deleted:?}");
        }
    }
    // Gateways that keep four bytes say so in what they write: a tool needs no flags to read it.
    let gateway = gateway(&cluster, &FOUR);
    gateway.client().exchange(b"set theirs 70000 1000 5\r\nhello\r\n", b"STORED\r\n");
    assert_eq!(tool(&cluster, "get", &["theirs"]).stdout, "hello");
    let mistake = tool(&cluster, "get", &["--flag-bytes", "4", "key"]);
    assert_eq!((mistake.status.code(), mistake.stderr.lines().count()), (Some(2), 1), "{mistake:?}");
}
