//! `delete`: one key.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::parse::{Call, Stop, parse};
use super::tool::{Managers, block_on, failed, not_found};

/// Deletes a key, and ends when every server that owns it knows; exit status 1 if it is not there.
#[derive(Debug, Parser)]
pub(super) struct Args {
    #[command(flatten)]
    managers: Managers,

    /// The key
    key: OsString,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let key = args.key.as_encoded_bytes();
    let deleted = block_on(async { args.managers.connect().await?.delete(key).await.map_err(failed) })?;
    if deleted { Ok(ExitCode::SUCCESS) } else { Err(not_found(key)) }
}
