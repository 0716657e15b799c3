//! The server's role: serves records and keeps its copies.

pub mod config;

pub use config::Config;
