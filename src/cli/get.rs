//! `get`: one value to stdout, without the header that gateways keep in front of it.

use std::process::ExitCode;

use clap::Parser;

use super::args::layout::item;
use super::args::{Call, parse};
use super::exit::Stop;
use super::tool::{KeyArgs, block_on, failed, not_found, show};

/// Prints the value of a key, byte for byte; exit status 1 if it is not there.
#[derive(Debug, Parser)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let key = args.key.bytes();
    let found = block_on(async { args.key.managers.connect().await?.get(key).await.map_err(failed) })?;
    let item = found.as_ref().and_then(|value| item(value, args.key.layout.layout()));
    show(item.ok_or_else(|| not_found(key))?)?;
    Ok(ExitCode::SUCCESS)
}
