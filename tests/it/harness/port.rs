//! Ports that no other test uses, in this process or another, for as long as they are held.
//!
//! They lie below the range that the kernel gives to outgoing connections, and a locked file stands for each, so
//! that a node can be stopped and started again on its port.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// First port and number of ports to choose from; the defaults of all daemons lie outside, and the
/// ports of the recorded exchanges (28,000 to 29,999).
const FIRST: u16 = 21_000;
const COUNT: u16 = 7_000;

/// A port on 127.0.0.1, held until dropped, or on a machine of a test's own.
pub(crate) struct Port {
    ip: IpAddr,
    number: u16,
    _lock: Option<File>,
}

impl Port {
    /// A port that nobody listens on.
    pub(crate) fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let offset = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
        (0..COUNT)
            .map(|_| FIRST + offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
            .find_map(Self::lock)
            .expect("a free port")
    }

    /// A port such that those at these distances above it are free too; all are held.
    pub(crate) fn reserve_with(distances: &[u16]) -> (Self, Vec<Self>) {
        loop {
            let base = Self::reserve();
            let others: Vec<_> = distances.iter().map_while(|distance| Self::lock(base.number + distance)).collect();
            if others.len() == distances.len() {
                return (base, others);
            }
        }
    }

    fn lock(number: u16) -> Option<Self> {
        let folder = std::env::temp_dir().join("kumo-it-ports");
        std::fs::create_dir_all(&folder).expect("the folder of port locks");
        let path: PathBuf = folder.join(number.to_string());
        let lock = File::options().create(true).append(true).open(path).expect("a port lock");
        lock.try_lock().ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { ip: Ipv4Addr::LOCALHOST.into(), number, _lock: Some(lock) })
    }

    /// A port of a machine that nobody else uses.
    pub(crate) fn of_machine(ip: IpAddr, number: u16) -> Self {
        Self { ip, number, _lock: None }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (self.ip, self.number()).into()
    }
}
