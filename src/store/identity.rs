//! Which store a file is: a number of its own.

use std::hash::{BuildHasher, RandomState};

/// A number that no two stores share, from what the system has of chance.
pub(super) fn random_id() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
