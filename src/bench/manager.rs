//! Asking a manager for the hash spaces, and following their changes during a run.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::routes::{Router, Routes};
use crate::clock::ClockTime;
use crate::env::dial_blocking;
use crate::wire::method::{ErrorCode, HashSpaceRequest, Method};
use crate::wire::params::Seed;
use crate::wire::{self, Call, Message, Scanner, frame};

/// Largest message taken from a manager: two hash spaces of as many nodes as there may be.
const MESSAGE_LIMIT: usize = 1 << 20;
/// How long a manager may take to connect and to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one read waits, and how long after a lost connection the manager is dialled again.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the hash spaces are asked for, in case they are not pushed.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a manager gives no hash space.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection does not come about, or is lost.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes received are no message.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// It answers with an error.
    #[error("{0}; is it a manager?")]
    Refused(ErrorCode),
    /// It closed the connection.
    #[error("connection closed; is it a manager?")]
    Closed,
    /// It does not answer.
    #[error("no answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    /// There is nobody to send requests to.
    #[error("no server is attached")]
    NoServers,
}

/// A client connection to a manager.
#[derive(Debug)]
pub(super) struct Manager {
    stream: TcpStream,
    scanner: Scanner,
    received: Vec<u8>,
    /// Those of the routes in force.
    clocktimes: (ClockTime, ClockTime),
}

impl Manager {
    /// Asks the managers in turn where requests go; the first that answers counts. The error says what each answered.
    pub(super) fn connect_any(managers: &[SocketAddr]) -> Result<(Self, Routes), Vec<(SocketAddr, Error)>> {
        let mut errors = Vec::new();
        for address in managers {
            match Self::connect(*address) {
                Ok(connected) => return Ok(connected),
                Err(error) => errors.push((*address, error)),
            }
        }
        Err(errors)
    }

    /// Dials, and asks where requests go.
    fn connect(address: SocketAddr) -> Result<(Self, Routes), Error> {
        let stream = dial_blocking(address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PAUSE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let clocktimes = (ClockTime(0), ClockTime(0));
        let mut manager = Self { stream, scanner: Scanner::new(MESSAGE_LIMIT), received: Vec::new(), clocktimes };
        manager.ask()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some((whs, rhs)) = manager.receive()? {
                manager.clocktimes = (whs.clocktime, rhs.clocktime);
                return Routes::by(whs, rhs).map(|routes| (manager, routes)).ok_or(Error::NoServers);
            }
        }
        Err(Error::Silent)
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut request = Vec::new();
        frame::request(&mut request, 1, &HashSpaceRequest { extension: None });
        self.stream.write_all(&request)
    }

    /// Reads once; the result is the newest hash spaces that came, asked for or pushed.
    fn receive(&mut self) -> Result<Option<(Seed, Seed)>, Error> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Error::Closed),
            Ok(len) => self.received.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        let mut newest = None;
        while let Some(len) = self.scanner.advance(&self.received)? {
            let spaces = match Message::parse(self.received.get(..len).unwrap_or_default())? {
                Message::Response(response) => response.result.map_err(Error::Refused)?,
                Message::Request(request) if request.method == Method::HashSpacePush.number() => request.params,
                _ => &[],
            };
            if !spaces.is_empty() {
                let spaces = HashSpaceRequest::answer(spaces)?;
                newest = Some((spaces.whs, spaces.rhs));
            }
            self.received.drain(..len);
        }
        Ok(newest)
    }

    /// Takes over newer hash spaces until the run is over; dials again when the connection is lost.
    pub(super) fn follow(self, managers: &[SocketAddr], router: &Router, is_over: impl Fn() -> bool) {
        let mut clocktimes = self.clocktimes;
        let mut connected = Some(self);
        let mut asked = Instant::now();
        while !is_over() {
            let Some(manager) = &mut connected else {
                std::thread::sleep(PAUSE);
                if let Ok((manager, routes)) = Self::connect_any(managers) {
                    if manager.clocktimes != clocktimes {
                        clocktimes = manager.clocktimes;
                        router.replace(routes);
                    }
                    connected = Some(manager);
                }
                continue;
            };
            match manager.receive() {
                Ok(Some((whs, rhs))) if (whs.clocktime, rhs.clocktime) != clocktimes => {
                    clocktimes = (whs.clocktime, rhs.clocktime);
                    // With no server active there is nowhere to go: the old routes lead to errors, which is right.
                    if let Some(routes) = Routes::by(whs, rhs) {
                        router.replace(routes);
                    }
                }
                Ok(_) => {}
                Err(_) => connected = None,
            }
            if asked.elapsed() > ASK_INTERVAL {
                asked = Instant::now();
                connected = connected.and_then(|mut manager| manager.ask().is_ok().then_some(manager));
            }
        }
    }
}
