//! The offerer's side of a stream: a file into a connection, signs of life and the acknowledgement out of it.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::encode::Chunk;
use super::format::{Error, NIL, SIGN};
use crate::env::{Env, Stream};

/// Bytes read from the file at a time.
const BLOCK: u64 = 256 << 10;
/// Signs of life beyond what the records call for that a target may send without being taken for a babbler.
const EXTRA_SIGNS: u64 = 64;

/// Sends `chunk` and waits until the target has acknowledged it; no progress in either direction for `silence` is an
/// error.
pub async fn send(env: &Env, stream: Stream, chunk: &Arc<Chunk>, silence: Duration) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut signs_left = chunk.records.saturating_add(EXTRA_SIGNS);
    let mut block = Vec::new();
    let (mut block_sent, mut read_to) = (0, 0);
    let mut incoming = [0; 256];
    let mut progress = Instant::now();
    loop {
        if block_sent == block.len() && read_to < chunk.bytes {
            block = read_block(env, chunk.clone(), read_to).await?;
            read_to += block.len() as u64;
            block_sent = 0;
        }
        let unsent = block.get(block_sent..).unwrap_or_default();
        tokio::select! {
            biased;
            len = read.read(&mut incoming) => {
                let signs = incoming.get(..len?).unwrap_or_default();
                if signs.is_empty() {
                    return Err(Error::Truncated);
                }
                for sign in signs {
                    match *sign {
                        SIGN if signs_left > 0 => signs_left -= 1,
                        NIL if unsent.is_empty() => return Ok(()),
                        other => return Err(Error::Unexpected(other)),
                    }
                }
            }
            len = write.write(unsent), if !unsent.is_empty() => block_sent += len?,
            () = tokio::time::sleep_until(progress + silence) => return Err(Error::Silent(silence)),
        }
        progress = Instant::now();
    }
}

/// Reads the next bytes of the file away from the network threads: it may have to come from the disk.
async fn read_block(env: &Env, chunk: Arc<Chunk>, from: u64) -> Result<Vec<u8>, Error> {
    let len = usize::try_from(BLOCK.min(chunk.bytes - from)).unwrap_or_default();
    let read = env.blocking(move || {
        let mut block = vec![0; len];
        chunk.file.read_exact_at(&mut block, from).map(|()| block)
    });
    match read.await {
        Ok(block) => block.map_err(Error::File),
        Err(gone) => Err(Error::File(io::Error::other(gone))),
    }
}
