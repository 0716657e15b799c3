//! One end of a connection as a script holds it: whole messages out, whole messages in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kumo_server::wire::method::Method;
use kumo_server::wire::{Message, Scanner, frame};

use super::{PATIENCE, wait_for};

/// A connection to a node under test.
pub(crate) struct Peer {
    stream: TcpStream,
    scanner: Scanner,
    bytes: Vec<u8>,
    last: u32,
}

impl Peer {
    /// Connects, as soon as somebody listens.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(wait_for(&format!("a listener on {address}"), || TcpStream::connect(address).ok()))
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self { stream, scanner: Scanner::new(64 << 20), bytes: Vec::new(), last: 0 }
    }

    /// The socket, for closing it from elsewhere.
    pub(crate) fn stream(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket")
    }

    /// Sends bytes; `false` if the other side is gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next message; `None` when the other side has closed. Fails after [`PATIENCE`].
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.receive_within(Duration::from_millis(100)) {
                Received::Message(message) => return Some(message),
                Received::Closed => return None,
                Received::Nothing => assert!(Instant::now() < deadline, "no message within {PATIENCE:?}"),
            }
        }
    }

    /// The next message, if one comes in time.
    pub(crate) fn receive_within(&mut self, time: Duration) -> Received {
        self.stream.set_read_timeout(Some(time)).expect("a socket");
        loop {
            if let Some(len) = self.scanner.advance(&self.bytes).expect("a message") {
                return Received::Message(self.bytes.drain(..len).collect());
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Received::Closed,
                Ok(len) => self.bytes.extend_from_slice(&buffer[..len]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Received::Nothing;
                }
                Err(_) => return Received::Closed,
            }
        }
    }

    /// Sends a request and returns its number.
    pub(crate) fn request(&mut self, method: Method, params: impl FnOnce(&mut Vec<u8>)) -> u32 {
        self.last += 1;
        let mut out = Vec::new();
        frame::request_head(&mut out, self.last, method);
        params(&mut out);
        self.send(&out);
        self.last
    }

    /// Calls a method and waits for its answer: the result's bytes, or the error. Other messages are dropped.
    #[track_caller]
    pub(crate) fn call(&mut self, method: Method, params: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, u32> {
        let msgid = self.request(method, params);
        loop {
            let message = self.receive().expect("an answer before the connection closes");
            if let Message::Response(response) = Message::parse(&message).expect("a message")
                && response.msgid == msgid
            {
                return response.result.map(<[u8]>::to_vec).map_err(kumo_server::wire::method::ErrorCode::number);
            }
        }
    }
}

/// What a look at a connection has brought.
pub(crate) enum Received {
    Message(Vec<u8>),
    Nothing,
    Closed,
}
