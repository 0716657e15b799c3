//! kumo-server: the replicated, rebalancing key-value store of kumofs in one binary.
//!
//! The modules form layers; each uses those above it in this list, never those below:
//!
//! 1. [`wire`]: messages, records and addresses as bytes.
//! 2. [`clock`] and [`ring`]: which of two writes is later, and who owns a key.
//! 3. [`store`]: records on disk and in memory.
//! 4. [`net`]: connections, sessions and listeners.
//! 5. [`server`], [`manager`], [`client`]: the roles.
//! 6. [`cli`]: flags, logging, detaching, the tools.
//!
//! `docs/architecture.md` says how they work together.

pub mod clock;
pub mod ring;
pub mod store;
pub mod wire;
