//! Who owns a key.
//!
//! `owners` is why the owners of every stretch are computed when a hash space arrives, and found by the stretch that a
//! hash lies in: each request asks once to three times. `hash` is why the server trusts the hash that a client sends.
//! `build` is the price of both, paid once for each new hash space.

use std::net::SocketAddr;

use divan::counter::ItemsCount;
use kumo_server::clock::ClockTime;
use kumo_server::ring::{self, HashSpace};
use kumo_server::wire::NodeAddress;
use kumo_server::wire::params::Seed;

const HASHES: u64 = 1000;
const NODES: [u16; 4] = [1, 3, 30, 300];

fn main() {
    divan::main();
}

fn seed(nodes: u16) -> Seed {
    Seed { nodes: (1..=nodes).map(|port| (node(port), true)).collect(), clocktime: ClockTime(1) }
}

fn node(port: u16) -> NodeAddress {
    NodeAddress::new(SocketAddr::from(([10, 0, 0, 1], port)))
}

#[divan::bench(args = NODES)]
fn owners(bencher: divan::Bencher, nodes: u16) {
    let space = HashSpace::new(seed(nodes));
    bencher.counter(ItemsCount::new(HASHES)).bench_local(|| {
        let hashes = (0..HASHES).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        hashes.filter(|hash| space.owners(*hash).is_active_owner(node(1))).count()
    });
}

#[divan::bench(args = NODES)]
fn build(bencher: divan::Bencher, nodes: u16) {
    let seed = seed(nodes);
    bencher.bench_local(|| HashSpace::new(seed.clone()));
}

#[divan::bench]
fn hash(bencher: divan::Bencher) {
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| ring::hash(divan::black_box(b"key:000000000000")));
}
