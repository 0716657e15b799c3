//! The records, as values and as bytes.

use crate::wire::method::ErrorCode;
use crate::wire::{NodeAddress, pack};

/// A record that we write. The names and versions are the original's.
#[derive(Debug, Clone, Copy)]
pub enum Record<'a> {
    /// A server has started ("SS").
    ServerStarted {
        /// Its own address.
        address: NodeAddress,
        /// Path of the store.
        store: &'a [u8],
        /// The first manager.
        manager1: Option<NodeAddress>,
        /// The second one, if there are two.
        manager2: Option<NodeAddress>,
        /// Address of the replace stream.
        stream: NodeAddress,
        /// Folder of the offers' temporary files.
        offer_dir: &'a [u8],
        /// Paths of backups begin with this.
        backup_prefix: &'a [u8],
    },
    /// A set could not be copied to a replica ("ers").
    ReplicateSetFailed {
        /// The key, without its hash.
        key: &'a [u8],
        /// The data.
        value: &'a [u8],
        /// The key's hash.
        hash: u64,
        /// The clocktime of the set.
        clocktime: u64,
        /// The replica.
        to: NodeAddress,
    },
    /// A delete could not be copied to a replica ("erd").
    ReplicateDeleteFailed {
        /// The key, without its hash.
        key: &'a [u8],
        /// The key's hash.
        hash: u64,
        /// The replica.
        to: NodeAddress,
    },
    /// A manager has started ("SM").
    ManagerStarted {
        /// Its own address.
        address: NodeAddress,
        /// The other manager, if there are two.
        partner: Option<NodeAddress>,
    },
    /// A server has come ("nS").
    ServerFound {
        /// The server.
        address: NodeAddress,
    },
    /// A server is lost ("lS").
    ServerLost {
        /// The server.
        address: NodeAddress,
    },
    /// The other manager is lost ("eP").
    PartnerLost {
        /// The other manager.
        address: NodeAddress,
    },
    /// A gateway has started ("SW").
    GatewayStarted {
        /// The first manager.
        manager1: Option<NodeAddress>,
        /// The second one, if there are two.
        manager2: Option<NodeAddress>,
    },
    /// A gateway has given up a read ("eg").
    GetFailed {
        /// The key, without its hash.
        key: &'a [u8],
        /// The last error; see [`ErrorCode`].
        error: ErrorCode,
    },
    /// A gateway has given up a write ("es").
    SetFailed {
        /// The key, without its hash.
        key: &'a [u8],
        /// The data.
        value: &'a [u8],
        /// The last error.
        error: ErrorCode,
    },
    /// A gateway has given up a deletion ("ed").
    DeleteFailed {
        /// The key, without its hash.
        key: &'a [u8],
        /// The last error.
        error: ErrorCode,
    },
}

/// A value in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An unsigned integer.
    Uint(u64),
    /// A byte string.
    Raw(Vec<u8>),
    /// Anything else, as its `MessagePack` bytes.
    Other(Vec<u8>),
}

/// A record as it was read, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its type: "SS", "ers", ...
    pub name: String,
    /// Version of its layout.
    pub version: u32,
    /// Its map in the order of the file; "time" comes first.
    pub fields: Vec<(String, Value)>,
}

impl Entry {
    /// The value of the field `name`.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// When it was written, in unix seconds.
    pub fn time(&self) -> Option<u64> {
        match self.field("time") {
            Some(Value::Uint(time)) => Some(*time),
            _ => None,
        }
    }
}

impl Record<'_> {
    /// Appends the record of the moment `time` (unix seconds) to `out`.
    pub(super) fn encode(&self, time: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.body(time, out);
        // A record is as long as one message at most, with a few small fields.
        let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(head) = out.get_mut(start..start + 4) {
            head.copy_from_slice(&len.to_be_bytes());
        }
    }

    fn body(&self, time: u64, out: &mut Vec<u8>) {
        match *self {
            Self::ServerStarted { address, store, manager1, manager2, stream, offer_dir, backup_prefix } => {
                head(out, "SS", 2, 8, time);
                node(out, "addr", Some(address));
                raw(out, "db", store);
                node(out, "mgr1", manager1);
                node(out, "mgr2", manager2);
                node(out, "sadd", Some(stream));
                raw(out, "tmpd", offer_dir);
                raw(out, "bkup", backup_prefix);
            }
            Self::ReplicateSetFailed { key, value, hash, clocktime, to } => {
                head(out, "ers", 4, 6, time);
                raw(out, "key", key);
                raw(out, "val", value);
                uint(out, "hash", hash);
                uint(out, "cktm", clocktime);
                node(out, "to", Some(to));
            }
            Self::ReplicateDeleteFailed { key, hash, to } => {
                head(out, "erd", 4, 4, time);
                raw(out, "key", key);
                uint(out, "hash", hash);
                node(out, "to", Some(to));
            }
            Self::ManagerStarted { address, partner } => {
                head(out, "SM", 2, 3, time);
                node(out, "addr", Some(address));
                node(out, "Padd", partner);
            }
            Self::ServerFound { address } => event(out, "nS", address, time),
            Self::ServerLost { address } => event(out, "lS", address, time),
            Self::PartnerLost { address } => event(out, "eP", address, time),
            Self::GatewayStarted { manager1, manager2 } => {
                head(out, "SW", 2, 3, time);
                node(out, "mgr1", manager1);
                node(out, "mgr2", manager2);
            }
            Self::GetFailed { key, error } => {
                head(out, "eg", 3, 3, time);
                raw(out, "key", key);
                uint(out, "err", error.number().into());
            }
            Self::SetFailed { key, value, error } => {
                head(out, "es", 3, 4, time);
                raw(out, "key", key);
                raw(out, "val", value);
                uint(out, "err", error.number().into());
            }
            Self::DeleteFailed { key, error } => {
                head(out, "ed", 3, 3, time);
                raw(out, "key", key);
                uint(out, "err", error.number().into());
            }
        }
    }
}

/// A record that only names a node.
fn event(out: &mut Vec<u8>, name: &str, address: NodeAddress, time: u64) {
    head(out, name, 3, 2, time);
    node(out, "addr", Some(address));
}

/// Name, version, and the map up to its first field.
fn head(out: &mut Vec<u8>, name: &str, version: u8, fields: usize, time: u64) {
    pack::array(out, 3);
    letters(out, name);
    pack::uint(out, u64::from(version));
    pack::map(out, fields);
    uint(out, "time", time);
}

fn uint(out: &mut Vec<u8>, name: &str, value: u64) {
    letters(out, name);
    pack::uint(out, value);
}

fn raw(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    letters(out, name);
    pack::raw(out, value);
}

/// A node's address; six zero bytes if there is none.
fn node(out: &mut Vec<u8>, name: &str, address: Option<NodeAddress>) {
    match address {
        Some(address) => raw(out, name, &address.bytes()),
        None => raw(out, name, &[0; 6]),
    }
}

/// Up to two letters as `uint16`, up to four as `uint32`, even where a shorter form would do.
fn letters(out: &mut Vec<u8>, text: &str) {
    let number = text.bytes().fold(0_u32, |number, letter| number << 8 | u32::from(letter));
    match u16::try_from(number) {
        Ok(short) => {
            out.push(rmp::Marker::U16.to_u8());
            out.extend_from_slice(&short.to_be_bytes());
        }
        Err(_) => {
            out.push(rmp::Marker::U32.to_u8());
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// The letters of a number.
pub(super) fn text_of(number: u32) -> String {
    number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).map(char::from).collect()
}
