//! The gateway: memcached clients on one side, a cluster on the other.
//!
//! [`protocol`] turns bytes into tasks and outcomes into bytes; [`change`] decides what a task does to a record;
//! [`item`] is how a record's data is laid out. These know neither sockets nor the cluster.

pub mod change;
pub mod item;
pub mod outcome;
pub mod protocol;

#[cfg(test)]
mod bed;
