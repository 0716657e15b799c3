//! Work on files that no server has open: merging several into a new store, checking one.
//!
//! Files may be stores, backups or Tokyo Cabinet databases, whole or damaged. Nothing is ever changed but a new file
//! that gets its name at the end. Memory is bounded, whatever the size of the files. Knows no flags and no terminal:
//! progress goes to a [`Progress`].

mod check;
mod error;
mod merge;
mod output;
mod progress;
mod resolve;
mod sorter;
mod source;
mod stream;

pub use check::{Checked, check};
pub use error::Error;
pub use merge::{Merged, Policy, SourceReport, merge};
pub use output::Format;
pub use progress::Progress;
