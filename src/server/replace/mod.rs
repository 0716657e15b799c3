//! Rebalancing.

pub mod plan;
