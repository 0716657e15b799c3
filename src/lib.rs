//! kumo-server: the replicated, rebalancing key-value store of kumofs in one binary.
//!
//! The modules form layers; each uses those above it in this list, never those below:
//!
//! 1. [`time`]: where time comes from; [`clock`]: which of two writes is later; [`env`]: the machine that a role runs on.
//! 2. [`wire`]: messages, records and addresses as bytes; [`ring`]: who owns a key.
//! 3. [`store`]: records on disk and in memory; [`binlog`]: the binary log; [`tokyo`]: the files of 2010.
//! 4. [`net`]: connections, sessions and listeners.
//! 5. [`server`], [`manager`], [`client`], [`gateway`]: the roles; [`mod@bench`]: the load generator.
//! 6. [`logging`], [`life`]: where log lines go; detaching, signals, the end of a process. They know no role.
//! 7. [`cli`]: flags and the tools.
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
