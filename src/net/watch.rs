//! Noticing that the machine at the other end has gone without a word.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Probes that may stay unanswered.
const PROBES: u32 = 3;

/// Ends the connection when the other machine has not been heard of for `limit`: while nothing is sent by probes, else
/// by what it does not confirm.
///
/// The kernel would go on for a quarter of an hour, or for ever on an idle connection. A server that has come back by
/// then would be sent half of its calls on the old connection, and clients that have gone would fill the limit.
pub(crate) fn watch(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let whole_seconds = |time: Duration| Duration::from_secs(time.as_secs().max(1));
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, whole_seconds(limit / 2))?;
    sockopt::set_tcp_keepintvl(stream, whole_seconds(limit / 2 / PROBES))?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}
