//! A server that stores nothing but plays its part towards managers: connects, keeps alive, copies and deletes. Or a manager
//! that decides nothing. Neither knows of votes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kumo_server::wire::method::{self, ErrorCode, Method, Role};
use kumo_server::wire::params::{self, Encode as _, Seed};
use kumo_server::wire::{Init, Message, NodeAddress, Request, frame, pack};

use super::scripted::{Line, Look};
use super::{Port, wait_for};

/// Pause between keep-alives, and between tries to find a manager.
const BEAT: Duration = Duration::from_millis(50);

/// A scripted server on a port of its own. Ends when dropped.
pub(crate) struct FakeServer {
    pub(crate) port: Port,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: NodeAddress,
    role: Role,
    stopping: AtomicBool,
    /// Answers nothing and says nothing.
    hung: AtomicBool,
    /// Copies without ever reporting the end.
    endless: AtomicBool,
    spaces: Mutex<(Seed, Seed)>,
    heard: Mutex<Vec<(Method, Vec<u8>)>>,
    streams: Mutex<Vec<TcpStream>>,
}

impl FakeServer {
    /// A server that knows no hash space.
    pub(crate) fn start(managers: &[SocketAddr]) -> Self {
        Self::start_on(Port::reserve(), managers, (Seed::default(), Seed::default()))
    }

    /// A server that holds these hash spaces, for writing and for reading.
    pub(crate) fn start_on(port: Port, managers: &[SocketAddr], spaces: (Seed, Seed)) -> Self {
        Self::start_as(Role::Server, port, managers, spaces)
    }

    /// A manager that its partner and servers dial, with these hash spaces.
    pub(crate) fn manager(port: Port, spaces: (Seed, Seed)) -> Self {
        Self::start_as(Role::Manager, port, &[], spaces)
    }

    fn start_as(role: Role, port: Port, managers: &[SocketAddr], spaces: (Seed, Seed)) -> Self {
        let shared = Arc::new(Shared {
            address: NodeAddress::new(port.address()),
            role,
            stopping: AtomicBool::new(false),
            hung: AtomicBool::new(false),
            endless: AtomicBool::new(false),
            spaces: Mutex::new(spaces),
            heard: Mutex::default(),
            streams: Mutex::default(),
        });
        let listener = wait_for("the port of a server that has ended", || TcpListener::bind(port.address()).ok());
        listener.set_nonblocking(true).expect("a listener");
        let mut threads = vec![spawn(&shared, move |shared| accept(&listener, shared))];
        for manager in managers.iter().copied() {
            threads.push(spawn(&shared, move |shared| dial(manager, shared)));
        }
        Self { port, shared, threads }
    }

    pub(crate) fn address(&self) -> NodeAddress {
        self.shared.address
    }

    /// The hash spaces that it holds, for writing and for reading.
    pub(crate) fn spaces(&self) -> (Seed, Seed) {
        self.shared.spaces.lock().unwrap().clone()
    }

    /// From now on it holds these, whatever its manager has sent.
    pub(crate) fn set_spaces(&self, spaces: (Seed, Seed)) {
        *self.shared.spaces.lock().unwrap() = spaces;
    }

    /// The parameters of every request of this method so far.
    pub(crate) fn heard(&self, method: Method) -> Vec<Vec<u8>> {
        let heard = self.shared.heard.lock().unwrap();
        heard.iter().filter(|(other, _)| *other == method).map(|(_, params)| params.clone()).collect()
    }

    /// From now on it answers nothing and says nothing, though its connections stand; or it does again.
    pub(crate) fn hang(&self, hung: bool) {
        self.shared.hung.store(hung, Ordering::SeqCst);
    }

    /// From now on its copying never ends; or it does again.
    pub(crate) fn copy_endlessly(&self, endless: bool) {
        self.shared.endless.store(endless, Ordering::SeqCst);
    }

    /// Dies; the port and the hash spaces that it held are left.
    pub(crate) fn kill(mut self) -> (Port, (Seed, Seed)) {
        self.stop();
        let spaces = self.spaces();
        let port = std::mem::replace(&mut self.port, Port::reserve());
        (port, spaces)
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for stream in self.shared.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the fake server failed");
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(shared: &Arc<Shared>, work: impl FnOnce(&Arc<Shared>) + Send + 'static) -> JoinHandle<()> {
    let shared = shared.clone();
    std::thread::spawn(move || work(&shared))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut serving = Vec::new();
    while !shared.is_stopping() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("a socket");
                serving.push(spawn(shared, |shared| shared.serve(Line::over(stream), false)));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    for thread in serving {
        thread.join().expect("a connection of the fake server");
    }
}

fn dial(manager: SocketAddr, shared: &Arc<Shared>) {
    while !shared.is_stopping() {
        if !shared.hung.load(Ordering::SeqCst)
            && let Ok(stream) = TcpStream::connect(manager)
        {
            shared.serve(Line::over(stream), true);
        }
        std::thread::sleep(BEAT);
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn init(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Init { address: self.address, role: self.role }.write(&mut out);
        out
    }

    fn serve(&self, mut line: Line, dialled: bool) {
        self.streams.lock().unwrap().push(line.stream());
        if dialled {
            line.try_send(&self.init());
        }
        while !self.is_stopping() {
            match line.look_for(BEAT) {
                Look::Closed => return,
                Look::Nothing => {
                    if dialled && !self.hung.load(Ordering::SeqCst) {
                        line.request(Method::KeepAlive, |out| {
                            method::KeepAlive { clock: 1, extension: None }.encode(out);
                        });
                    }
                }
                Look::Message(_) if self.hung.load(Ordering::SeqCst) => {}
                Look::Message(message) => match Message::parse(&message).expect("a message") {
                    Message::Init(_) if dialled => {}
                    Message::Init(_) => drop(line.try_send(&self.init())),
                    Message::Request(request) => self.answer(&mut line, &request),
                    Message::Response(_) => {}
                },
            }
        }
    }

    fn answer(&self, line: &mut Line, request: &Request<'_>) {
        let method = Method::from_number(request.method).expect("a known method");
        self.heard.lock().unwrap().push((method, request.params.to_vec()));
        let mut out = Vec::new();
        frame::response_head(&mut out, request.msgid);
        let mut end = None;
        match method {
            Method::KeepAlive => pack::nil(&mut out),
            Method::WhsRequest => self.spaces.lock().unwrap().0.encode(&mut out),
            Method::RhsRequest => self.spaces.lock().unwrap().1.encode(&mut out),
            Method::HashSpaceSync => {
                let method::HashSpaceSync { whs, rhs, .. } =
                    params::decode::<method::HashSpaceSync<Seed>>(request.params).expect("two hash spaces");
                *self.spaces.lock().unwrap() = (whs, rhs);
                pack::bool(&mut out, true);
            }
            Method::ReplaceCopyStart => {
                let method::ReplaceCopyStart { seed, .. } =
                    params::decode::<method::ReplaceCopyStart<Seed>>(request.params).expect("a hash space");
                end = Some((Method::ReplaceCopyEnd, seed.clocktime));
                self.spaces.lock().unwrap().0 = seed;
                pack::bool(&mut out, true);
            }
            Method::ReplaceDeleteStart => {
                let method::ReplaceDeleteStart { seed, .. } =
                    params::decode::<method::ReplaceDeleteStart<Seed>>(request.params).expect("a hash space");
                end = Some((Method::ReplaceDeleteEnd, seed.clocktime));
                *self.spaces.lock().unwrap() = (seed.clone(), seed);
                pack::bool(&mut out, true);
            }
            Method::CreateBackup => pack::bool(&mut out, true),
            Method::GetStatus => {
                let (whs, rhs) = self.spaces.lock().unwrap().clone();
                match params::decode::<method::GetStatus>(request.params).expect("a number").number {
                    3 => pack::raw(&mut out, b"0.4.13"),
                    9 => rhs.encode(&mut out),
                    10 => whs.encode(&mut out),
                    0..=11 => pack::uint(&mut out, 0),
                    // As an original server does.
                    _ => pack::nil(&mut out),
                }
            }
            _ => {
                out.clear();
                frame::error_response(&mut out, request.msgid, ErrorCode::Protocol);
            }
        }
        line.try_send(&out);
        if let Some((method, clocktime)) = end.filter(|_| !self.endless.load(Ordering::SeqCst)) {
            line.request(method, |out| method::ReplaceCopyEnd { clocktime, clock: 1 }.encode(out));
        }
    }
}
