//! A scripted node or client: real sockets, messages as bytes, answers from the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kumo_server::wire::method::{ErrorCode, Method};
use kumo_server::wire::{Message, Scanner, frame};

/// How long a test waits for a message before it fails: longer than a server whose disk hangs takes to end, 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Writes hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// One connection whose messages the test sends and receives itself.
pub(crate) struct Line {
    stream: TcpStream,
    arrived: Vec<u8>,
    /// Number of the last request made with [`Self::request`].
    last: u32,
}

/// What a look at a connection has brought.
pub(crate) enum Look {
    Message(Vec<u8>),
    Nothing,
    Closed,
}

impl Line {
    /// Connects, trying until [`PATIENCE`] is over.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => return Self::over(stream),
                Err(error) if Instant::now() > deadline => panic!("connect {address}: {error}"),
                Err(_) => thread::yield_now(),
            }
        }
    }

    /// Takes over a connected stream.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, arrived: Vec::new(), last: 0 }
    }

    /// Connects if somebody listens.
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).ok().map(Self::over)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("an open connection");
    }

    /// Sends bytes; `None` when the other side has closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    /// The next whole message of a connection that must be open.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        self.try_receive().expect("a message, not the end of the connection")
    }

    /// The next whole message; `None` when the other side has closed.
    pub(crate) fn try_receive(&mut self) -> Option<Vec<u8>> {
        match self.look() {
            Look::Message(message) => Some(message),
            Look::Closed => None,
            Look::Nothing => panic!("no message within {PATIENCE:?}"),
        }
    }

    /// The next whole message, if it comes within `time`.
    pub(crate) fn look_for(&mut self, time: Duration) -> Look {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let look = self.look();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        look
    }

    fn look(&mut self) -> Look {
        loop {
            if let Some(len) = Scanner::new(64 << 20).advance(&self.arrived).expect("a well-formed message") {
                return Look::Message(self.arrived.drain(..len).collect());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Look::Closed,
                Ok(len) => self.arrived.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) => {
                    return Look::Closed;
                }
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                    return Look::Nothing;
                }
                Err(error) => panic!("waiting for a message: {error}"),
            }
        }
    }

    /// Sends a request and returns its number; `None` when the other side has closed.
    pub(crate) fn request(&mut self, method: Method, write: impl FnOnce(&mut Vec<u8>)) -> Option<u32> {
        self.last += 1;
        let mut request = Vec::new();
        frame::request_head(&mut request, self.last, method);
        write(&mut request);
        self.try_send(&request)?;
        Some(self.last)
    }

    /// Calls a method and waits for its answer, passing over what else arrives; `None` when the other side has closed.
    pub(crate) fn try_call(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Result<Vec<u8>, ErrorCode>> {
        let msgid = self.request(method, write)?;
        loop {
            let answer = self.try_receive()?;
            if let Ok(Message::Response(response)) = Message::parse(&answer)
                && response.msgid == msgid
            {
                return Some(response.result.map(<[u8]>::to_vec));
            }
        }
    }

    /// The same on a connection that must stay open.
    pub(crate) fn call(&mut self, method: Method, write: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, ErrorCode> {
        self.try_call(method, write).expect("an answer, not the end of the connection")
    }

    /// The socket, to be closed from elsewhere.
    pub(crate) fn stream(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Sends a request and returns the next message.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        self.receive()
    }
}

/// Makes the result object of a request, as bytes, or leaves it unanswered for now.
pub(crate) type Answers = Box<dyn FnMut(u32, &[u8]) -> Option<Vec<u8>> + Send>;

/// A node of the cluster: accepts connections, answers inits with its own, and requests as told.
pub(crate) struct ScriptedNode {
    heard: Mutex<Receiver<Vec<u8>>>,
    lines: Arc<Mutex<Vec<TcpStream>>>,
}

impl ScriptedNode {
    /// Listens at `address`; `init` is its introduction, `answers` gives the result for each method and parameters.
    pub(crate) fn listen(address: SocketAddr, init: Vec<u8>, answers: Answers) -> Self {
        // The recorded ports are fixed: another run of these tests may have them just now.
        let listener = super::wait_for(&format!("{address} is free"), || TcpListener::bind(address).ok());
        let (sender, heard) = channel();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (accepted, answers) = (lines.clone(), Arc::new(Mutex::new(answers)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.lock().unwrap().push(stream.try_clone().unwrap());
                let (sender, init, answers) = (sender.clone(), init.clone(), answers.clone());
                thread::spawn(move || converse(Line::over(stream), &sender, &init, &answers));
            }
        });
        Self { heard: Mutex::new(heard), lines }
    }

    /// The next message that has arrived for which `wanted` holds; others are passed over.
    pub(crate) fn hear(&self, what: &str, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let heard = self.heard.lock().unwrap();
        loop {
            match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) if wanted(&message) => return message,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("never heard {what}"),
            }
        }
    }

    /// Sends bytes on the latest connection.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.lines.lock().unwrap().last().expect("a connection").write_all(bytes).unwrap();
    }
}

fn converse(mut line: Line, heard: &Sender<Vec<u8>>, init: &[u8], answers: &Mutex<Answers>) {
    line.stream.set_read_timeout(None).unwrap();
    while let Some(bytes) = line.try_receive() {
        match Message::parse(&bytes).expect("a message") {
            Message::Init(_) => line.send(init),
            Message::Request(request) => {
                let result = answers.lock().unwrap()(request.method, request.params);
                if let Some(result) = result {
                    let mut answer = Vec::new();
                    kumo_server::wire::frame::response_head(&mut answer, request.msgid);
                    answer.extend_from_slice(&result);
                    line.send(&answer);
                }
            }
            Message::Response(_) => {}
        }
        if heard.send(bytes).is_err() {
            return;
        }
    }
}
