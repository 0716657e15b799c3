//! The things that parameters and results are made of: each is one object of a message, written and read in one way.
//!
//! Borrowed parts live as long as the message. [`super::method`] says which methods have which parameters.

use super::extension::{self, Addition, Extension, ManagerState};
use super::numbers::numbered;
use super::record::{RecordKey, RecordValue, TOMBSTONE_LEN, VALUE_HEADER};
use super::unpack::Reader;
use super::{Error, NodeAddress, pack};
use crate::clock::ClockTime;

/// Something that can be written as one object of a message.
pub trait Encode {
    /// Appends it.
    fn encode(&self, out: &mut Vec<u8>);
}

/// Something that can be read from one object of a message.
pub trait Decode<'a>: Sized {
    /// Reads it; an object of another shape is [`Error::Malformed`].
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error>;
}

/// Reads `bytes`, which are one object.
#[inline]
pub fn decode<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    T::decode(&mut Reader::new(bytes))
}

/// The elements of an array. It may have more than are read; fewer is [`Error::Malformed`].
pub(super) struct Elements<'a, 'r> {
    reader: &'r mut Reader<'a>,
    left: usize,
}

impl<'a, 'r> Elements<'a, 'r> {
    /// Those of the array that comes next.
    #[inline]
    pub(super) fn open(reader: &'r mut Reader<'a>) -> Result<Self, Error> {
        let left = reader.array()?;
        Ok(Self { reader, left })
    }

    /// Reads the next one.
    #[inline]
    pub(super) fn next<T: Decode<'a>>(&mut self) -> Result<T, Error> {
        self.left = self.left.checked_sub(1).ok_or(Error::Malformed)?;
        T::decode(self.reader)
    }

    /// Reads the next one, which may be left out.
    #[inline]
    pub(super) fn next_or<T: Decode<'a>>(&mut self, default: T) -> Result<T, Error> {
        if self.left == 0 { Ok(default) } else { self.next() }
    }

    /// Reads the additional element that programs of 2010 do not know, if there is one; see [`super::extension`].
    #[inline]
    pub(super) fn addition<T: Addition>(&mut self) -> Result<Option<T>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.next() {
            Ok(Object(element)) => extension::read(element),
            Err(error) => Err(error),
        }
    }

    /// Passes over the others.
    #[inline]
    pub(super) fn end(self) -> Result<(), Error> {
        for _ in 0..self.left {
            self.reader.skip()?;
        }
        Ok(())
    }
}

/// Defines a struct that travels as an array: its fields in order, of which `name: type = value` may be left out, and
/// behind them a `+ name: type` that programs of 2010 do not know ([`super::extension`]).
macro_rules! array {
    (
        $(#[$doc:meta])*
        $name:ident $(<$($part:ident),+>)? {
            $($(#[$field_doc:meta])* $field:ident: $type:ty $(= $default:literal)?,)*
            $(+ $(#[$added_doc:meta])* $added:ident: $addition:ty,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name $(<$($part),+>)? {
            $($(#[$field_doc])* pub $field: $type,)*
            $($(#[$added_doc])* pub $added: Option<$addition>,)?
        }

        impl $(<$($part),+>)? $name $(<$($part),+>)? {
            /// The names of the elements, with the value of those that may be left out.
            #[cfg(test)]
            #[allow(dead_code, reason = "not every array is a method's")]
            pub(crate) const ELEMENTS: &'static [&'static str] =
                &[$(concat!(stringify!($field) $(, " = ", $default)?)),*];
        }

        impl $(<$($part: Encode),+>)? Encode for $name $(<$($part),+>)? {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                let elements: &[&str] = &[$(stringify!($field)),*];
                $crate::wire::pack::array(out, elements.len() $(+ usize::from(self.$added.is_some()))?);
                $(self.$field.encode(out);)*
                $(if let Some(added) = &self.$added {
                    $crate::wire::extension::Addition::write(added, out);
                })?
            }
        }

        impl<'a $($(, $part: Decode<'a>)+)?> Decode<'a> for $name $(<$($part),+>)? {
            #[inline]
            #[allow(unused_mut, reason = "some arrays are empty")]
            fn decode(reader: &mut $crate::wire::unpack::Reader<'a>) -> Result<Self, $crate::wire::Error> {
                let mut elements = $crate::wire::params::Elements::open(reader)?;
                let read = Self {
                    $($field: array!(@next elements $(, $default)?),)*
                    $($added: elements.addition::<$addition>()?,)?
                };
                elements.end()?;
                Ok(read)
            }
        }
    };
    (@next $elements:ident) => { $elements.next()? };
    (@next $elements:ident, $default:literal) => { $elements.next_or($default)? };
}

pub(super) use array;

/// Defines how a type is written and read.
macro_rules! object {
    ($type:ty, |$value:ident, $out:ident| $encode:expr, |$reader:ident| $decode:expr) => {
        impl Encode for $type {
            #[inline]
            fn encode(&self, $out: &mut Vec<u8>) {
                let $value = self;
                $encode
            }
        }

        impl<'a> Decode<'a> for $type {
            #[inline]
            fn decode($reader: &mut Reader<'a>) -> Result<Self, Error> {
                $decode
            }
        }
    };
}

object!(u32, |value, out| pack::uint(out, (*value).into()), |reader| reader.u32());
object!(u64, |value, out| pack::uint(out, *value), |reader| reader.u64());
object!(bool, |value, out| pack::bool(out, *value), |reader| reader.bool());
object!(ClockTime, |value, out| pack::uint(out, value.0), |reader| reader.u64().map(ClockTime));
object!(NodeAddress, |value, out| pack::raw(out, &value.bytes()), |reader| NodeAddress::parse_some(reader.raw()?));
object!(SetOp, |value, out| pack::uint(out, value.number().into()), |reader| {
    u8::try_from(reader.u64()?).ok().and_then(SetOp::from_number).ok_or(Error::Malformed)
});

/// A byte string.
impl<T: AsRef<[u8]> + ?Sized> Encode for &T {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw(out, self.as_ref());
    }
}

impl<'a> Decode<'a> for &'a [u8] {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        reader.raw()
    }
}

impl Encode for RecordKey<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw(out, self.bytes());
    }
}

impl<'a> Decode<'a> for RecordKey<'a> {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        RecordKey::new(reader.raw()?)
    }
}

impl Encode for RecordValue<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw(out, self.bytes());
    }
}

/// A live value: tombstones do not travel.
impl<'a> Decode<'a> for RecordValue<'a> {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        RecordValue::live(reader.raw()?)
    }
}

/// A live value to be written that lies in two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped<'a> {
    /// When it was written.
    pub clocktime: ClockTime,
    /// Meta and data.
    pub body: &'a [u8],
}

impl Encode for Stamped<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw_header(out, TOMBSTONE_LEN + self.body.len());
        out.extend_from_slice(&self.clocktime.0.to_be_bytes());
        out.extend_from_slice(self.body);
    }
}

/// A live value to be written that lies in three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// When it was written; of a compare-and-swap, when the value that is to be replaced was.
    pub clocktime: ClockTime,
    /// The two bytes in front of the data.
    pub meta: u16,
    /// The application's bytes.
    pub data: &'a [u8],
}

impl Encode for Parts<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw_header(out, VALUE_HEADER + self.data.len());
        out.extend_from_slice(&self.clocktime.0.to_be_bytes());
        out.extend_from_slice(&self.meta.to_be_bytes());
        out.extend_from_slice(self.data);
    }
}

/// An object of any type, as its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<'a>(pub &'a [u8]);

impl<'a> Object<'a> {
    /// Reads it as what it is expected to be.
    pub fn read<T: Decode<'a>>(self) -> Result<T, Error> {
        decode(self.0)
    }
}

impl<'a> Decode<'a> for Object<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        reader.skip().map(Self)
    }
}

/// Nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nil;

object!(Nil, |_value, out| pack::nil(out), |reader| if reader.nil() { Ok(Nil) } else { Err(Error::Malformed) });

/// True, or nil instead of false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrueOrNil(pub bool);

object!(TrueOrNil, |value, out| if value.0 { pack::bool(out, true) } else { pack::nil(out) }, |reader| {
    if reader.nil() { Ok(Self(false)) } else { reader.bool().map(Self) }
});

/// Nil if there is none.
impl<T: Encode> Encode for Option<T> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.encode(out),
            None => pack::nil(out),
        }
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        if reader.nil() { Ok(None) } else { T::decode(reader).map(Some) }
    }
}

/// An array of two.
impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        pack::array(out, 2);
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl<'a, A: Decode<'a>, B: Decode<'a>> Decode<'a> for (A, B) {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut elements = Elements::open(reader)?;
        let both = (elements.next()?, elements.next()?);
        elements.end()?;
        Ok(both)
    }
}

/// A raw that holds what only programs of today know; see [`super::extension`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed<T>(pub T);

impl<T: Addition> Encode for Packed<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        extension::write(out, &self.0);
    }
}

impl<'a, T: Addition> Decode<'a> for Packed<T> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        extension::parse(reader.raw()?).map(Self)
    }
}

array! {
    /// The nodes that a manager knows.
    NodesInfo<S> {
        /// The hash space for writing.
        whs: S,
        /// The servers that are not attached to it.
        detached: Vec<NodeAddress>,
        + /// What the manager has under way, for those who have asked.
        state: ManagerState,
    }
}

array! {
    /// The hash spaces.
    Spaces<S> {
        /// For writing.
        whs: S,
        /// For reading.
        rhs: S,
        + /// To those who have sent one: how long a message servers take.
        extension: Extension,
    }
}

numbered! {
    /// The kind of a Set.
    SetOp: u8 {
        /// Answer when all replicas have it.
        Sync = 0,
        /// Answer after the local store.
        Async = 1,
        /// Only if the stored clocktime is the one in the value.
        Cas = 2,
    }
}

/// The outcome of a write: the result of Set, Delete and the copies of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Of a Set: it is stored, under this clocktime.
    At(ClockTime),
    /// Of a Set, false: a compare-and-swap did not match. Of a Delete, whether there was something. Of a copy, whether it
    /// was newer.
    Is(bool),
    /// A replica that must have it could not be written.
    Partly,
}

impl Encode for Written {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::At(clocktime) => clocktime.encode(out),
            Self::Is(value) => value.encode(out),
            Self::Partly => pack::nil(out),
        }
    }
}

impl<'a> Decode<'a> for Written {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        if reader.nil() {
            return Ok(Self::Partly);
        }
        match reader.clone().u64() {
            Ok(clocktime) => Ok(Self::At(ClockTime(clocktime))),
            Err(_) => reader.bool().map(Self::Is),
        }
    }
}

/// The result of `GetIfModified`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modified<'a> {
    /// The stored record is not later than the given clocktime.
    No,
    /// The live value, or none.
    Now(Option<RecordValue<'a>>),
}

impl Encode for Modified<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::No => pack::bool(out, true),
            Self::Now(value) => value.encode(out),
        }
    }
}

impl<'a> Decode<'a> for Modified<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        match reader.clone().bool() {
            Ok(true) => Ok(Self::No),
            _ => Decode::decode(reader).map(Self::Now),
        }
    }
}

/// Nodes that a hash space may have: far above any cluster, far below what could hurt.
pub(crate) const NODE_LIMIT: usize = 4096;

/// Addresses of nodes, at most [`NODE_LIMIT`].
impl Encode for Vec<NodeAddress> {
    fn encode(&self, out: &mut Vec<u8>) {
        pack::array(out, self.len());
        for address in self {
            address.encode(out);
        }
    }
}

impl<'a> Decode<'a> for Vec<NodeAddress> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let count = reader.array()?;
        if count > NODE_LIMIT {
            return Err(Error::Malformed);
        }
        (0..count).map(|_| NodeAddress::decode(reader)).collect()
    }
}

/// A hash space as it travels: nodes in ring order with their state, and when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Seed {
    /// Every node with whether it is active; a faulty one keeps its place on the ring.
    pub nodes: Vec<(NodeAddress, bool)>,
    /// Orders the versions of a hash space; zero for the empty one.
    pub clocktime: ClockTime,
}

impl<'a> Decode<'a> for Seed {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut elements = Elements::open(reader)?;
        let Nodes(nodes) = elements.next()?;
        let seed = Self { nodes, clocktime: elements.next()? };
        elements.end()?;
        Ok(seed)
    }
}

/// Those of a seed.
struct Nodes(Vec<(NodeAddress, bool)>);

impl<'a> Decode<'a> for Nodes {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
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
        Ok(Self(nodes))
    }
}

impl Encode for Seed {
    fn encode(&self, out: &mut Vec<u8>) {
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
}

impl Encode for &Seed {
    fn encode(&self, out: &mut Vec<u8>) {
        (*self).encode(out);
    }
}

impl Seed {
    /// The active nodes, in ring order.
    pub fn active(&self) -> impl Iterator<Item = NodeAddress> {
        self.nodes.iter().filter(|(_, active)| *active).map(|(node, _)| *node)
    }

    /// Whether any node is active; without one a hash space cannot be used.
    pub fn has_active(&self) -> bool {
        self.nodes.iter().any(|(_, active)| *active)
    }
}

/// Bytes that a Set of a raw key and an application's data takes besides those, at most.
pub(crate) const SET_OVERHEAD: usize = 32;
/// Bytes that a `ReplicateSet` of a raw key and a value's body takes besides those, at most.
pub(crate) const COPY_OVERHEAD: usize = 40;

/// Whether a backup may be named so: `[A-Za-z0-9._-]`, 1 to 64 characters, no leading dot (protocol, section 7).
pub(crate) fn is_backup_suffix(suffix: &[u8]) -> bool {
    (1..=64).contains(&suffix.len())
        && !suffix.starts_with(b".")
        && suffix.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backup_suffixes_stay_in_their_directory() {
        for suffix in ["20261122", "a", "before_upgrade-2.1", &"x".repeat(64)] {
            assert!(is_backup_suffix(suffix.as_bytes()), "{suffix}");
        }
        for suffix in ["", ".", "..", ".a", "a/b", "../a", "a b", "a\0", "\u{e4}", &"x".repeat(65)] {
            assert!(!is_backup_suffix(suffix.as_bytes()), "{suffix}");
        }
    }
}
