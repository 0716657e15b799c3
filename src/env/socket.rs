//! The kernel's sockets: how to listen, when a silent connection is given up, whether one is over. Knows no machine and no task.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// Connections that the kernel may keep waiting to be accepted.
const BACKLOG: i32 = 1024;
/// Probes of an idle connection that may stay unanswered.
const PROBES: u32 = 3;

/// Whether an attempt to bind `[::]` has failed because the kernel has no IPv6.
pub(crate) fn is_without_ipv6(error: &io::Error) -> bool {
    let missing = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| missing.contains(&number))
}

/// Binds a listening socket. `[::]` stands for all addresses of this machine, IPv4 ones included unless `ipv6_only`.
pub(super) fn bind(address: SocketAddr, ipv6_only: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The address of a peer as people know it: IPv4 ones come through an IPv6 socket in a longer form.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, peer.port()),
        IpAddr::V6(_) => peer,
    }
}

/// Ends the connection when the other machine has not been heard of for `limit`: while nothing is sent by probes, else
/// by what it does not confirm.
pub(super) fn set_silence_limit(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let whole_seconds = |time: Duration| Duration::from_secs(time.as_secs().max(1));
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, whole_seconds(limit / 2))?;
    sockopt::set_tcp_keepintvl(stream, whole_seconds(limit / 2 / PROBES))?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Whether a connection is over in both directions.
pub(super) fn is_lost(stream: &impl AsFd) -> bool {
    // Nothing is waited for: errors and hang-ups are told unasked.
    let mut asked = [PollFd::new(stream, PollFlags::empty())];
    let told = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    told.is_ok() && asked.iter().any(|asked| asked.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Shutdown, TcpStream};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_connection_that_was_reset_is_lost_and_one_that_is_half_closed_is_not() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert!(!is_lost(&stream));
        peer.shutdown(Shutdown::Write).unwrap();
        stream.write_all(b"an answer").unwrap();
        assert!(!is_lost(&stream), "it still takes answers");
        // With the answer unread.
        drop(peer);
        let started = Instant::now();
        while !is_lost(&stream) {
            assert!(started.elapsed() < Duration::from_secs(10), "nobody is there");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
