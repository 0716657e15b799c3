//! Asks every server of a cluster for its state, as JSON.
//!
//! ```text
//! cargo run --example status -- 127.0.0.1:19700
//! ```

use kumo_server::client::{Cluster, Options};
use kumo_server::wire::NodeAddress;
use kumo_server::wire::method::STATUS_JSON;
use kumo_server::wire::unpack::Reader;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:19700".to_owned());
    let cluster = Cluster::connect(vec![NodeAddress::new(manager.parse()?)], Options::default()).await?;
    for server in cluster.servers() {
        let result = cluster.status(server, STATUS_JSON).await?;
        println!("{}", String::from_utf8_lossy(Reader::new(&result).raw()?));
    }
    Ok(())
}
