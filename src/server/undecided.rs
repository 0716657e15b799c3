//! What a restart must find: the writes that other owners are still to have, as the store asks for them.

use std::sync::Arc;

use super::marks::Marks;
use super::unsettled::Unsettled;
use crate::store;
use crate::wire::RecordKey;

/// The writes that are not known to be on all owners.
pub(super) struct Undecided {
    pub(super) marks: Arc<Marks>,
    pub(super) unsettled: Arc<Unsettled>,
}

impl store::Undecided for Undecided {
    fn is_undecided(&self, key: &[u8]) -> bool {
        RecordKey::new(key).is_ok_and(|key| self.marks.is_marked(key.hash()))
    }

    fn left(&self) -> Vec<Box<[u8]>> {
        self.unsettled.keys()
    }
}
