//! A counter that many programs increment at the same time, and that loses no increment: read, add one, and write only if
//! nobody else has written meanwhile (compare-and-swap, CAS).
//!
//! ```text
//! cargo run --release -- cluster                  # in another terminal
//! cargo run --example counter -- localhost        # again, and several at a time
//! ```

use kumo_server::client::{Client, ClockTime, Error, Swapped};

/// Tasks that count at the same time.
const TASKS: u64 = 4;
/// Increments of each.
const INCREMENTS: u64 = 25;

/// The counter's number and the clocktime of the write that made it; zero and `None` if there is no counter yet.
async fn read(
    client: &Client,
    key: &[u8],
) -> Result<(u64, Option<ClockTime>), Box<dyn std::error::Error + Send + Sync>> {
    Ok(match client.get(key).await? {
        Some(value) => (std::str::from_utf8(&value.data)?.parse()?, Some(value.clocktime)),
        None => (0, None),
    })
}

/// Adds one; returns how many tries it took.
async fn increment(client: &Client, key: &[u8]) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (count, clocktime) = read(client, key).await?;
        // With `None` the swap is done only if the key is not there: two who begin to count do not overwrite each other.
        match client.cas(key, clocktime, (count + 1).to_string().as_bytes()).await {
            Ok(Swapped::At(_) | Swapped::Overwritten) => return Ok(tries),
            // Somebody else was faster: read what they have written, and add to that.
            Ok(Swapped::Mismatch) => {}
            // It may have been done: trying again could count twice. A program decides for itself what is worse.
            Err(error) if error.may_be_done() => return Err(error.into()),
            // It was certainly not done.
            Err(Error::NoServer | Error::Server(..)) if tries < 10 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let manager = std::env::args().nth(1).ok_or("usage: counter MANAGER[:PORT]")?;
    let client = Client::connect([manager]).await?;
    let (before, _) = read(&client, b"counter").await?;
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        // A clone is the same client: it shares the connections.
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let mut tries = 0;
            for _ in 0..INCREMENTS {
                tries += increment(&client, b"counter").await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(tries)
        }));
    }
    let mut tries = 0;
    for task in tasks {
        tries += task.await??;
    }
    let (after, _) = read(&client, b"counter").await?;
    println!("{} increments took {tries} tries", TASKS * INCREMENTS);
    println!("the counter went from {before} to {after}");
    Ok(())
}
