//! The simulated network: ports, connections, delay, loss, and cuts of any shape.
//!
//! A connection carries bytes in order, as TCP does: what is lost is sent again and comes late. Where a machine cannot
//! reach another one nothing arrives until it can again, in that direction alone; a dial in either direction then hangs.
//! A killed process's connections are reset at the other end as soon as that can be told. One that only one end has
//! forgotten, as after a loss of power, is reset when the other end sends something.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use kumo_server::env::{Listener, Stream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::world::World;

/// Bytes that a direction of a connection holds before its writer must wait.
const WINDOW: usize = 1 << 20;
/// Time after which what was lost is sent again, at least.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// The first port given to who dials.
const FIRST_LOCAL_PORT: u16 = 32768;

/// All ports and connections.
#[derive(Default)]
pub(crate) struct Network(Mutex<State>);

#[derive(Default)]
struct State {
    listeners: BTreeMap<SocketAddr, mpsc::UnboundedSender<(Stream, SocketAddr)>>,
    /// Directions in which nothing arrives, and how often each has been cut.
    cuts: BTreeMap<(IpAddr, IpAddr), u32>,
    /// Machines that are switched off.
    off: BTreeSet<IpAddr>,
    /// Machines that refuse every dial.
    refusing: BTreeSet<IpAddr>,
    connections: Vec<Weak<Connection>>,
    last_port: BTreeMap<IpAddr, u16>,
    settings: Settings,
    /// Connections that have been made.
    opened: u64,
}

/// How the network behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// The least time a packet takes.
    pub(crate) delay: Duration,
    /// How much longer it may take.
    pub(crate) jitter: Duration,
    /// Packets in a thousand that are lost.
    pub(crate) loss: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { delay: Duration::from_micros(100), jitter: Duration::from_micros(400), loss: 0 }
    }
}

struct Connection {
    ends: [SocketAddr; 2],
    /// What travels from the first end to the second, and back.
    ways: [Mutex<Way>; 2],
    /// Whether an end knows nothing of the connection any more.
    forgotten: [AtomicBool; 2],
}

impl Connection {
    /// The end on a machine, if one is.
    fn end_at(&self, ip: IpAddr) -> Option<usize> {
        self.ends.iter().position(|end| end.ip() == ip)
    }

    fn wake(&self) {
        for way in &self.ways {
            way.lock().wake();
        }
    }

    /// An end forgets the connection; the other one does not hear of it.
    fn forget(&self, end: usize) {
        self.forgotten[end].store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Tells an end that the other one knows of no connection.
    fn reset(&self, end: usize, at: Instant) {
        let mut way = self.ways[1 - end].lock();
        way.closed = Some(Closed::Reset(at));
        way.wake();
    }
}

#[derive(Default)]
struct Way {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// The writer has closed, or died: after the packets, the end.
    closed: Option<Closed>,
    last: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy)]
enum Closed {
    End(Instant),
    Reset(Instant),
}

impl Way {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Network {
    /// Changes how it behaves from now on.
    pub(crate) fn set(&self, settings: Settings) {
        self.0.lock().settings = settings;
    }

    /// From now on nothing of `from` arrives at `to`.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr) {
        *self.0.lock().cuts.entry((from, to)).or_default() += 1;
    }

    /// Takes a cut away. What waits arrives when it is sent again, if no other cut is left.
    pub(crate) fn mend(&self, world: &World, from: IpAddr, to: IpAddr) {
        {
            let mut state = self.0.lock();
            if let Some(count) = state.cuts.get_mut(&(from, to)) {
                *count -= 1;
            }
            state.cuts.retain(|_, count| *count > 0);
        }
        self.send_again(world, |connection| connection.end_at(from).is_some() && connection.end_at(to).is_some());
    }

    /// Whether machines refuse to be dialled from now on.
    pub(crate) fn refuse(&self, ip: IpAddr, refuse: bool) {
        let refusing = &mut self.0.lock().refusing;
        if refuse {
            refusing.insert(ip)
        } else {
            refusing.remove(&ip)
        };
    }

    /// Has one end of some connections of a machine forget them: which, and which end, is left to chance. Returns how many.
    /// Connections with machines in `except` are left alone.
    pub(crate) fn forget_some_of(&self, world: &World, ip: IpAddr, except: &[IpAddr]) -> usize {
        let connections = self.0.lock().open_connections();
        let mut count = 0;
        let concerned = |connection: &&Arc<Connection>| {
            connection.end_at(ip).is_some() && except.iter().all(|other| connection.end_at(*other).is_none())
        };
        for connection in connections.iter().filter(concerned) {
            if world.happens(500) {
                connection.forget(usize::from(world.happens(500)));
                count += 1;
            }
        }
        count
    }

    /// Switches a machine off: its ports and connections are gone, and nobody is told.
    pub(crate) fn switch_off(&self, ip: IpAddr) {
        let connections = {
            let mut state = self.0.lock();
            state.listeners.retain(|address, _| address.ip() != ip);
            state.off.insert(ip);
            state.open_connections()
        };
        for connection in &connections {
            if let Some(end) = connection.end_at(ip) {
                connection.forget(end);
            }
        }
    }

    /// Switches it on: whoever still sends on a connection of before hears that there is none.
    pub(crate) fn switch_on(&self, world: &World, ip: IpAddr) {
        let connections = {
            let mut state = self.0.lock();
            state.off.remove(&ip);
            state.open_connections()
        };
        for connection in connections {
            let Some(end) = connection.end_at(ip) else { continue };
            if connection.forgotten[end].load(Ordering::Relaxed) && !connection.ways[1 - end].lock().packets.is_empty()
            {
                connection.reset(1 - end, Instant::now() + RETRANSMIT + Duration::from_millis(world.below(1000)));
            }
        }
    }

    fn send_again(&self, world: &World, which: impl Fn(&Connection) -> bool) {
        let connections = self.0.lock().open_connections();
        let now = Instant::now();
        for connection in connections.iter().filter(|connection| which(connection)) {
            for way in &connection.ways {
                let mut way = way.lock();
                let mut at = now + RETRANSMIT + Duration::from_millis(world.below(1000));
                for packet in &mut way.packets {
                    at = at.max(packet.0);
                    packet.0 = at;
                }
                way.last = way.last.max(Some(at));
                way.wake();
            }
        }
    }

    /// Whether something of `from` arrives at `to`.
    pub(crate) fn reaches(&self, from: IpAddr, to: IpAddr) -> bool {
        let state = self.0.lock();
        !state.cuts.contains_key(&(from, to)) && !state.off.contains(&from) && !state.off.contains(&to)
    }

    /// Closes the ports and connections of a machine whose process has died.
    pub(crate) fn close_all_of(&self, ip: IpAddr) {
        let connections = {
            let mut state = self.0.lock();
            state.listeners.retain(|address, _| address.ip() != ip);
            state.open_connections()
        };
        for connection in &connections {
            if let Some(end) = connection.end_at(ip) {
                // The dead process is gone; to say so is the duty of its kernel.
                connection.reset(end, Instant::now());
                connection.reset(1 - end, Instant::now() + Duration::from_micros(100));
            }
        }
    }

    /// Listens at a port of `ip`; zero: at one that is free.
    pub(crate) fn listen(&self, world: &Arc<World>, ip: IpAddr, port: u16) -> io::Result<Listener> {
        let mut state = self.0.lock();
        let port = if port == 0 { state.free_port(ip) } else { port };
        let address = SocketAddr::new(ip, port);
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, mut receiver) = mpsc::unbounded_channel();
        state.listeners.insert(address, sender);
        let closing = ClosePort(world.clone(), address);
        Ok(Listener::other(address, move |cx| {
            let _ = &closing;
            match ready!(receiver.poll_recv(cx)) {
                Some(connection) => Poll::Ready(Ok(connection)),
                None => Poll::Pending,
            }
        }))
    }

    /// Connects `from` to a port. Hangs while either direction is cut.
    pub(crate) async fn connect(&self, world: &Arc<World>, from: IpAddr, to: SocketAddr) -> io::Result<Stream> {
        let settings = self.0.lock().settings;
        loop {
            tokio::time::sleep(trip(world, settings) + trip(world, settings)).await;
            if self.reaches(from, to.ip()) && self.reaches(to.ip(), from) {
                break;
            }
            tokio::time::sleep(RETRANSMIT).await;
        }
        let mut state = self.0.lock();
        if state.refusing.contains(&to.ip()) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let local = SocketAddr::new(from, state.free_port(from));
        let Some(listener) = state.listeners.get(&to).cloned() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let connection =
            Arc::new(Connection { ends: [local, to], ways: Default::default(), forgotten: Default::default() });
        state.opened += 1;
        if state.opened.is_multiple_of(256) {
            state.connections.retain(|connection| connection.strong_count() > 0);
        }
        state.connections.push(Arc::downgrade(&connection));
        drop(state);
        let end = |number| {
            Stream::Other(Box::new(End { world: world.clone(), connection: connection.clone(), number, due: None }))
        };
        if listener.send((end(1), local)).is_err() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(end(0))
    }
}

impl State {
    fn open_connections(&self) -> Vec<Arc<Connection>> {
        self.connections.iter().filter_map(Weak::upgrade).collect()
    }

    fn free_port(&mut self, ip: IpAddr) -> u16 {
        let last = self.last_port.entry(ip).or_insert(FIRST_LOCAL_PORT);
        *last = last.checked_add(1).unwrap_or(FIRST_LOCAL_PORT);
        *last
    }
}

/// How long one packet takes.
fn trip(world: &World, settings: Settings) -> Duration {
    let jitter = u64::try_from(settings.jitter.as_micros()).unwrap_or_default();
    let mut time = settings.delay + Duration::from_micros(world.below(jitter + 1));
    let mut again = RETRANSMIT;
    while world.happens(settings.loss) && again < Duration::from_secs(5) {
        time += again;
        again *= 2;
    }
    time
}

/// Frees a port when its listener goes.
struct ClosePort(Arc<World>, SocketAddr);

impl Drop for ClosePort {
    fn drop(&mut self) {
        self.0.network().0.lock().listeners.remove(&self.1);
    }
}

/// One end of a connection.
struct End {
    world: Arc<World>,
    connection: Arc<Connection>,
    number: usize,
    due: Option<Pin<Box<Sleep>>>,
}

impl End {
    fn own(&self) -> IpAddr {
        self.connection.ends[self.number].ip()
    }

    fn other(&self) -> IpAddr {
        self.connection.ends[1 - self.number].ip()
    }

    /// Waits until `at`; ready if that is over.
    fn poll_due(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if at <= Instant::now() {
            self.due = None;
            return Poll::Ready(());
        }
        let due = self.due.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if due.deadline() != at {
            due.as_mut().reset(at);
        }
        due.as_mut().poll(cx)
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let connection = this.connection.clone();
        if this.has_forgotten() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut way = connection.ways[1 - this.number].lock();
        way.reader = Some(cx.waker().clone());
        if !this.world.network().reaches(this.other(), this.own()) {
            return Poll::Pending;
        }
        if let Some(Closed::Reset(at)) = way.closed {
            ready!(this.poll_due(cx, at));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some((at, _)) = way.packets.front() else {
            let Some(Closed::End(at)) = way.closed else { return Poll::Pending };
            ready!(this.poll_due(cx, at));
            return Poll::Ready(Ok(()));
        };
        ready!(this.poll_due(cx, *at));
        while let Some((at, packet)) = way.packets.front_mut().filter(|(at, _)| *at <= Instant::now()) {
            let count = packet.len().min(buffer.remaining());
            if count == 0 {
                break;
            }
            buffer.put_slice(&packet[..count]);
            if count == packet.len() {
                way.packets.pop_front();
            } else {
                let rest = packet.split_off(count);
                (*at, *packet) = (*at, rest);
            }
            way.bytes -= count;
        }
        if let Some(writer) = way.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_forgotten() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let settings = this.world.network().0.lock().settings;
        let hears = this.world.network().reaches(this.other(), this.own());
        if this.other_has_forgotten() && hears && this.world.network().reaches(this.own(), this.other()) {
            // What is sent now is answered by a reset.
            let at = Instant::now() + trip(&this.world, settings) + trip(&this.world, settings);
            this.connection.reset(this.number, at);
            return Poll::Ready(Ok(bytes.len()));
        }
        this.sum_up(bytes);
        let mut way = this.connection.ways[this.number].lock();
        match way.closed {
            // Where nothing arrives from the other end, that it is gone does not either.
            Some(Closed::Reset(_)) if !hears => {}
            Some(Closed::Reset(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Closed::End(_)) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            None => {}
        }
        let way = &mut *way;
        if way.bytes >= WINDOW {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let at = (Instant::now() + trip(&this.world, settings)).max(way.last.unwrap_or_else(Instant::now));
        way.last = Some(at);
        way.bytes += bytes.len();
        way.packets.push_back((at, bytes.to_vec()));
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl End {
    fn has_forgotten(&self) -> bool {
        self.connection.forgotten[self.number].load(Ordering::Relaxed)
    }

    fn other_has_forgotten(&self) -> bool {
        self.connection.forgotten[1 - self.number].load(Ordering::Relaxed)
    }

    /// Counts what is sent into the sum of the journal.
    fn sum_up(&self, bytes: &[u8]) {
        self.world.journal().add_sent(self.world.now(), self.own(), self.other(), bytes);
    }

    /// Nothing more will come from this end.
    fn close(&self) {
        if self.has_forgotten() {
            return;
        }
        let mut way = self.connection.ways[self.number].lock();
        if way.closed.is_none() {
            let at = way.last.unwrap_or_else(Instant::now).max(Instant::now()) + Duration::from_micros(100);
            way.closed = Some(Closed::End(at));
            way.wake();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
        if self.has_forgotten() {
            return;
        }
        // What still comes finds nobody: the other end learns that when it writes.
        let mut way = self.connection.ways[1 - self.number].lock();
        if way.closed.is_none() {
            way.closed = Some(Closed::Reset(Instant::now()));
            way.packets.clear();
            way.wake();
        }
    }
}
