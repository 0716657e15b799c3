//! The 23 bytes with which a target says on the stream connection who it is.

use crate::wire::address::V6_LEN;
use crate::wire::{Error, NodeAddress};

/// Length of a hello, in bytes.
pub(crate) const HELLO_LEN: usize = 1 + V6_LEN;

/// The hello of the target at `address`.
pub(crate) fn write_hello(address: NodeAddress) -> [u8; HELLO_LEN] {
    let bytes = address.bytes();
    let mut hello = [0; HELLO_LEN];
    // At most `V6_LEN`.
    let len = [u8::try_from(bytes.len()).unwrap_or_default()];
    for (slot, byte) in hello.iter_mut().zip(len.iter().chain(bytes.iter())) {
        *slot = *byte;
    }
    hello
}

/// Whose hello this is. The padding may hold anything.
pub(crate) fn read_hello(hello: &[u8; HELLO_LEN]) -> Result<NodeAddress, Error> {
    let [len, rest @ ..] = hello;
    NodeAddress::parse_some(rest.get(..usize::from(*len)).ok_or(Error::Malformed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in ["127.0.0.1:29804", "[fe80::1%2]:9"] {
            let address = NodeAddress::new(text.parse().unwrap());
            assert_eq!(read_hello(&write_hello(address)), Ok(address), "{text}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for first in [0, 5, 7, 21, 23, 255] {
            let mut hello = [7; HELLO_LEN];
            hello[0] = first;
            assert_eq!(read_hello(&hello), Err(Error::Malformed), "{first}");
        }
        let mut nobody = [0; HELLO_LEN];
        nobody[0] = 6;
        assert_eq!(read_hello(&nobody), Err(Error::Malformed));
    }
}
