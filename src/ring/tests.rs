//! The ring against the recorded one, and what must hold of any ring.

use super::*;
use proptest::prelude::*;

fn recorded() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/vectors/ring.json")).unwrap()
}

fn hex_number(value: &serde_json::Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap(), 16).unwrap()
}

fn node(text: &str) -> NodeAddress {
    NodeAddress::new(text.parse().unwrap())
}

fn space(nodes: &[(NodeAddress, bool)]) -> HashSpace {
    HashSpace::new(Seed { nodes: nodes.to_vec(), clocktime: ClockTime(1) })
}

#[test]
fn points_are_the_recorded_ones() {
    for entry in recorded()["nodes"].as_array().unwrap() {
        let points: Vec<u64> = hash::points(&node(entry["addr"].as_str().unwrap())).collect();
        let expected: Vec<u64> = entry["points"].as_array().unwrap().iter().map(hex_number).collect();
        assert_eq!(points[..3], expected);
        assert_eq!(*points.last().unwrap(), hex_number(&entry["last"]));
        assert_eq!(points.len(), POINTS_PER_NODE);
    }
}

#[test]
fn keys_have_the_recorded_hashes_and_owners() {
    let vectors = recorded();
    let nodes: Vec<_> = vectors["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (node(entry["addr"].as_str().unwrap()), true))
        .collect();
    let space = space(&nodes);
    let keys = vectors["keys"].as_array().unwrap();
    assert!(keys.len() > 100);
    for entry in keys {
        let key = entry["key"].as_str().unwrap().as_bytes();
        assert_eq!(hash(key), hex_number(&entry["hash"]));
        let raw: String = raw_key(key).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(raw, entry["raw"].as_str().unwrap());
        let owners: Vec<_> = space.owners(hash(key)).active().collect();
        let expected: Vec<_> = entry["owners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| nodes[usize::try_from(i.as_u64().unwrap()).unwrap()].0)
            .collect();
        assert_eq!(owners, expected, "{entry}");
    }
}

#[test]
fn an_empty_ring_has_no_owners() {
    assert_eq!(HashSpace::default().owners(7).all().count(), 0);
    assert!(!HashSpace::default().is_ready());
}

#[test]
fn a_faulty_owner_is_not_replaced_by_a_fourth_node() {
    let mut nodes: Vec<_> = (1..6).map(|port| (node(&format!("10.0.0.1:{port}")), true)).collect();
    let key = 0x1234_5678_9abc_def0;
    let before: Vec<_> = space(&nodes).owners(key).active().collect();
    for entry in &mut nodes {
        entry.1 = entry.0 != before[0];
    }
    let after = space(&nodes);
    assert_eq!(after.owners(key).active().collect::<Vec<_>>(), before[1..]);
    assert_eq!(after.owners(key).coordinator(), Some(before[1]));
}

proptest! {
    #[test]
    fn owners_are_distinct_and_as_many_as_can_be(count in 1usize..12, hashes in prop::collection::vec(any::<u64>(), 50)) {
        let nodes: Vec<_> = (0..count).map(|port| (node(&format!("10.0.0.1:{}", port + 1)), true)).collect();
        let space = space(&nodes);
        for hash in hashes.into_iter().chain([0, u64::MAX]) {
            let owners: Vec<_> = space.owners(hash).all().collect();
            prop_assert_eq!(owners.len(), count.min(OWNERS));
            let distinct: std::collections::HashSet<_> = owners.iter().collect();
            prop_assert_eq!(distinct.len(), owners.len());
        }
    }
}

#[test]
fn stretches_lead_to_the_point_that_a_search_finds() {
    for count in [0, 1, 2, 5, 40] {
        let nodes: Vec<_> = (0..count).map(|port| (node(&format!("127.0.0.1:{}", 20_000 + port)), true)).collect();
        let space = space(&nodes);
        let around = space.points().iter().flat_map(|point| [point.wrapping_sub(1), *point, point.wrapping_add(1)]);
        for hash in around.chain([0, 1 << 63, u64::MAX]) {
            assert_eq!(space.first_from(hash), space.points().partition_point(|point| *point < hash), "{count} {hash}");
        }
    }
}
