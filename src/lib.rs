//! kumo-server: the replicated, rebalancing key-value store of kumofs in one binary.
//!
//! The modules form layers; each uses modules of the layers above it in this list, never its own layer or those below:
//!
//! 1. [`time`]: where time comes from.
//! 2. [`clock`]: which of two writes is later.
//! 3. [`wire`]: messages, records and addresses as bytes.
//! 4. [`ring`]: who owns a key.
//! 5. [`store`], [`binlog`], [`tokyo`]: records on disk and in memory; the binary log; the files of 2010.
//! 6. [`mod@env`]: the machine that a role runs on: time, chance, tasks, the network.
//! 7. [`net`]: connections, sessions and listeners.
//! 8. [`client`]: requests as a client of the cluster, routed to the servers.
//! 9. [`server`], [`manager`], [`gateway`], [`mod@bench`], [`offline`]: the roles; the load generator; stores at rest.
//! 10. [`logging`]: where log lines go.
//! 11. [`life`]: detaching, signals, the end of a process.
//! 12. [`cli`]: flags and the tools.
//!
//! `docs/architecture.md` says how they work together.

pub mod bench;
pub mod binlog;
pub mod cli;
pub mod client;
pub mod clock;
pub mod env;
pub mod gateway;
pub mod life;
pub mod logging;
pub mod manager;
pub mod net;
pub mod offline;
pub mod ring;
pub mod server;
pub mod store;
pub mod time;
pub mod tokyo;
pub mod wire;
