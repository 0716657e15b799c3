//! The daemons: flags, letter for letter as in 2010, and the settings they resolve to. Every check of a flag is here.

mod common;
pub(super) mod gateway;
pub(super) mod manager;
pub(super) mod server;
