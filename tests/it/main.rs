//! Tests with real processes and sockets; one module for each behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on must stop, also in helpers, which clippy's exception for tests does not cover"
)]

mod addresses;
mod bench;
mod check;
mod cli;
mod client;
mod cluster_command;
mod crash_points;
mod ctl;
mod ctl_members;
mod daemon;
mod disk;
mod embedded;
mod examples;
mod faults;
mod forced;
mod gateway;
mod gateway_clients;
mod gateway_faults;
mod gateway_flush;
mod gateway_layout;
mod gateway_limits;
mod gateway_originals;
mod gateway_reference;
mod gateway_sets;
mod gateway_stats;
mod gateway_swaps;
mod gateway_vivify;
mod generated;
mod harness;
mod hash;
mod hostile;
mod init_order;
mod install_links;
mod ipv6;
mod layers;
mod log;
mod manager;
mod manager_vectors;
mod mergedb;
mod mixed;
mod names;
mod offline;
mod outage;
mod own_port;
mod reach;
mod replace;
mod replicas;
mod restore;
mod returning;
mod server_life;
mod signals;
#[path = "../simulation/mod.rs"]
mod simulation;
mod sizes;
mod stalled_disk;
mod stat;
mod store_bounds;
mod tools;
mod top;
mod two_managers;
mod vectors;
mod votes;
mod writes;
