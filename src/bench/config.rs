//! The settings of a run, resolved. Knows no flag names.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::value::KEY_LEN;
use crate::wire::record::{KEY_HEADER, VALUE_HEADER};

/// Bytes that the requests and answers in flight may take in all, at two copies of each.
const BUFFERS_LIMIT: usize = 2 << 30;

/// Bytes of a request or answer beside key and value, at most.
const FRAMING: usize = 64;

/// Most keys: at [`super::ENTRY_LEN`] bytes each, four gigabytes.
pub(crate) const KEYS_LIMIT: u64 = 100_000_000;

/// A run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Config {
    /// Whom to ask.
    pub target: Target,
    /// Connections in all, spread over the servers and the threads.
    pub connections: usize,
    /// Requests that a connection sends before it waits for their answers.
    pub pipeline: usize,
    /// Threads; each serves its share of the connections.
    pub threads: usize,
    /// How often each operation is chosen.
    pub mix: Mix,
    /// Send copies (`ReplicateSet`) as this node of the hash space, instead of what the mix chooses.
    pub replicate_as: Option<SocketAddr>,
    /// Keys in use.
    pub keys: u64,
    /// Which of them are chosen.
    pub distribution: Distribution,
    /// Bytes of a value as an application sees it.
    pub value_size: usize,
    /// Write every key first.
    pub load: bool,
    /// Every key is known to exist, from a load before this run.
    pub loaded: bool,
    /// Time of requests that are checked but not measured, in seconds when serialised.
    #[serde(serialize_with = "seconds")]
    pub warm_up: Duration,
    /// When to end.
    pub extent: Extent,
    /// Report each part of this length by itself too, in seconds when serialised.
    #[serde(serialize_with = "optional_seconds")]
    pub interval: Option<Duration>,
    /// How long an answer may take before its connection is given up, in seconds when serialised.
    #[serde(serialize_with = "seconds")]
    pub timeout: Duration,
    /// Where the random choices start.
    pub seed: u64,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The servers that the first of these managers to answer names, each for the keys that it coordinates.
    Managers(Vec<SocketAddr>),
    /// This server, for every key.
    Server(SocketAddr),
    /// This memcached server or gateway.
    Memcached {
        /// Where it listens.
        address: SocketAddr,
        /// Gets that follow one another in a batch are one command.
        multiget: bool,
    },
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Extent {
    /// After so many requests.
    Requests(u64),
    /// After this time.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    Time(Duration),
}

/// How often each operation is chosen, as parts of their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Mix {
    /// Get.
    pub get: u32,
    /// Set.
    pub set: u32,
    /// Set if the clocktime is the one last seen.
    pub cas: u32,
    /// Delete.
    pub delete: u32,
}

/// Which keys are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Distribution {
    /// All alike.
    Uniform,
    /// The key of rank r in proportion to r to the power of minus this.
    Zipf(f64),
}

/// A mistake in a [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mistake {
    /// Nothing to do.
    #[error("every part of the mix is 0")]
    EmptyMix,
    /// Buffers have a bound.
    #[error("{0} MiB of requests in flight, at most {max} may be: fewer connections, less pipelining or smaller values", max = BUFFERS_LIMIT >> 21)]
    TooMuchInFlight(usize),
    /// A thread without a connection has nothing to do.
    #[error("more threads than connections")]
    IdleThreads,
}

impl Config {
    /// Checks what no single setting can tell.
    pub(crate) fn check(&self) -> Result<(), Mistake> {
        if self.mix.total() == 0 && self.replicate_as.is_none() {
            return Err(Mistake::EmptyMix);
        }
        if self.threads > self.connections {
            return Err(Mistake::IdleThreads);
        }
        let request = self.value_size.saturating_add(KEY_LEN + KEY_HEADER + VALUE_HEADER + FRAMING);
        let in_flight = request.saturating_mul(self.pipeline).saturating_mul(self.connections);
        if in_flight > BUFFERS_LIMIT / 2 {
            return Err(Mistake::TooMuchInFlight(in_flight >> 20));
        }
        Ok(())
    }
}

impl Mix {
    /// The sum of all parts.
    pub(crate) fn total(&self) -> u64 {
        [self.get, self.set, self.cas, self.delete].into_iter().map(u64::from).sum()
    }
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn optional_seconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn config() -> Config {
        Config {
            target: Target::Server("127.0.0.1:1".parse().unwrap()),
            connections: 8,
            pipeline: 16,
            threads: 1,
            mix: Mix { get: 1, set: 1, cas: 0, delete: 0 },
            keys: 1000,
            replicate_as: None,
            distribution: Distribution::Uniform,
            value_size: 100,
            load: false,
            loaded: false,
            warm_up: Duration::ZERO,
            extent: Extent::Requests(1),
            interval: None,
            timeout: Duration::from_secs(5),
            seed: 1,
        }
    }

    #[test]
    fn settings_are_checked_together() {
        assert_eq!(config().check(), Ok(()));
        let nothing = Mix { get: 0, set: 0, cas: 0, delete: 0 };
        assert_eq!(Config { mix: nothing, ..config() }.check(), Err(Mistake::EmptyMix));
        assert_eq!(Config { threads: 9, ..config() }.check(), Err(Mistake::IdleThreads));
        let much = Config { value_size: 16 << 20, ..config() };
        assert_eq!(much.check(), Err(Mistake::TooMuchInFlight(2048)));
        assert_eq!(Config { value_size: 4 << 20, ..config() }.check(), Ok(()));
    }
}
