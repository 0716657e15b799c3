//! `get`: one value to stdout, as it is.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::parse::{Call, Stop, parse};
use super::tool::{Managers, block_on, failed, not_found, show};

/// Prints the value of a key, byte for byte; exit status 1 if it is not there.
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
    let found = block_on(async { args.managers.connect().await?.get(key).await.map_err(failed) })?;
    show(&found.ok_or_else(|| not_found(key))?.data)?;
    Ok(ExitCode::SUCCESS)
}
