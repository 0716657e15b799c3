//! How to test a program that uses a cluster: with a real one of three servers, in the process of the test.
//!
//! ```text
//! cargo run --example embedded
//! ```
//!
//! In a test, `main` would be a `#[tokio::test]`, and the lines that print would be assertions.

use std::time::Duration;

use kumo_server::client::{Client, Error, Options};
use kumo_server::embedded::Cluster;

/// The program under test: notes the last visit of a user, and returns the one before.
async fn visit(client: &Client, user: &str, time: &str) -> Result<Option<String>, Error> {
    let key = format!("visit:{user}");
    let before = client.get(key.as_bytes()).await?;
    client.set(key.as_bytes(), time.as_bytes()).await?;
    Ok(before.map(|value| String::from_utf8_lossy(&value.data).into_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A manager and three servers, on ports that are free, with their files in a temporary folder. Ready when it returns.
    let cluster = Cluster::start(3).await?;
    // What cannot be done fails after a second here, so that the end does not take long.
    let options = Options { deadline: Duration::from_secs(1), ..Options::default() };
    let client = Client::connect_with([cluster.manager()], options).await?;

    println!("first visit, before: {:?}", visit(&client, "ann", "monday").await?);
    println!("second visit, before: {:?}", visit(&client, "ann", "tuesday").await?);

    // A test can also try what happens when servers go. Two of three copies are lost here, one stays.
    cluster.stop_server(0).await?;
    cluster.stop_server(1).await?;
    println!("with one server left, before: {:?}", visit(&client, "ann", "wednesday").await?);

    // Without any server, every operation ends with an error when the deadline is over.
    cluster.stop_server(2).await?;
    println!("with none left, an error: {}", visit(&client, "ann", "thursday").await.is_err());

    // Dropping the cluster would stop it, too; its files are removed.
    cluster.stop().await;
    Ok(())
}
