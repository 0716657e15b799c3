//! The shortest useful program: sets a key, reads it back, swaps it, deletes it.
//!
//! ```text
//! kumo-server cluster &
//! cargo run --example get_set -- 127.0.0.1:19700
//! ```

use kumo_server::client::{Cluster, Options};
use kumo_server::wire::NodeAddress;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:19700".to_owned());
    let cluster = Cluster::connect(vec![NodeAddress::new(manager.parse()?)], Options::default()).await?;

    let first = cluster.set(b"greeting", 0, b"hello").await?;
    println!("set at {first}");
    if let Some(value) = cluster.get(b"greeting").await? {
        println!("got {}", value.data.escape_ascii());
    }
    // A swap succeeds only on the clocktime it names.
    println!("swapped: {}", cluster.cas(b"greeting", first, 0, b"goodbye").await?.is_some());
    println!("swapped again: {}", cluster.cas(b"greeting", first, 0, b"too late").await?.is_some());
    println!("deleted: {}", cluster.delete(b"greeting").await?);
    Ok(())
}
