//! Additional elements: what nodes and tools of this program say to each other at the end of arrays of 2010.
//!
//! An element is one raw whose content is a MessagePack map of today, so that it can grow: names that the reader does
//! not know are ignored, and those that are missing have their defaults. Addresses in it are texts. Which messages may
//! carry one to an original node is in `docs/protocol.md`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::unpack::Reader;
use super::{Error, NodeAddress, pack};

/// Asks a manager to extend its answer. As a parameter of `GetNodesInfo`, original managers ignore it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ask {}

/// Second parameter of `Get`: of a deleted key the tombstone is wanted. An original passes over it and answers nil.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    /// From a server: the record is wanted as it is there now, on all owners or not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsettled: bool,
}

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
    /// Detach: these servers are off for good, and the cluster is to go on without their votes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
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
    /// Of a forced detach: why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Of a forced detach: what may be lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
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

/// Element behind the parameters of `KeepAlive` and `HashSpaceRequest` and behind the hash spaces that a manager pushes, and
/// the result of a `KeepAlive` that had one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Of a server: the longest message that it takes from a client, in bytes; see [`super::NODE_MARGIN`] for nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_limit: Option<u64>,
    /// Of a manager: the same of the servers that it knows it of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub message_limits: Vec<(NodeAddress, u64)>,
    /// Of a manager, to clients: the servers vote, and writes to them are to have a [`Route`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub votes: bool,
    /// Between nodes: what they say of the configuration of the cluster, packed by the module
    /// `register`; in the result, the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register: Option<ByteBuf>,
}

/// Element behind a copy of a write, between servers that vote: under which configuration its coordinator acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fence {
    /// The counter of the configuration.
    #[serde(rename = "v")]
    pub version: u64,
}

/// Element behind a write of a client to servers that vote: by which hash space it is sent to this one. One that arrives late,
/// when the servers act by a later one, is refused: its client may have written it elsewhere since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// The clocktime of the hash space for writing.
    #[serde(rename = "w")]
    pub whs: u64,
}

/// The values that an additional element can have.
pub trait Addition: Serialize + DeserializeOwned {
    /// Whether a content that cannot be read is as good as none; else it is [`Error::Malformed`].
    const OPTIONAL: bool = false;

    /// Appends it as one raw.
    fn write(&self, out: &mut Vec<u8>) {
        write(out, self);
    }

    /// Reads the content of a raw.
    fn read(content: &[u8]) -> Result<Self, Error> {
        parse(content)
    }
}

impl Addition for Ask {}
impl Addition for ManagerState {}
impl Addition for Choice {}
impl Addition for Changed {}
impl Addition for BackupEnd {}
impl Addition for Look {
    const OPTIONAL: bool = true;
}
impl Addition for Extension {
    const OPTIONAL: bool = true;
}

/// Defines how a map of one number is written and read, by hand in the same bytes: there is one with each write.
macro_rules! number {
    ($type:ident, $field:ident, $name:literal) => {
        impl Addition for $type {
            #[inline]
            fn write(&self, out: &mut Vec<u8>) {
                write_number(out, $name, self.$field);
            }

            #[inline]
            fn read(content: &[u8]) -> Result<Self, Error> {
                match content.strip_prefix(&number_head($name)).map(|number| Reader::new(number).u64()) {
                    Some(Ok($field)) => Ok(Self { $field }),
                    _ => parse(content),
                }
            }
        }
    };
}

number!(Fence, version, b'v');
number!(Route, whs, b'w');

/// A map with one entry, and its name of one letter.
#[inline]
fn number_head(name: u8) -> [u8; 3] {
    [0x81, 0xa1, name]
}

#[inline]
fn write_number(out: &mut Vec<u8>, name: u8, number: u64) {
    // The length is known when the number is written.
    let at = out.len();
    out.push(0xa0);
    out.extend_from_slice(&number_head(name));
    pack::uint(out, number);
    let length = out.len().saturating_sub(at).saturating_sub(1);
    if let (Some(head), Ok(length)) = (out.get_mut(at), u8::try_from(length)) {
        *head |= length;
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

/// Reads the element that `object` is the bytes of. One that is not a raw is somebody else's, and ignored.
pub(super) fn read<T: Addition>(object: &[u8]) -> Result<Option<T>, Error> {
    match Reader::new(object).raw().map(T::read) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(error)) if !T::OPTIONAL => Err(error),
        _ => Ok(None),
    }
}

/// Reads the content of a raw.
pub(super) fn parse<T: DeserializeOwned>(content: &[u8]) -> Result<T, Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(content).with_human_readable();
    T::deserialize(&mut deserializer).map_err(|_| Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::method::{AttachNewServers, HashSpaceRequest, KeepAlive};
    use crate::wire::params::{Encode, Packed, decode};

    fn node() -> NodeAddress {
        NodeAddress::new(([127, 0, 0, 1], 19801).into())
    }

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    /// Parameters of an attach with this second element.
    fn attach(element: &[u8]) -> Result<AttachNewServers, Error> {
        decode(&[&[0x92, 0xc3], element].concat())
    }

    #[test]
    fn an_element_reads_back_and_is_one_raw() {
        let choice =
            |servers| AttachNewServers { replace: true, choice: Some(Choice { servers: Some(servers), force: false }) };
        let bytes = encoded(&choice(vec![node()]));
        // Up to 31 bytes are a fixraw, more a raw16: never the str8 or bin8 that would end a connection to an original.
        assert_eq!(bytes[..5], [0x92, 0xc3, 0xba, 0x81, 0xa7]);
        assert!(bytes.ends_with(b"\xaf127.0.0.1:19801"));
        assert_eq!(decode(&bytes), Ok(choice(vec![node()])));
        assert_eq!(encoded(&choice(vec![node(); 2]))[..5], [0x92, 0xc3, 0xda, 0, 42]);
        assert_eq!(encoded(&Packed(Ask {})), [0xa1, 0x80]);
        assert_eq!(encoded(&AttachNewServers { replace: true, choice: None }), [0x91, 0xc3], "as in 2010");
    }

    #[test]
    fn a_number_is_the_same_by_hand() {
        fn check<T: Addition + Copy + PartialEq + std::fmt::Debug>(element: T) {
            let (mut by_hand, mut by_serde) = (Vec::new(), Vec::new());
            element.write(&mut by_hand);
            write(&mut by_serde, &element);
            assert_eq!(by_hand, by_serde);
            assert_eq!(read(&by_hand), Ok(Some(element)));
        }
        for number in [0, 1, 127, 128, 70_000, u64::MAX] {
            check(Fence { version: number });
            check(Route { whs: number });
        }
        let mut later = Vec::new();
        write(&mut later, &serde_json::json!({"colour": "blue", "v": 5}));
        assert_eq!(read(&later), Ok(Some(Fence { version: 5 })));
    }

    #[test]
    fn what_is_missing_or_unknown_is_no_error() {
        assert_eq!(decode(&[0x91, 0xc3]), Ok(AttachNewServers { replace: true, choice: None }));
        assert_eq!(attach(&[0xc3]), Ok(AttachNewServers { replace: true, choice: None }), "not ours");
        let all = AttachNewServers { replace: true, choice: Some(Choice::default()) };
        assert_eq!(attach(&encoded(&Packed(Ask {}))), Ok(all));
        let mut later = Vec::new();
        write(&mut later, &serde_json::json!({"flags": 5, "colour": "blue"}));
        assert_eq!(read(&later), Ok(Some(ManagerState { flags: 5, replaces: 0 })));
    }

    #[test]
    fn nonsense_is_not_taken_for_a_choice_of_all() {
        for content in [&b""[..], b"\xc1", b"\x81\xa7servers\x91\xa4nope", b"\x81\xa7servers\x01", b"\x81"] {
            assert_eq!(attach(&encoded(&content)), Err(Error::Malformed), "{content:?}");
        }
        assert_eq!(decode::<AttachNewServers>(&[0xc3]), Err(Error::Malformed));
    }

    #[test]
    fn an_element_stands_behind_those_of_2010_and_reads_back() {
        let extension = Extension {
            message_limit: Some(1 << 20),
            message_limits: ["10.0.0.1:19800", "[::1]:2"]
                .map(|text| (NodeAddress::new(text.parse().unwrap()), 1 << 30))
                .to_vec(),
            votes: true,
            register: Some(ByteBuf::from([0, 200, 255])),
        };
        let alive = KeepAlive { clock: 5, extension: Some(extension) };
        let bytes = encoded(&alive);
        assert_eq!(&bytes[..3], [0x92, 0x05, 0xda], "a raw of the old dialect");
        assert_eq!(decode(&bytes), Ok(alive));
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let mut content = Vec::new();
        pack::map(&mut content, 2);
        for (name, value) in [("message_limit", 9), ("later", 7)] {
            pack::raw(&mut content, name.as_bytes());
            pack::uint(&mut content, value);
        }
        let read = |element: &[u8]| decode::<HashSpaceRequest>(&[&[0x91], element].concat()).map(|call| call.extension);
        let extension = Extension { message_limit: Some(9), ..Extension::default() };
        assert_eq!(read(&encoded(&&content[..])), Ok(Some(extension)));
        for other in [&[0xc0][..], &[0xa0], &[0x05], &[0xa1, 0xc1], &[0xa3, 1, 2, 3]] {
            assert_eq!(read(other), Ok(None), "{other:?}");
        }
    }
}
