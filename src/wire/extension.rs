//! Additional elements: what nodes and tools of this program say to each other at the end of arrays of 2010.
//!
//! An element is one raw whose content is a MessagePack map of today, so that it can grow: names that the reader does
//! not know are ignored, and those that are missing have their defaults. Addresses in it are texts. Which messages may
//! carry one to an original node is in `docs/protocol.md`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::unpack::Reader;
use super::{Error, NodeAddress, pack};

/// Asks a manager to extend its answer. As a parameter of `GetNodesInfo`, original managers ignore it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ask {}

/// Third element of the result of `GetNodesInfo`: what a manager has under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerState {
    /// As status 11, see [`super::method::FLAG_COPYING`] and the others.
    pub flags: u32,
    /// Replaces that have ended well since the start of the manager.
    pub replaces: u64,
}

/// Second parameter of `AttachNewServers` and `DetachFaultServers`: asks for a [`Changed`] as the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// The servers to attach or to remove, all of them or none; without it, all that can be.
    pub servers: Option<Vec<NodeAddress>>,
}

/// The effect of an attach or detach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changed {
    /// Servers that were attached, or removed.
    pub servers: Vec<NodeAddress>,
    /// Servers that were asked for but are not connected, or not in fault. If there are any, nothing was changed.
    pub missing: Vec<NodeAddress>,
    /// Whether a replace was started.
    pub replace: bool,
}

/// The end of a backup: the result of a manager's `CreateBackup` that was asked with [`Ask`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupEnd {
    /// Servers whose backup is complete.
    pub complete: Vec<NodeAddress>,
    /// Servers whose backup failed; why is in their logs.
    pub failed: Vec<NodeAddress>,
}

/// Element behind the parameters of `KeepAlive` and `HashSpaceRequest` and behind the hash spaces that a manager pushes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Of a server: the longest message that it takes from a client, in bytes; see [`super::NODE_ROOM`] for nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_limit: Option<u64>,
    /// Of a manager: the same of the servers that it knows it of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub message_limits: Vec<(NodeAddress, u64)>,
}

impl Extension {
    /// Appends this element to an array of at most 14 elements that `params` appends to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>, params: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        params(out);
        let Some(head @ 0x90..=0x9e) = out.get_mut(start) else { return };
        *head += 1;
        write(out, self);
    }

    /// The element behind the first `expected` ones of an array; `None` if there is none that is one of ours.
    pub fn behind(array: &[u8], expected: usize) -> Option<Self> {
        read(array, expected).ok().flatten()
    }
}

/// Appends `value` as one raw.
///
/// # Panics
///
/// If `value` cannot be written as MessagePack; each of the above can.
pub fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut content = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut content).with_struct_map().with_human_readable();
    let written = value.serialize(&mut serializer);
    assert!(written.is_ok(), "a struct of numbers and texts can always be written to memory: {written:?}");
    pack::raw(out, &content);
}

/// Reads the element at place `index` of the array `bytes`; `None` if there is none. An element that is not a raw is
/// somebody else's, and ignored; a raw that does not hold a `T` is [`Error::Malformed`].
pub fn read<T: DeserializeOwned>(bytes: &[u8], index: usize) -> Result<Option<T>, Error> {
    let mut reader = Reader::new(bytes);
    if reader.array()? <= index {
        return Ok(None);
    }
    for _ in 0..index {
        reader.skip()?;
    }
    reader.raw().map_or(Ok(None), |content| parse(content).map(Some))
}

/// Reads a result that is one raw.
pub fn read_result<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    parse(Reader::new(bytes).raw()?)
}

fn parse<T: DeserializeOwned>(content: &[u8]) -> Result<T, Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(content).with_human_readable();
    T::deserialize(&mut deserializer).map_err(|_| Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::params;

    fn element(value: &impl Serialize) -> Vec<u8> {
        let mut out = Vec::new();
        pack::array(&mut out, 2);
        pack::bool(&mut out, true);
        write(&mut out, value);
        out
    }

    #[test]
    fn an_element_reads_back_and_is_one_raw() {
        let choice = Choice { servers: Some(vec![NodeAddress::new(([127, 0, 0, 1], 19801).into())]) };
        let bytes = element(&choice);
        // Up to 31 bytes are a fixraw, more a raw16: never the str8 or bin8 that would end a connection to an original.
        assert_eq!(bytes[..5], [0x92, 0xc3, 0xba, 0x81, 0xa7]);
        assert!(bytes.ends_with(b"\xaf127.0.0.1:19801"));
        let longer = element(&Choice { servers: Some(vec![NodeAddress::new(([127, 0, 0, 1], 19801).into()); 2]) });
        assert_eq!(longer[..5], [0x92, 0xc3, 0xda, 0, 42]);
        assert_eq!(read(&bytes, 1), Ok(Some(choice)));
        assert_eq!(element(&Ask {}), [0x92, 0xc3, 0xa1, 0x80]);
    }

    #[test]
    fn what_is_missing_or_unknown_is_no_error() {
        assert_eq!(read::<Choice>(&[0x91, 0xc3], 1), Ok(None));
        assert_eq!(read::<Choice>(&[0x92, 0xc3, 0xc3], 1), Ok(None), "not ours");
        assert_eq!(read::<Choice>(&element(&Ask {}), 1), Ok(Some(Choice { servers: None })));
        let later = element(&serde_json::json!({"flags": 5, "colour": "blue"}));
        assert_eq!(read(&later, 1), Ok(Some(ManagerState { flags: 5, replaces: 0 })));
    }

    #[test]
    fn nonsense_is_not_taken_for_a_choice_of_all() {
        for content in [&b""[..], b"\xc1", b"\x81\xa7servers\x91\xa4nope", b"\x81\xa7servers\x01", b"\x81"] {
            let mut out = vec![0x92, 0xc3];
            pack::raw(&mut out, content);
            assert_eq!(read::<Choice>(&out, 1), Err(Error::Malformed), "{content:?}");
        }
        assert_eq!(read::<Choice>(&[0xc3], 1), Err(Error::Malformed));
    }

    #[test]
    fn an_element_stands_behind_those_of_2010_and_reads_back() {
        let extension = Extension {
            message_limit: Some(1 << 20),
            message_limits: ["10.0.0.1:19800", "[::1]:2"]
                .map(|text| (NodeAddress::new(text.parse().unwrap()), 1 << 30))
                .to_vec(),
        };
        let mut out = vec![0x07];
        extension.append_to(&mut out, |out| params::write_keep_alive(out, 5));
        assert_eq!(&out[..4], [0x07, 0x92, 0x05, 0xda], "a raw of the old dialect");
        let params = &out[1..];
        assert_eq!(params::keep_alive(params), Ok(5));
        assert_eq!(Extension::behind(params, 1), Some(extension));
        assert_eq!(Extension::behind(params, 2), None);
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let mut content = Vec::new();
        pack::map(&mut content, 2);
        for (name, value) in [("message_limit", 9), ("later", 7)] {
            pack::raw(&mut content, name.as_bytes());
            pack::uint(&mut content, value);
        }
        let mut out = vec![0x91];
        pack::raw(&mut out, &content);
        assert_eq!(Extension::behind(&out, 0), Some(Extension { message_limit: Some(9), ..Extension::default() }));
        for other in [&[0xc0][..], &[0xa0], &[0x05], &[0xa1, 0xc1], &[0xa3, 1, 2, 3], &[]] {
            assert_eq!(Extension::behind(&[&[0x91], other].concat(), 0), None, "{other:?}");
        }
    }
}
