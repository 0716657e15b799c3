//! The address of a node as it travels: port, then IPv4 address; or port, IPv6 address and scope.
//!
//! ```text
//! IPv4   port u16 | 4 bytes                       6 bytes
//! IPv6   port u16 | 16 bytes | scope id u32      22 bytes     all big-endian
//! none   6 zero bytes
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::Error;

/// Length of an IPv4 address on the wire, in bytes.
#[cfg(test)]
const V4_LEN: usize = 6;
/// Length of an IPv6 address on the wire, in bytes.
pub(crate) const V6_LEN: usize = 22;

/// Where a node listens: its identity in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeAddress(SocketAddr);

/// A node address in its wire form.
#[derive(Clone, Copy)]
pub struct AddressBytes {
    bytes: [u8; V6_LEN],
    len: usize,
}

impl std::ops::Deref for AddressBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl NodeAddress {
    /// The identity of a node that listens at `socket`; an IPv4-mapped IPv6 address becomes the IPv4 one.
    pub fn new(socket: SocketAddr) -> Self {
        Self(match socket {
            SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
                Some(ip) => SocketAddr::new(IpAddr::V4(ip), v6.port()),
                None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())),
            },
            v4 @ SocketAddr::V4(_) => v4,
        })
    }

    /// The socket address to dial.
    pub fn socket(&self) -> SocketAddr {
        self.0
    }

    /// The wire form.
    pub fn bytes(&self) -> AddressBytes {
        let mut bytes = [0; V6_LEN];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            for byte in part {
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = *byte;
                }
                at += 1;
            }
        };
        put(&self.0.port().to_be_bytes());
        match self.0 {
            SocketAddr::V4(v4) => put(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                put(&v6.ip().octets());
                put(&v6.scope_id().to_be_bytes());
            }
        }
        AddressBytes { bytes, len: at.min(V6_LEN) }
    }

    /// Reads the wire form; six zero bytes are `None`.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let (port, rest) = bytes.split_first_chunk::<2>().ok_or(Error::Malformed)?;
        let port = u16::from_be_bytes(*port);
        if let Ok(ip) = <[u8; 4]>::try_from(rest) {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port);
            return Ok((port != 0 || ip != [0; 4]).then_some(Self(address)));
        }
        let (ip, scope) = rest.split_first_chunk::<16>().ok_or(Error::Malformed)?;
        let scope = <[u8; 4]>::try_from(scope).map_err(|_| Error::Malformed)?;
        let address = SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, u32::from_be_bytes(scope));
        Ok(Some(Self::new(SocketAddr::V6(address))))
    }

    /// Reads the wire form of an address that must be one.
    pub(crate) fn parse_some(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse(bytes)?.ok_or(Error::Malformed)
    }
}

impl From<SocketAddr> for NodeAddress {
    fn from(socket: SocketAddr) -> Self {
        Self::new(socket)
    }
}

/// The order of the wire forms: what the manager election of the original compares.
impl Ord for NodeAddress {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(&other.bytes())
    }
}

impl PartialOrd for NodeAddress {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for NodeAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for NodeAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SocketAddr::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for (text, len) in [("127.0.0.1:19800", 6), ("0.0.0.0:1", 6), ("[::1]:19800", 22), ("[fe80::1%3]:9", 22)] {
            let address = NodeAddress::new(text.parse().unwrap());
            assert_eq!(address.bytes().len(), len);
            assert_eq!(NodeAddress::parse(&address.bytes()), Ok(Some(address)), "{text}");
        }
    }

    #[test]
    fn six_zeros_are_no_address() {
        assert_eq!(NodeAddress::parse(&[0; 6]), Ok(None));
        assert_eq!(NodeAddress::parse_some(&[0; 6]), Err(Error::Malformed));
    }

    #[test]
    fn other_lengths_are_refused() {
        for len in (0..30).filter(|len| ![V4_LEN, V6_LEN].contains(len)) {
            assert_eq!(NodeAddress::parse(&vec![1; len]), Err(Error::Malformed), "{len}");
        }
    }

    #[test]
    fn mapped_addresses_are_the_ipv4_node() {
        let mapped = NodeAddress::new("[::ffff:10.0.0.1]:7".parse().unwrap());
        assert_eq!(mapped, NodeAddress::new("10.0.0.1:7".parse().unwrap()));
    }
}
