//! Code that the tools share: how they are listed, how they ask nodes, what they print, and how signals end them.

pub(super) mod date;
mod failure;
mod interrupt;
mod nodes;
mod output;
mod progress;
mod runtime;
pub(super) mod space;
mod table;

pub(super) use failure::{failed, not_found, reason};
pub(super) use interrupt::Interrupt;
pub(super) use nodes::{Cluster, KeyArgs, ask_all, manager, server};
pub(super) use output::{json, json_text, show, write_files};
pub(super) use progress::Bar;
pub(super) use runtime::block_on;
pub(super) use table::{Run, SERVER, Tool, help, names, version};
