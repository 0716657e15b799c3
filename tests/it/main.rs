//! Tests with real processes and sockets; one module for each behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on must stop, also in helpers, which clippy's exception for tests does not cover"
)]

mod bench;
mod check;
mod cli;
mod client;
mod cluster_command;
mod ctl;
mod daemon;
mod disk;
mod faults;
mod harness;
mod hostile;
mod ipv6;
mod layers;
mod log;
mod manager;
mod manager_vectors;
mod mergedb;
mod replace;
mod replicas;
mod restore;
mod server_life;
mod signals;
mod two_managers;
mod vectors;
mod writes;
