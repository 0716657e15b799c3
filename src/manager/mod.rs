//! The manager's role: knows the servers and owns the hash space.

pub mod config;

pub use config::Config;
