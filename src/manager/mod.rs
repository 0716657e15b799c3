//! The manager's role: knows the servers and owns the hash space.

mod auto;
pub mod config;
mod pulse;
mod replace;
mod spaces;
mod state;

pub use config::Config;
