//! `get`: one value to stdout, without the header that gateways keep in front of it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::args::layout::{LayoutArgs, item};
use super::args::{Call, parse};
use super::exit::Stop;
use super::tool::{Managers, block_on, failed, not_found, show};

/// Prints the value of a key, byte for byte; exit status 1 if it is not there.
#[derive(Debug, Parser)]
pub(super) struct Args {
    #[command(flatten)]
    managers: Managers,

    #[command(flatten)]
    layout: LayoutArgs,

    /// The key
    key: OsString,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let key = args.key.as_encoded_bytes();
    let found = block_on(async { args.managers.connect().await?.get(key).await.map_err(failed) })?;
    let item = found.as_ref().and_then(|value| item(value, args.layout.layout()));
    show(item.ok_or_else(|| not_found(key))?)?;
    Ok(ExitCode::SUCCESS)
}
