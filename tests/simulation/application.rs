//! An application as it reaches the cluster: by its protocol, or through a gateway in memcached's text protocol.

use std::net::SocketAddr;
use std::time::Duration;

use kumo_server::client::{self, Swapped};
use kumo_server::clock::ClockTime;
use kumo_server::env::{Env, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

/// How long an application waits for the answer of a gateway, or for a gateway to be there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two tries to connect to a gateway.
const PAUSE: Duration = Duration::from_millis(50);

/// Not answered, or by an error: whether something was done is not known.
#[derive(Debug)]
pub(crate) struct Unanswered;

/// A value that was read, with its CAS unique; `None`: there is none.
pub(crate) type Found = Option<(u64, ClockTime)>;

/// Someone who reads and writes.
pub(crate) enum Application {
    /// A client of the cluster.
    Cluster(client::Client),
    /// A client of a gateway.
    Gateway(Memcached),
}

/// The number that a value carries.
pub(crate) fn value_of(data: &[u8]) -> u64 {
    data.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Application {
    /// Reads a key.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Found, Unanswered> {
        match self {
            Self::Cluster(cluster) => {
                let found = cluster.get(key).await.map_err(|_| Unanswered)?;
                Ok(found.map(|found| (value_of(&found.data), found.clocktime)))
            }
            Self::Gateway(gateway) => gateway.get(key).await,
        }
    }

    /// Writes a key in any case.
    pub(crate) async fn set(&self, key: &[u8], value: u64) -> Result<(), Unanswered> {
        let data = value.to_be_bytes();
        match self {
            Self::Cluster(cluster) => cluster.set(key, &data).await.map(drop).map_err(|_| Unanswered),
            Self::Gateway(gateway) => gateway.change(&storage("set", key, &data, None), &["STORED"]).await.map(drop),
        }
    }

    /// Deletes a key.
    pub(crate) async fn delete(&self, key: &[u8]) -> Result<(), Unanswered> {
        match self {
            Self::Cluster(cluster) => cluster.delete(key).await.map(drop).map_err(|_| Unanswered),
            Self::Gateway(gateway) => {
                let request = [b"delete ", key, b"\r\n"].concat();
                gateway.change(&request, &["DELETED", "NOT_FOUND"]).await.map(drop)
            }
        }
    }

    /// Writes a key whose CAS unique is still this, `None` if there is still no value; says whether it was.
    pub(crate) async fn swap(&self, key: &[u8], unique: Option<ClockTime>, value: u64) -> Result<bool, Unanswered> {
        let data = value.to_be_bytes();
        match (self, unique) {
            (Self::Cluster(cluster), unique) => {
                let swapped = cluster.cas(key, unique, &data).await;
                swapped.map(|swapped| swapped != Swapped::Mismatch).map_err(|_| Unanswered)
            }
            (Self::Gateway(gateway), None) => {
                gateway.change(&storage("add", key, &data, None), &["STORED", "NOT_STORED"]).await
            }
            (Self::Gateway(gateway), unique) => {
                gateway.change(&storage("cas", key, &data, unique), &["STORED", "EXISTS", "NOT_FOUND"]).await
            }
        }
    }
}

/// A storage command with its data.
fn storage(command: &str, key: &[u8], data: &[u8], unique: Option<ClockTime>) -> Vec<u8> {
    let unique = unique.map(|unique| format!(" {}", unique.0)).unwrap_or_default();
    let line = format!(" 0 0 {}{unique}\r\n", data.len());
    [command.as_bytes(), b" ", key, line.as_bytes(), data, b"\r\n"].concat()
}

/// A client of a gateway, on one connection at a time.
pub(crate) struct Memcached {
    env: Env,
    gateway: SocketAddr,
    connection: Mutex<Option<Stream>>,
}

impl Memcached {
    /// A client on this machine; it connects when it has something to ask.
    pub(crate) fn new(env: Env, gateway: SocketAddr) -> Self {
        Self { env, gateway, connection: Mutex::new(None) }
    }

    async fn get(&self, key: &[u8]) -> Result<Found, Unanswered> {
        let answer = self.exchange(&[b"gets ", key, b"\r\n"].concat(), b"END\r\n").await?;
        let Some(value) = answer.strip_suffix(b"END\r\n") else { return Err(Unanswered) };
        if value.is_empty() {
            return Ok(None);
        }
        let end = value.iter().position(|byte| *byte == b'\n').expect("a line");
        let line = String::from_utf8_lossy(&value[..end]);
        let unique = line.split_whitespace().nth(4).and_then(|unique| unique.parse().ok()).expect("a CAS unique");
        Ok(Some((value_of(&value[end + 1..]), ClockTime(unique))))
    }

    /// Whether a change was done: the answer is the first of `known`, all of which say for sure.
    async fn change(&self, request: &[u8], known: &[&str]) -> Result<bool, Unanswered> {
        let answer = self.exchange(request, b"\r\n").await?;
        let answer = String::from_utf8_lossy(&answer);
        known.iter().position(|known| *known == answer.trim_end()).map(|place| place == 0).ok_or(Unanswered)
    }

    /// Sends a request and reads its answer, which ends so unless it is an error. A connection that fails is replaced.
    async fn exchange(&self, request: &[u8], end: &[u8]) -> Result<Vec<u8>, Unanswered> {
        let mut connection = self.connection.lock().await;
        let asking = async {
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => self.connect().await,
            };
            stream.write_all(request).await.map_err(|_| Unanswered)?;
            let mut answer = Vec::new();
            let is_error = |answer: &[u8]| answer.starts_with(b"SERVER_ERROR") && answer.ends_with(b"\r\n");
            while !answer.ends_with(end) && !is_error(&answer) {
                if stream.read_buf(&mut answer).await.map_err(|_| Unanswered)? == 0 {
                    return Err(Unanswered);
                }
            }
            Ok((stream, answer))
        };
        let (stream, answer) = tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err(Unanswered))?;
        *connection = Some(stream);
        Ok(answer)
    }

    async fn connect(&self) -> Stream {
        loop {
            match self.env.connect(self.gateway, PATIENCE).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
