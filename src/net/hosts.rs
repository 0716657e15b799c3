//! Hosts and ports as people write them, the ports that are meant when none is written, and the addresses they stand for.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use super::named::{NamedNode, cause};
use crate::wire::NodeAddress;

/// Port of a manager when none is written.
pub(crate) const MANAGER_PORT: u16 = 19700;
/// Port of a server when none is written.
pub(crate) const SERVER_PORT: u16 = 19800;

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    host: String,
    port: Option<u16>,
}

/// Finds the addresses of a host; the port is passed through.
pub(crate) type Resolver<'a> = &'a dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Asks the system.
pub(crate) fn system_resolver(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

impl HostPort {
    /// Its port, or the one that is meant when none is written.
    pub(crate) fn port(&self, default_port: u16) -> u16 {
        self.port.unwrap_or(default_port)
    }

    /// The address that is written in place of a name.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The node that it names, with the address that it has been resolved to, if it has been.
    pub(crate) fn node(&self, default_port: u16, address: Option<NodeAddress>) -> NamedNode {
        NamedNode::new(&self.host, self.port(default_port), address)
    }

    /// The address to use: the first IPv4 one, since original nodes know no other, else the first.
    pub(crate) fn resolve(&self, default_port: u16, resolver: Resolver) -> Result<SocketAddr, String> {
        let found = resolver(&self.host, self.port(default_port))
            .map_err(|error| format!("cannot resolve host '{}': {}", self.host, cause(&error)))?;
        let preferred = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
        preferred.copied().ok_or_else(|| format!("host '{}' has no address", self.host))
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or("']' is missing")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err("':port' must follow ']'".to_owned()),
            }
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        let port = match port {
            Some(port) => Some(port.parse().map_err(|_| format!("'{port}' is not a port (0 to 65535)"))?),
            None => None,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.parse::<Ipv6Addr>().is_ok() => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, host, port) in [
            ("svr1", "svr1", None),
            ("svr1:1", "svr1", Some(1)),
            ("10.0.0.1:19800", "10.0.0.1", Some(19800)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[::1]:7", "::1", Some(7)),
            ("[fe80::1%eth0]:7", "fe80::1%eth0", Some(7)),
        ] {
            assert_eq!(text.parse(), Ok(HostPort { host: host.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn bad_forms_say_what_is_wrong() {
        for (text, message) in [
            ("", "the host is missing"),
            (":19800", "the host is missing"),
            ("a:", "'' is not a port (0 to 65535)"),
            ("a:65536", "'65536' is not a port (0 to 65535)"),
            ("a:b:c", "'b:c' is not a port (0 to 65535)"),
            ("[::1", "']' is missing"),
            ("[::1]7", "':port' must follow ']'"),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn ipv4_is_preferred_and_ports_are_filled_in() {
        let resolver =
            |_: &str, port| Ok(vec![SocketAddr::from(([0; 16], port)), SocketAddr::from(([10, 0, 0, 1], port))]);
        let host: HostPort = "a".parse().unwrap();
        assert_eq!(host.resolve(19700, &resolver), Ok("10.0.0.1:19700".parse().unwrap()));
        let host: HostPort = "[::1]:5".parse().unwrap();
        assert_eq!(host.resolve(19700, &system_resolver), Ok("[::1]:5".parse().unwrap()));
    }

    #[test]
    fn failures_name_the_host() {
        let host: HostPort = "nowhere".parse().unwrap();
        let fails = |_: &str, _| Err(io::Error::other("failed to lookup address information: no such name"));
        assert_eq!(host.resolve(1, &fails), Err("cannot resolve host 'nowhere': no such name".to_owned()));
        assert_eq!(host.resolve(1, &|_, _| Ok(Vec::new())), Err("host 'nowhere' has no address".to_owned()));
    }
}
