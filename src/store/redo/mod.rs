//! The redo log: every write that is not yet in the main tree, in the order in which it was decided.
//!
//! It knows bytes, files and sequence numbers, and nothing of caches, trees or clocks. Its files are
//! `<store>.redo.<number>`, numbered from 1.

mod file;
mod format;
mod log;
mod recover;
mod rotation;
#[cfg(test)]
mod tests;

pub(super) use file::RedoOptions;
pub(super) use format::{Entry, Kind, ReadEntry};
pub(super) use log::{Append, Redo};
pub(super) use recover::{list, recover};
