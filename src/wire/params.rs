//! Parameters and results of the methods: from a parameter object to plain data, and back.
//!
//! A parameter array may be longer than expected; shorter, or of the wrong types, is [`Error::Malformed`], which
//! servers answer with error 5 (protocol, sections 2 and 7). What is borrowed here lives as long as the message.

use super::record::{RecordKey, RecordValue};
use super::unpack::Reader;
use super::{Error, NodeAddress, extension, pack};
use crate::clock::ClockTime;

/// A hash space as it travels: nodes in ring order with their state, and when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Seed {
    /// Every node with whether it is active; a faulty one keeps its place on the ring.
    pub nodes: Vec<(NodeAddress, bool)>,
    /// Orders the versions of a hash space; zero for the empty one.
    pub clocktime: ClockTime,
}

/// Nodes that a hash space may have: far above any cluster, far below what could hurt.
pub const NODE_LIMIT: usize = 4096;

impl Seed {
    /// Reads a seed.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let len = reader.array()?;
        if len < 2 {
            return Err(Error::Malformed);
        }
        let count = reader.array()?;
        if count > NODE_LIMIT {
            return Err(Error::Malformed);
        }
        let mut nodes: Vec<(NodeAddress, bool)> = Vec::new();
        for _ in 0..count {
            let (state, address) = reader.raw()?.split_first().ok_or(Error::Malformed)?;
            let address = NodeAddress::parse_some(address)?;
            if nodes.iter().any(|(known, _)| *known == address) {
                return Err(Error::Malformed);
            }
            nodes.push((address, *state != 0));
        }
        let clocktime = ClockTime(reader.u64()?);
        skip_extra(reader, len, 2)?;
        Ok(Self { nodes, clocktime })
    }

    /// Appends this seed.
    pub fn write(&self, out: &mut Vec<u8>) {
        pack::array(out, 2);
        pack::array(out, self.nodes.len());
        for (address, active) in &self.nodes {
            let bytes = address.bytes();
            pack::raw_header(out, 1 + bytes.len());
            out.push(u8::from(*active));
            out.extend_from_slice(&bytes);
        }
        pack::uint(out, self.clocktime.0);
    }

    /// The active nodes, in ring order.
    pub fn active(&self) -> impl Iterator<Item = NodeAddress> {
        self.nodes.iter().filter(|(_, active)| *active).map(|(node, _)| *node)
    }

    /// Whether any node is active; without one a hash space cannot be used.
    pub fn has_active(&self) -> bool {
        self.nodes.iter().any(|(_, active)| *active)
    }
}

/// Passes over the elements beyond the expected ones.
fn skip_extra(reader: &mut Reader<'_>, len: usize, expected: usize) -> Result<(), Error> {
    for _ in expected..len {
        reader.skip()?;
    }
    Ok(())
}

/// Opens a parameter array that must have at least `expected` elements.
#[inline]
fn open(params: &[u8], expected: usize) -> Result<(Reader<'_>, usize), Error> {
    let mut reader = Reader::new(params);
    let len = reader.array()?;
    if len < expected { Err(Error::Malformed) } else { Ok((reader, len)) }
}

/// Appends an array of nothing.
pub fn write_empty(out: &mut Vec<u8>) {
    pack::array(out, 0);
}

/// `[key]` of Get.
#[inline]
pub fn get(params: &[u8]) -> Result<RecordKey<'_>, Error> {
    let (mut reader, _) = open(params, 1)?;
    RecordKey::new(reader.raw()?)
}

/// Appends the parameters of Get.
pub fn write_get(out: &mut Vec<u8>, key: &[u8]) {
    pack::array(out, 1);
    pack::raw(out, key);
}

/// `[key, clocktime]` of `GetIfModified`.
pub fn get_if_modified(params: &[u8]) -> Result<(RecordKey<'_>, ClockTime), Error> {
    let (mut reader, _) = open(params, 2)?;
    Ok((RecordKey::new(reader.raw()?)?, ClockTime(reader.u64()?)))
}

/// Appends the parameters of `GetIfModified`.
pub fn write_get_if_modified(out: &mut Vec<u8>, key: &[u8], clocktime: ClockTime) {
    pack::array(out, 2);
    pack::raw(out, key);
    pack::uint(out, clocktime.0);
}

/// The kind of a Set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOp {
    /// Answer when all replicas have it.
    Sync,
    /// Answer after the local store.
    Async,
    /// Only if the stored clocktime is the one in the value.
    Cas,
}

impl SetOp {
    /// The number on the wire.
    pub fn number(self) -> u64 {
        match self {
            Self::Sync => 0,
            Self::Async => 1,
            Self::Cas => 2,
        }
    }
}

/// `[op, key, value]` of Set.
#[inline]
pub fn set(params: &[u8]) -> Result<(SetOp, RecordKey<'_>, RecordValue<'_>), Error> {
    let (mut reader, _) = open(params, 3)?;
    let op = match reader.u64()? {
        0 => SetOp::Sync,
        1 => SetOp::Async,
        2 => SetOp::Cas,
        _ => return Err(Error::Malformed),
    };
    Ok((op, RecordKey::new(reader.raw()?)?, RecordValue::live(reader.raw()?)?))
}

/// Appends the parameters of Set.
pub fn write_set(out: &mut Vec<u8>, op: SetOp, key: &[u8], value: &[u8]) {
    pack::array(out, 3);
    pack::uint(out, op.number());
    pack::raw(out, key);
    pack::raw(out, value);
}

/// `[flags, key]` of Delete.
#[inline]
pub fn delete(params: &[u8]) -> Result<(u32, RecordKey<'_>), Error> {
    let (mut reader, _) = open(params, 2)?;
    Ok((reader.u32()?, RecordKey::new(reader.raw()?)?))
}

/// Appends the parameters of Delete.
pub fn write_delete(out: &mut Vec<u8>, flags: u32, key: &[u8]) {
    pack::array(out, 2);
    pack::uint(out, flags.into());
    pack::raw(out, key);
}

/// Appends the parameters of Set for a value in its parts; see [`super::record`].
pub fn write_set_parts(out: &mut Vec<u8>, op: SetOp, key: &[u8], clocktime: ClockTime, meta: u16, data: &[u8]) {
    pack::array(out, 3);
    pack::uint(out, op.number());
    pack::raw(out, key);
    pack::raw_header(out, super::record::VALUE_HEADER + data.len());
    out.extend_from_slice(&clocktime.0.to_be_bytes());
    out.extend_from_slice(&meta.to_be_bytes());
    out.extend_from_slice(data);
}

/// Bytes that a Set of a raw key and an application's data takes besides those, at most.
pub const SET_OVERHEAD: usize = 32;
/// Bytes that a `ReplicateSet` of a raw key and a value's body takes besides those, at most.
pub const COPY_OVERHEAD: usize = 40;

/// Parameters of `ReplicateSet` and `ReplicateDelete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicate<'a, V> {
    /// The sender's clock.
    pub clock: u32,
    /// See [`super::method::REPLICATE_BY_RHS`].
    pub flags: u32,
    /// Whose replica it is.
    pub key: RecordKey<'a>,
    /// The value, or the clocktime of the deletion.
    pub value: V,
}

/// `[clock, flags, key, value]` of `ReplicateSet`.
#[inline]
pub fn replicate_set(params: &[u8]) -> Result<Replicate<'_, RecordValue<'_>>, Error> {
    let (mut reader, _) = open(params, 4)?;
    let (clock, flags) = (reader.u32()?, reader.u32()?);
    Ok(Replicate { clock, flags, key: RecordKey::new(reader.raw()?)?, value: RecordValue::live(reader.raw()?)? })
}

/// Appends the parameters of `ReplicateSet`.
#[inline]
pub fn write_replicate_set(out: &mut Vec<u8>, clock: u32, flags: u32, key: &[u8], clocktime: ClockTime, body: &[u8]) {
    pack::array(out, 4);
    pack::uint(out, clock.into());
    pack::uint(out, flags.into());
    pack::raw(out, key);
    pack::raw_header(out, super::record::TOMBSTONE_LEN + body.len());
    out.extend_from_slice(&clocktime.0.to_be_bytes());
    out.extend_from_slice(body);
}

/// `[clock, flags, clocktime, key]` of `ReplicateDelete`.
#[inline]
pub fn replicate_delete(params: &[u8]) -> Result<Replicate<'_, ClockTime>, Error> {
    let (mut reader, _) = open(params, 4)?;
    let (clock, flags) = (reader.u32()?, reader.u32()?);
    let clocktime = ClockTime(reader.u64()?);
    Ok(Replicate { clock, flags, key: RecordKey::new(reader.raw()?)?, value: clocktime })
}

/// Appends the parameters of `ReplicateDelete`.
#[inline]
pub fn write_replicate_delete(out: &mut Vec<u8>, clock: u32, flags: u32, clocktime: ClockTime, key: &[u8]) {
    pack::array(out, 4);
    pack::uint(out, clock.into());
    pack::uint(out, flags.into());
    pack::uint(out, clocktime.0);
    pack::raw(out, key);
}

/// `[clock]` of `KeepAlive`.
pub fn keep_alive(params: &[u8]) -> Result<u32, Error> {
    open(params, 1)?.0.u32()
}

/// Appends the parameters of `KeepAlive`.
pub fn write_keep_alive(out: &mut Vec<u8>, clock: u32) {
    pack::array(out, 1);
    pack::uint(out, clock.into());
}

/// `[whs, rhs]` of `HashSpacePush`, and the result of `HashSpaceRequest`.
pub fn hash_spaces(params: &[u8]) -> Result<(Seed, Seed), Error> {
    let (mut reader, _) = open(params, 2)?;
    Ok((Seed::read(&mut reader)?, Seed::read(&mut reader)?))
}

/// Appends `[whs, rhs]`.
pub fn write_hash_spaces(out: &mut Vec<u8>, whs: &Seed, rhs: &Seed) {
    pack::array(out, 2);
    whs.write(out);
    rhs.write(out);
}

/// `[whs, rhs, clock]` of `HashSpaceSync`.
pub fn hash_space_sync(params: &[u8]) -> Result<(Seed, Seed, u32), Error> {
    let (mut reader, _) = open(params, 3)?;
    Ok((Seed::read(&mut reader)?, Seed::read(&mut reader)?, reader.u32()?))
}

/// Appends the parameters of `HashSpaceSync`.
pub fn write_hash_space_sync(out: &mut Vec<u8>, whs: &Seed, rhs: &Seed, clock: u32) {
    pack::array(out, 3);
    whs.write(out);
    rhs.write(out);
    pack::uint(out, clock.into());
}

/// `[seed, clock, full]` of `ReplaceCopyStart`; `full` may be left out.
pub fn replace_copy_start(params: &[u8]) -> Result<(Seed, u32, bool), Error> {
    let (mut reader, len) = open(params, 2)?;
    let (seed, clock) = (Seed::read(&mut reader)?, reader.u32()?);
    let full = if len > 2 { reader.bool()? } else { false };
    Ok((seed, clock, full))
}

/// Appends the parameters of `ReplaceCopyStart`.
pub fn write_replace_copy_start(out: &mut Vec<u8>, seed: &Seed, clock: u32, full: bool) {
    pack::array(out, 3);
    seed.write(out);
    pack::uint(out, clock.into());
    pack::bool(out, full);
}

/// `[seed, clock]` of `ReplaceDeleteStart` and `ReplaceElection`.
pub fn seed_and_clock(params: &[u8]) -> Result<(Seed, u32), Error> {
    let (mut reader, _) = open(params, 2)?;
    Ok((Seed::read(&mut reader)?, reader.u32()?))
}

/// Appends `[seed, clock]`.
pub fn write_seed_and_clock(out: &mut Vec<u8>, seed: &Seed, clock: u32) {
    pack::array(out, 2);
    seed.write(out);
    pack::uint(out, clock.into());
}

/// `[clocktime, clock]` of `ReplaceCopyEnd` and `ReplaceDeleteEnd`.
pub fn replace_end(params: &[u8]) -> Result<(ClockTime, u32), Error> {
    let (mut reader, _) = open(params, 2)?;
    Ok((ClockTime(reader.u64()?), reader.u32()?))
}

/// Appends the parameters of `ReplaceCopyEnd` and `ReplaceDeleteEnd`.
pub fn write_replace_end(out: &mut Vec<u8>, clocktime: ClockTime, clock: u32) {
    pack::array(out, 2);
    pack::uint(out, clocktime.0);
    pack::uint(out, clock.into());
}

/// `[stream address]` of `ReplaceOffer`.
pub fn replace_offer(params: &[u8]) -> Result<NodeAddress, Error> {
    NodeAddress::parse_some(open(params, 1)?.0.raw()?)
}

/// Appends the parameters of `ReplaceOffer`.
pub fn write_replace_offer(out: &mut Vec<u8>, stream: NodeAddress) {
    pack::array(out, 1);
    pack::raw(out, &stream.bytes());
}

/// `[suffix]` of `CreateBackup`, for servers and managers.
pub fn backup_suffix(params: &[u8]) -> Result<&[u8], Error> {
    open(params, 1)?.0.raw()
}

/// Whether a backup may be named so: `[A-Za-z0-9._-]`, 1 to 64 characters, no leading dot (protocol, section 7).
pub fn is_backup_suffix(suffix: &[u8]) -> bool {
    (1..=64).contains(&suffix.len())
        && !suffix.starts_with(b".")
        && suffix.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// Appends the parameters of `CreateBackup`.
pub fn write_backup_suffix(out: &mut Vec<u8>, suffix: &[u8]) {
    pack::array(out, 1);
    pack::raw(out, suffix);
}

/// `[number]` of `GetStatus`.
pub fn status(params: &[u8]) -> Result<u32, Error> {
    open(params, 1)?.0.u32()
}

/// Appends the parameters of `GetStatus`.
pub fn write_status(out: &mut Vec<u8>, number: u32) {
    pack::array(out, 1);
    pack::uint(out, number.into());
}

/// `[number, value]` of `SetConfig`; the value's type depends on the number.
pub fn config(params: &[u8]) -> Result<(u32, Reader<'_>), Error> {
    let (mut reader, _) = open(params, 2)?;
    Ok((reader.u32()?, reader))
}

/// Appends the parameters of `SetConfig` for a boolean setting.
pub fn write_config_bool(out: &mut Vec<u8>, number: u32, value: bool) {
    pack::array(out, 2);
    pack::uint(out, number.into());
    pack::bool(out, value);
}

/// `[bool]` of a manager's attach, detach, automatic and full replace; `default` where it may be left out.
pub fn switch(params: &[u8], default: Option<bool>) -> Result<bool, Error> {
    let (mut reader, len) = open(params, 0)?;
    match default {
        Some(default) if len == 0 => Ok(default),
        _ => reader.bool(),
    }
}

/// Appends `[bool]`.
pub fn write_switch(out: &mut Vec<u8>, value: bool) {
    pack::array(out, 1);
    pack::bool(out, value);
}

/// The result of `GetNodesInfo`: the hash space for writing, and the servers not attached to it.
pub fn nodes_info(result: &[u8]) -> Result<(Seed, Vec<NodeAddress>), Error> {
    let (mut reader, _) = open(result, 2)?;
    let whs = Seed::read(&mut reader)?;
    let count = reader.array()?;
    if count > NODE_LIMIT {
        return Err(Error::Malformed);
    }
    let detached = (0..count).map(|_| NodeAddress::parse_some(reader.raw()?)).collect::<Result<_, _>>()?;
    Ok((whs, detached))
}

/// Appends the result of `GetNodesInfo`; with `state` for those who asked for it.
pub fn write_nodes_info(
    out: &mut Vec<u8>,
    whs: &Seed,
    detached: &[NodeAddress],
    state: Option<extension::ManagerState>,
) {
    pack::array(out, if state.is_some() { 3 } else { 2 });
    whs.write(out);
    pack::array(out, detached.len());
    for address in detached {
        pack::raw(out, &address.bytes());
    }
    if let Some(state) = state {
        extension::write(out, &state);
    }
}

/// A seed as a whole result: of methods 4 and 5 and of status 9 and 10.
pub fn seed(result: &[u8]) -> Result<Seed, Error> {
    Seed::read(&mut Reader::new(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> NodeAddress {
        NodeAddress::new(text.parse().unwrap())
    }

    #[test]
    fn a_seed_reads_back() {
        let seed = Seed {
            nodes: vec![(node("127.0.0.1:1"), true), (node("[::1]:2"), false)],
            clocktime: ClockTime::new(9, 3),
        };
        let mut out = Vec::new();
        write_replace_copy_start(&mut out, &seed, 7, true);
        assert_eq!(replace_copy_start(&out), Ok((seed, 7, true)));
    }

    #[test]
    fn a_seed_that_names_a_node_twice_is_refused() {
        let seed = Seed { nodes: vec![(node("127.0.0.1:1"), true); 2], clocktime: ClockTime(1) };
        let mut out = Vec::new();
        seed.write(&mut out);
        assert_eq!(super::seed(&out), Err(Error::Malformed));
    }

    #[test]
    fn full_may_be_left_out() {
        let mut out = vec![0x92];
        Seed::default().write(&mut out);
        out.push(5);
        assert_eq!(replace_copy_start(&out), Ok((Seed::default(), 5, false)));
        assert_eq!(switch(&[0x90], Some(false)), Ok(false));
        assert_eq!(switch(&[0x90], None), Err(Error::Malformed));
    }

    #[test]
    fn backup_suffixes_stay_in_their_directory() {
        for suffix in ["20261122", "a", "before_upgrade-2.1", &"x".repeat(64)] {
            assert!(is_backup_suffix(suffix.as_bytes()), "{suffix}");
        }
        for suffix in ["", ".", "..", ".a", "a/b", "../a", "a b", "a\0", "\u{e4}", &"x".repeat(65)] {
            assert!(!is_backup_suffix(suffix.as_bytes()), "{suffix}");
        }
    }

    #[test]
    fn extra_elements_are_ignored_and_missing_ones_refused() {
        let key = [0x93, 0xa8, 0, 0, 0, 0, 0, 0, 0, 1, 0xc0, 0x05];
        assert_eq!(get(&key).map(|key| key.hash()), Ok(1));
        assert!(get_if_modified(&[0x91, 0xa8, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
        assert!(get(&[0x05]).is_err());
    }

    #[test]
    fn a_set_must_have_a_known_op_and_a_whole_value() {
        let key = [0; 8];
        for (op, value_len, fine) in [(0u8, 10, true), (2, 11, true), (3, 10, false), (0, 9, false), (0, 8, false)] {
            let mut out = vec![0x93, op];
            pack::raw(&mut out, &key);
            pack::raw(&mut out, &vec![0; value_len]);
            assert_eq!(set(&out).is_ok(), fine, "op {op}, {value_len} bytes");
        }
    }
}
