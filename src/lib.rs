//! kumo-server is the storage daemon of kumofs: a replicated, rebalancing key-value store. Most use its binary, which is the
//! server, the manager, the memcached gateway and all tools. This library is for programs in Rust:
//!
//! - [`client`] reads, writes, swaps and deletes keys on a cluster,
//! - [`embedded`] is a whole cluster in the process of a test,
//! - [`offline`] reads a server's file without a server.
//!
//! ```
//! use kumo_server::client::Client;
//! use kumo_server::embedded::Cluster;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A manager and three servers in this process. To use a cluster that runs, name its managers: Client::connect(["mgr1"]).
//! let cluster = Cluster::start(3).await?;
//! let client = Client::connect([cluster.manager()]).await?;
//!
//! client.set(b"greeting", b"hello").await?;
//! let value = client.get(b"greeting").await?.expect("it was set");
//! assert_eq!(value.data, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! The programs in `examples/` teach these three, one step each. [`client::promises`] says what a cluster promises, and what
//! it does not.
//!
//! # Inside
//!
//! All other modules are the program's own, and change without notice. They form layers; each uses modules of the layers
//! above it in this list, never its own layer or those below:
//!
//! 1. [`time`], [`rules`]: where time comes from; the rules that a simulation can leave out.
//! 2. [`clock`]: which of two writes is later.
//! 3. [`wire`]: messages, records and addresses as bytes.
//! 4. [`ring`]: who owns a key.
//! 5. [`store`], [`binlog`], [`tokyo`], [`mod@register`]: records on disk and in memory; the binary log; the files of 2010; who
//!    decides the cluster's configuration.
//! 6. [`mod@env`]: the machine that a role runs on: time, chance, tasks, the network.
//! 7. [`net`]: connections, sessions and listeners.
//! 8. [`client`]: requests as a client of the cluster, routed to the servers.
//! 9. [`server`], [`manager`], [`gateway`], [`mod@bench`], [`offline`]: the roles; the load generator; stores at rest.
//! 10. [`embedded`]: a whole cluster in one process.
//! 11. [`logging`]: where log lines go.
//! 12. [`life`]: detaching, signals, the end of a process.
//! 13. [`cli`]: flags and the tools.
//!
//! `docs/architecture.md` says how they work together.

// Roles take time, chance, tasks and the network from their `Env`: a simulation has another one. `.clippy.toml` lists what
// they do not call.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod client;
pub mod embedded;
pub mod offline;

// Used by the binary, by tests/, benches/ and examples/, and by nobody else.
#[doc(hidden)]
pub mod binlog;
#[doc(hidden)]
#[allow(clippy::disallowed_methods, reason = "no role: tools run on this machine only")]
pub mod cli;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
#[allow(clippy::disallowed_methods, reason = "the one place that asks the machine")]
pub mod env;
#[doc(hidden)]
pub mod gateway;
#[doc(hidden)]
#[allow(clippy::disallowed_methods, reason = "no role: the life of this process")]
pub mod life;
#[doc(hidden)]
#[allow(clippy::disallowed_methods, reason = "no role: the log of this process")]
pub mod logging;
#[doc(hidden)]
pub mod manager;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod register;
#[doc(hidden)]
pub mod ring;
#[doc(hidden)]
pub mod rules;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
#[allow(clippy::disallowed_methods, reason = "the one place that asks the machine's clocks")]
pub mod time;
#[doc(hidden)]
pub mod wire;

// Used by the library alone.
#[allow(clippy::disallowed_methods, reason = "no role: it measures this machine")]
mod bench;
mod tokyo;
