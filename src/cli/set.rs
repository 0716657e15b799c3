//! `set`: one value, from the command line or from stdin.

use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

use clap::Parser;

use super::args::{Call, parse};
use super::exit::Stop;
use super::tool::{KeyArgs, block_on, failed};
use crate::gateway::layout::Layout;
use crate::wire::MESSAGE_LIMIT;

/// Bytes that key and message take beside the value.
const MARGIN: usize = 128 << 10;
/// Expiry of what does not expire.
const NEVER: u32 = 0;
/// An application's flags when there is no application.
const NO_FLAGS: u32 = 0;

/// Sets a key, and ends when every server that owns it has it.
#[derive(Debug, Parser)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,

    /// The value; without it, all of stdin
    value: Option<OsString>,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    if args.key.bytes().is_empty() {
        return Err(Stop::Usage("the key is empty: memcached clients could not read it".to_owned()));
    }
    let value = match args.value {
        Some(value) => value.into_encoded_bytes(),
        None => read_stdin()?,
    };
    let key = args.key.bytes();
    if key.len() + value.len() > MESSAGE_LIMIT - MARGIN {
        let limit = (MESSAGE_LIMIT - MARGIN) >> 10;
        return Err(Stop::Failed(format!("key and value have more than {limit} KiB, the most that servers take")));
    }
    // Without the flags that say how gateways store values, it writes none of their headers, and the record says so.
    let (meta, layout) = match args.key.layout.given() {
        Some(layout) => (layout.meta(), layout),
        None => (Layout::BARE.named(), Layout::BARE),
    };
    let mut data = Vec::with_capacity(layout.length() + value.len());
    layout.write(&mut data, NEVER, NO_FLAGS);
    data.extend_from_slice(&value);
    block_on(async { args.key.managers.connect().await?.set_with_meta(key, meta, &data).await.map_err(failed) })?;
    Ok(ExitCode::SUCCESS)
}

fn read_stdin() -> Result<Vec<u8>, Stop> {
    let mut value = Vec::new();
    let limit = u64::try_from(MESSAGE_LIMIT).unwrap_or(u64::MAX);
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut value);
    read.map_err(|error| Stop::Failed(format!("stdin: {error}")))?;
    Ok(value)
}
