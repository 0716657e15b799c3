//! Conversations in meta commands: what memcached 1.6.18 answers, but for CAS uniques and what is not kept.

use crate::gateway::fake::{FakeGateway, RULES, converse};
use crate::gateway::item::Rules;
use crate::gateway::layout::Layout;

#[test]
fn a_get_returns_what_its_flags_ask_for_in_their_order() {
    converse(&[
        ("mg a v", "EN"),
        ("mg a v k O1 q", ""),
        ("mg a v k O1", "EN ka O1"),
        ("ms a 2 F7\nab", "HD"),
        ("mg a", "HD"),
        ("mg a v", "VA 2\nab"),
        ("mg a s v f c k t O123 q", "VA 2 s2 f7 c1 ka t-1 O123\nab"),
        ("mg a u P1 L2", "HD"),
        ("mg a k q", "HD ka"),
        ("mg a O", "HD O"),
        ("mg a T100 t", "HD t100"),
        ("mg a t", "HD t100"),
        ("mg nope T100 t k", "EN knope"),
        ("mg a T-1 v", "VA 2\nab"),
        ("mg a", "EN"),
    ]);
}

#[test]
fn bad_flags_are_answered_as_memcached_does() {
    let strict = "CLIENT_ERROR invalid or duplicate flag";
    let token = "CLIENT_ERROR bad token in command line format";
    let long = "k".repeat(251);
    let opaque = "1".repeat(32);
    converse(
        &[
            ("mg", "ERROR"),
            ("mg a x", "CLIENT_ERROR invalid flag"),
            ("mg a S", "CLIENT_ERROR invalid flag"),
            ("mg a v v", "CLIENT_ERROR duplicate flag"),
            ("mg a Tx", token),
            ("mg a T", token),
            ("mg a M", "CLIENT_ERROR incorrect length for M token"),
            ("mg a D", "CLIENT_ERROR invalid numeric delta value"),
            ("mg a J", "CLIENT_ERROR invalid numeric initial value"),
            ("mg a F", "CLIENT_ERROR bad command line format"),
            (&format!("mg a O{opaque}"), "CLIENT_ERROR opaque token too long"),
            (&format!("mg a O{}", &opaque[1..]), &format!("EN O{}", &opaque[1..])),
            (&format!("mg {long}"), "CLIENT_ERROR bad command line format"),
            (&format!("ms {long} 1\nx"), "CLIENT_ERROR bad command line format\nERROR"),
            ("mg a k b", "CLIENT_ERROR error decoding key"),
            ("mg a b D", "CLIENT_ERROR error decoding key"),
            ("mg a b D x", "CLIENT_ERROR invalid flag"),
            ("ms", "ERROR"),
            ("ms a", "CLIENT_ERROR bad command line format"),
            ("ms a S2\nxx", "CLIENT_ERROR bad command line format\nERROR"),
            ("ms a 2 b\nxx", "CLIENT_ERROR error decoding key"),
            ("ms a 2 MX\nxx", "CLIENT_ERROR invalid mode for ms M token"),
            ("ms a 2 Mset\nxx", "CLIENT_ERROR incorrect length for M token"),
            ("ms a 2 Cx\nxx", token),
            ("ms a 2 c c\nxx", "CLIENT_ERROR duplicate flag"),
            ("ms a 2\nxxx", "CLIENT_ERROR bad data chunk\nERROR"),
            ("ms a 2 q\nxxx", "CLIENT_ERROR bad data chunk\nERROR"),
            ("ms a 2000 q k\n", ""),
            ("md", "ERROR"),
            ("ma", "ERROR"),
        ][..25],
    );
    converse(&[
        ("md", "ERROR"),
        ("md a x", strict),
        ("md a C", strict),
        ("ma", "ERROR"),
        ("ma c x", strict),
        ("ma c Dabc", strict),
        ("ma c Nabc", strict),
        ("ma c D1 D2", strict),
        ("ma c Mx", "CLIENT_ERROR invalid mode for ma M token"),
        ("ma c MDECR", strict),
        ("me", "CLIENT_ERROR bad command line format"),
    ]);
}

#[test]
fn what_is_not_kept_is_said_so() {
    for (line, flag) in [
        ("mg a h", 'h'),
        ("mg a l", 'l'),
        ("mg a R30", 'R'),
        ("mg a R30 N30", 'R'),
        ("ms a 1 I C1\r\nx", 'I'),
        ("md a I", 'I'),
    ] {
        let answer = FakeGateway::new(RULES).talk(&format!("{line}\r\n"));
        assert!(answer.starts_with(&format!("CLIENT_ERROR flag not supported: {flag}, ")), "{line}: {answer}");
        assert!(answer.ends_with(" is not kept\r\n"), "{line}: {answer}");
    }
    // Without C there is nothing to mark.
    converse(&[("ms a 1 I\nx", "HD"), ("mg a I C1 M1 D1 F1 J1", "HD")]);
}

#[test]
fn a_get_that_creates_has_one_winner() {
    converse(
        &[
            ("mg a N30 v c t f s k Oab", "VA 0 c1 t30 f0 s0 ka Oab W\n"),
            ("mg a N30 v c t f s k Oab", "VA 0 c1 t30 f0 s0 ka Oab Z\n"),
            ("mg a k", "HD ka Z"),
            ("mg a q k N30", "HD ka Z"),
            ("get a", "VALUE a 0 0\n\nEND"),
            ("mg a T50 t", "HD t50 Z"),
            ("mg a t v", "VA 0 t50 Z\n"),
            ("ms a 1 ME\nx", "NS"),
            ("ms a 1\nx", "HD"),
            ("mg a N30 v t", "VA 1 t-1\nx"),
            ("mg b N0 q k", "HD kb W"),
            ("mg b t", "HD t-1 Z"),
            ("mg c N30 T100 t", "HD t100 W"),
            ("mg YQE= b N30 k", "HD kYQE= b W"),
            ("touch c 0", "TOUCHED"),
            ("mg c t", "HD t-1 Z"),
            ("md c", "HD"),
            ("mg c", "EN"),
            ("mg c N30x", "CLIENT_ERROR bad token in command line format"),
        ]
        .map(|(input, expected)| (input, expected.trim_end_matches('\n'))),
    );
    // It comes to an end if its winner does not come back.
    let mut gateway = FakeGateway::new(RULES);
    assert_eq!(gateway.talk("mg a N30 t\r\n"), "HD t30 W\r\n");
    gateway.now += 30;
    assert_eq!(gateway.talk("mg a\r\nmg a N30 t\r\n"), "EN\r\nHD t30 W\r\n");
    // Without a place for its expiry it can be made only for good.
    let mut gateway = FakeGateway::new(Rules { layout: Layout { expiry: false, ..RULES.layout }, ..RULES });
    assert_eq!(gateway.talk("mg a N30\r\n"), "SERVER_ERROR exptime is not kept: the gateway runs without -E\r\n");
    assert_eq!(gateway.talk("mg a N0\r\nmg a N0\r\n"), "HD W\r\nHD Z\r\n");
}

#[test]
fn sets_have_modes_and_compare() {
    converse(
        &[
            ("ms a 2 T100 F5 c k O9\nxx", "HD c1 ka O9"),
            ("mg a v f t", "VA 2 f5 t100\nxx"),
            ("ms a 2 q\nyy", ""),
            ("ms a 2 MA\nzz", "HD"),
            ("ms a 1 MP\n_", "HD"),
            ("mg a v", "VA 5\n_yyzz"),
            ("ms a 2 ME k\nzz", "NS ka"),
            ("ms nope 2 MR k O3 q\nzz", "NS knope O3"),
            ("ms nope 2 MA N30\nzz", "NS"),
            ("ms a 2 C1 k O1\nzz", "EX ka O1"),
            ("ms a 2 MA C1\nzz", "EX"),
            ("ms a 2 C4 c\nzz", "HD c5"),
            ("ms nope 2 C1 k O1 c\nzz", "NF knope O1 c0"),
            ("ms nope 2 MR C1\nzz", "NF"),
            ("ms nope 2 ME C1\nzz", "HD"),
            ("ms nope 2 ME C1\nzz", "NS"),
            ("ms a 0\n", "HD"),
            ("mg a v s", "VA 0 s0\n"),
            ("ms a 1 s t f h v\nx", "HD"),
            ("ms a 1 T-1\nx", "HD"),
            ("mg a", "EN"),
            ("ms a 1 F65536\nx", "SERVER_ERROR flags over 65535 are not kept: the gateway runs without --flag-bytes 4"),
        ]
        .map(|(input, expected)| (input, expected.trim_end_matches('\n'))),
    );
}

#[test]
fn a_refused_set_takes_its_data_along() {
    let value = "mn\r\n".repeat(400);
    let mut gateway = FakeGateway::new(RULES);
    let lines = format!("ms a {} k O1 q\r\n{value}\r\nmn\r\n", value.len());
    assert_eq!(gateway.talk(&lines), "SERVER_ERROR object too large for cache\r\nMN\r\n");
    assert_eq!(gateway.talk("ms a 2 x\r\nmn\r\nmn\r\n"), "CLIENT_ERROR invalid flag\r\nMN\r\n");
}

#[test]
fn deletes_compare() {
    converse(&[
        ("md a k O2", "NF ka O2"),
        ("md a q", "NF"),
        ("ms a 1\nx", "HD"),
        ("md a C9 q k O2", "EX ka O2"),
        ("md a q T30", ""),
        ("ms a 1\nx", "HD"),
        ("md a C2", "HD"),
        ("mg a v", "EN"),
        ("md a", "NF"),
        ("ms a 1 ME c\ny", "HD c4"),
    ]);
}

#[test]
fn numbers_are_counted_and_created() {
    converse(&[
        ("ma c", "NF"),
        ("ma c q k O3", "NF kc O3"),
        ("ma c J5", "NF"),
        ("ma c N0 J13 v t c k O1", "VA 2 t-1 c1 kc O1\n13"),
        ("ma c", "HD"),
        ("ma c D5 v", "VA 2\n19"),
        ("ma c MD D3 v", "VA 2\n16"),
        ("ma c M- D1000 v", "VA 1\n0"),
        ("ma c MI v", "VA 1\n1"),
        ("ma c M+ v q", ""),
        ("ma c C1 k O1 c", "EX kc O1"),
        ("ma c T30 t v", "VA 1 t30\n3"),
        ("ma c s f v", "VA 1\n4"),
        ("ma Yw== b k v", "VA 1 kYw== b\n5"),
        ("ma d N0 T100 t", "HD t100"),
        ("ms c 1\nx", "HD"),
        ("ma c q", "CLIENT_ERROR cannot increment or decrement non-numeric value"),
    ]);
}

#[test]
fn keys_in_base64_are_any_bytes() {
    converse(&[
        ("ms YWI= 3 b c k\nabc", "HD c1 kYWI= b"),
        ("mg ab v k", "VA 3 kab\nabc"),
        ("mg YWI= b k v f", "VA 3 kYWI= b f0\nabc"),
        ("mg YWI= b v", "VA 3\nabc"),
        ("md YWI= k O1 b", "HD kYWI= b O1"),
        ("mg YWI= k O1 b", "EN kYWI= b O1"),
        ("ms AAoN 1 b\nx", "HD"),
        ("mg AAoN b k", "HD kAAoN b"),
    ]);
}

#[test]
fn debug_and_noop_answer() {
    converse(&[
        ("me a", "EN"),
        ("ms a 2 T9\nxx", "HD"),
        ("me a", "ME a exp=9 cas=1 size=2"),
        ("me YQ== b", "ME YQ== exp=9 cas=1 size=2"),
        ("mn", "MN"),
        ("mn q", "MN"),
        ("mx a", "ERROR"),
    ]);
}
