//! Where keys lie, and how that changes: the hash space of a cluster, followed while a server joins.
//!
//! Every key has a place in the hash space, and every server many; the three servers that follow a key's place hold it.
//! The program starts a small cluster in its own process, so there is nothing to prepare:
//!
//! ```text
//! cargo run --example hash_space
//! ```

use kumo_server::client::{Client, Placement};
use kumo_server::embedded::Cluster;

const KEYS: [&str; 4] = ["apple", "banana", "cherry", "date"];

/// Prints which servers hold the keys. The first of each line is the one that writes go through.
fn print(placement: &Placement) {
    for key in KEYS {
        let owners: Vec<_> = placement.owners(key.as_bytes()).iter().map(ToString::to_string).collect();
        println!("  {key:<7} {}", owners.join(" "));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cluster = Cluster::start(3).await?;
    let client = Client::connect([cluster.manager()]).await?;
    println!("{} servers: each has a copy of every key", client.servers().len());
    print(&client.placement());

    // The manager pushes every change to its clients. Whoever asks for the next one misses none that is still true.
    let mut changes = client.changes();
    let following = tokio::spawn(async move {
        while let Some(placement) = changes.next().await {
            let servers = placement.servers().len();
            // Writes go to the new owners at once; reads follow when the records have been copied.
            if placement.is_changing() {
                println!("{servers} servers: copying");
            } else {
                println!("{servers} servers: settled");
                return;
            }
        }
    });
    cluster.add_server().await?;
    following.await?;

    println!("now every key is on three servers of the {}", client.servers().len());
    print(&client.placement());
    cluster.stop().await;
    Ok(())
}
