//! Sets a key, reads it back, swaps it, deletes it: the whole client library on one page.
//!
//! It needs a cluster. In one terminal start one, in another run this:
//!
//! ```text
//! cargo run --release -- cluster
//! cargo run --example get_set -- localhost
//! ```

use kumo_server::client::{Client, Swapped};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A client needs to know the managers only, one or two. They know the servers.
    let managers: Vec<String> = std::env::args().skip(1).collect();
    if managers.is_empty() {
        return Err("usage: get_set MANAGER[:PORT] [MANAGER[:PORT]]".into());
    }
    let client = Client::connect(managers).await?;

    // When this returns, three servers have the value, or all if there are fewer. The clocktime names this very write.
    let first = client.set(b"greeting", b"hello").await?;

    match client.get(b"greeting").await? {
        Some(value) => println!("greeting is {}", value.data.escape_ascii()),
        None => println!("somebody has deleted greeting"),
    }

    // A swap is done only if the key still has the clocktime that it is given: nobody has written it since.
    for new in ["goodbye", "too late"] {
        match client.cas(b"greeting", Some(first), new.as_bytes()).await? {
            Swapped::At(_) | Swapped::Overwritten => println!("swapped for {new}"),
            Swapped::Mismatch => println!("not swapped for {new}: another write came first"),
        }
    }

    let deleted = client.delete(b"greeting").await?;
    println!("deleted: {deleted}");
    let deleted = client.delete(b"greeting").await?;
    println!("deleted again: {deleted}");
    Ok(())
}
