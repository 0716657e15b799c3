//! Records in the store's order, from one source or merged from several.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::error::Error;
use crate::store::at_rest::tree_order;

/// A record on its way, or the mark that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Raw key.
    pub(super) key: Box<[u8]>,
    /// Which source it comes from.
    pub(super) source: usize,
    /// Its place among those of the same key and source.
    pub(super) order: u64,
    /// Raw value or tombstone; `None`: the source has no such record any more.
    pub(super) value: Option<Vec<u8>>,
}

impl Item {
    fn compare(&self, other: &Self) -> Ordering {
        tree_order(&self.key, &other.key).then((self.source, self.order).cmp(&(other.source, other.order)))
    }
}

/// Items by key, then source, then order.
pub(super) trait Stream {
    fn next_item(&mut self) -> Result<Option<Item>, Error>;
}

/// Several streams as one.
pub(super) struct Merge<'a> {
    streams: Vec<Box<dyn Stream + 'a>>,
    heads: BinaryHeap<Head>,
}

/// The next item of a stream; the first of all is the greatest, as the heap wants it.
struct Head {
    item: Item,
    stream: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.item.compare(&self.item)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl<'a> Merge<'a> {
    pub(super) fn new(streams: Vec<Box<dyn Stream + 'a>>) -> Result<Self, Error> {
        let mut merge = Self { heads: BinaryHeap::with_capacity(streams.len()), streams };
        for stream in 0..merge.streams.len() {
            merge.refill(stream)?;
        }
        Ok(merge)
    }

    fn refill(&mut self, stream: usize) -> Result<(), Error> {
        if let Some(source) = self.streams.get_mut(stream)
            && let Some(item) = source.next_item()?
        {
            self.heads.push(Head { item, stream });
        }
        Ok(())
    }
}

impl Stream for Merge<'_> {
    fn next_item(&mut self) -> Result<Option<Item>, Error> {
        let Some(Head { item, stream }) = self.heads.pop() else { return Ok(None) };
        self.refill(stream)?;
        Ok(Some(item))
    }
}
