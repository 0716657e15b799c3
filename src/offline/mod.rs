//! Stores that no server has open: reading one, checking one, merging several into a new one.
//!
//! ```
//! use kumo_server::offline::Reader;
//! # use kumo_server::{client::Client, embedded::Cluster};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let cluster = Cluster::start_in(folder.path(), 1).await?;
//! # Client::connect([cluster.manager()]).await?.set(b"greeting", b"hello").await?;
//! # let path = cluster.store(0);
//! # cluster.stop().await;
//! // let path = "/var/kumodb.tch";
//! let mut store = Reader::open(path)?;
//! assert_eq!(store.get(b"greeting")?.unwrap().data, b"hello");
//! for record in store.records()? {
//!     let record = record?;
//!     println!("{}: {} bytes", record.key.escape_ascii(), record.data.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Reading changes nothing, neither in the file nor beside it, also when a server was killed and has left a redo log: what
//! the log holds is read with the rest. A store that a server has open is refused, since most recent writes are in that
//! server's memory and log only; a backup of it can be read at any time. The other way round, a server does not start on a
//! store that is being read.
//!
//! A store has the records of one server: all of the cluster's if that has up to three servers, else a part. The store of a
//! server that was down or cut off may lack the latest writes, which the other servers have.

mod check;
mod error;
mod merge;
mod output;
mod progress;
mod read_error;
mod reader;
mod resolve;
mod sorter;
mod source;
mod stream;

pub use read_error::ReadError;
pub use reader::{Reader, Record, Records};

// For the tools `check` and `mergedb`. Files may be stores, backups or Tokyo Cabinet databases, whole or damaged. Nothing is
// ever changed but a new file that gets its name at the end. Memory is bounded, whatever the size of the files.
#[doc(hidden)]
pub use check::{Checked, check};
#[doc(hidden)]
pub use error::Error;
#[doc(hidden)]
pub use merge::{Merged, Policy, SourceReport, merge};
#[doc(hidden)]
pub use output::Format;
#[doc(hidden)]
pub use progress::Progress;
