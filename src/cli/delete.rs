//! `delete`: one key.

use std::process::ExitCode;

use clap::Parser;

use super::args::layout::item;
use super::args::{Call, parse};
use super::exit::Stop;
use super::tool::{KeyArgs, block_on, failed, not_found};

/// Deletes a key, and ends when every server that owns it knows; exit status 1 if it is not there.
#[derive(Debug, Parser)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let key = args.key.bytes();
    let (seen, deleted) = block_on(async {
        let cluster = args.key.managers.connect().await?;
        Ok((cluster.get(key).await.map_err(failed)?, cluster.delete(key).await.map_err(failed)?))
    })?;
    // What has expired is deleted, too, but was not there any more.
    let expired = seen.is_some_and(|value| item(&value, args.key.layout.layout()).is_none());
    if deleted && !expired { Ok(ExitCode::SUCCESS) } else { Err(not_found(key)) }
}
