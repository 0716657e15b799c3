//! An application as it reaches the cluster: through a gateway, in memcached's text protocol.

use std::net::SocketAddr;
use std::time::Duration;

use kumo_server::env::{Env, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::history::Value;

/// How long an application waits for the answer of a gateway, or for a gateway to be there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two tries to connect to a gateway.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers after which a write was certainly not done, and never will be.
const UNDONE: [&str; 2] =
    ["SERVER_ERROR no server of this key can be reached", "SERVER_ERROR too much contention, try again"];

/// Why there is no answer that says what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Whether something was done is not known: the connection has ended, or nothing came.
    Lost,
    /// The same, and the gateway has said so.
    Doubtful,
    /// It was refused, and nothing was done.
    Refused,
}

/// A value that was read, with its CAS unique.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) unique: u64,
}

/// Someone who reads and writes, on one connection at a time.
pub(crate) struct Application {
    env: Env,
    gateway: SocketAddr,
    connection: Mutex<Option<Stream>>,
}

/// The numbers that a value carries.
fn numbers(data: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(data);
    text.split(',').map(|number| number.parse().unwrap_or(u64::MAX)).collect()
}

impl Application {
    /// An application on this machine; it connects when it has something to ask.
    pub(crate) fn new(env: Env, gateway: SocketAddr) -> Self {
        Self { env, gateway, connection: Mutex::new(None) }
    }

    /// Reads a key.
    pub(crate) async fn get(&self, key: &str) -> Result<Found, Unanswered> {
        let answer = self.exchange(&format!("gets {key}\r\n"), b"END\r\n").await?;
        let Some(value) = answer.strip_suffix(b"END\r\n") else { return Err(refusal(&answer)) };
        if value.is_empty() {
            return Ok(Found::default());
        }
        let end = value.iter().position(|byte| *byte == b'\n').expect("a line");
        let line = String::from_utf8_lossy(&value[..end]);
        let unique = line.split_whitespace().nth(4).and_then(|unique| unique.parse().ok()).expect("a CAS unique");
        let data = value[end + 1..].strip_suffix(b"\r\n").expect("a value's end");
        Ok(Found { value: Some(numbers(data)), unique })
    }

    /// Writes a key in any case.
    pub(crate) async fn set(&self, key: &str, value: u64) -> Result<(), Unanswered> {
        self.change(&storage("set", key, &value.to_string(), ""), &["STORED"]).await.map(drop)
    }

    /// Deletes a key; says whether there was something.
    pub(crate) async fn delete(&self, key: &str) -> Result<bool, Unanswered> {
        self.change(&format!("delete {key}\r\n"), &["DELETED", "NOT_FOUND"]).await
    }

    /// Writes a key that has no value; says whether it had none.
    pub(crate) async fn add(&self, key: &str, value: u64) -> Result<bool, Unanswered> {
        self.change(&storage("add", key, &value.to_string(), ""), &["STORED", "NOT_STORED"]).await
    }

    /// Writes a key whose CAS unique is still this; says whether it was.
    pub(crate) async fn swap(&self, key: &str, unique: u64, value: u64) -> Result<bool, Unanswered> {
        let request = storage("cas", key, &value.to_string(), &format!(" {unique}"));
        self.change(&request, &["STORED", "EXISTS", "NOT_FOUND"]).await
    }

    /// Appends to a value; says whether there was one.
    pub(crate) async fn append(&self, key: &str, value: u64) -> Result<bool, Unanswered> {
        self.change(&storage("append", key, &format!(",{value}"), ""), &["STORED", "NOT_STORED"]).await
    }

    /// Counts a value up; says what it is then, `None` if there is none.
    pub(crate) async fn count(&self, key: &str, delta: u64) -> Result<Option<u64>, Unanswered> {
        let answer = self.exchange(&format!("incr {key} {delta}\r\n"), b"\r\n").await?;
        let text = String::from_utf8_lossy(&answer);
        match text.trim_end() {
            "NOT_FOUND" => Ok(None),
            number => number.parse().map(Some).map_err(|_| refusal(&answer)),
        }
    }

    /// Whether a change was done: the answer is the first of `known`, all of which say for sure.
    async fn change(&self, request: &str, known: &[&str]) -> Result<bool, Unanswered> {
        let answer = self.exchange(request, b"\r\n").await?;
        let text = String::from_utf8_lossy(&answer);
        known.iter().position(|known| *known == text.trim_end()).map(|place| place == 0).ok_or_else(|| refusal(&answer))
    }

    /// Sends a request and reads its answer, which ends so unless it is an error. A connection that fails is replaced.
    async fn exchange(&self, request: &str, end: &[u8]) -> Result<Vec<u8>, Unanswered> {
        let mut connection = self.connection.lock().await;
        let asking = async {
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => self.connect().await,
            };
            stream.write_all(request.as_bytes()).await.map_err(|_| Unanswered::Lost)?;
            let mut answer = Vec::new();
            let is_error = |answer: &[u8]| answer.starts_with(b"SERVER_ERROR") && answer.ends_with(b"\r\n");
            while !answer.ends_with(end) && !is_error(&answer) {
                if stream.read_buf(&mut answer).await.map_err(|_| Unanswered::Lost)? == 0 {
                    return Err(Unanswered::Lost);
                }
            }
            Ok((stream, answer))
        };
        let (stream, answer) = tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err(Unanswered::Lost))?;
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

/// What an error says of the write that it answers.
fn refusal(answer: &[u8]) -> Unanswered {
    let text = String::from_utf8_lossy(answer);
    if UNDONE.contains(&text.trim_end()) { Unanswered::Refused } else { Unanswered::Doubtful }
}

/// A storage command with its data.
fn storage(command: &str, key: &str, data: &str, unique: &str) -> String {
    format!("{command} {key} 0 0 {}{unique}\r\n{data}\r\n", data.len())
}
