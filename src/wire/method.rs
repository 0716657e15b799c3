//! The methods: one type for each, which says its number, its parameters and its result. [`super::requests`] says where
//! each is accepted, and from whom.
//!
//! A parameter array may be longer than expected; shorter, or of the wrong types, is [`Error::Malformed`], which
//! servers answer with error 5 (protocol, sections 2 and 7). What a method does is decided in the layers above.

pub use super::numbers::*;

use super::extension::{Ask, BackupEnd, Changed, Choice, Extension, Fence, Look, Route};
use super::numbers::numbered;
use super::params::{
    Decode, Encode, Modified, Nil, NodesInfo, Object, Packed, Seed, SetOp, Spaces, TrueOrNil, Written, array, decode,
};
use super::record::RecordValue;
use super::{Error, NodeAddress};
use crate::clock::ClockTime;

/// The parameters of a method, as one array.
pub trait Call: Encode {
    /// The method that is called.
    const METHOD: Method;
    /// The result.
    type Answer<'r>: Decode<'r>;

    /// Reads the result object's bytes.
    #[inline]
    fn answer(result: &[u8]) -> Result<Self::Answer<'_>, Error> {
        decode(result)
    }
}

/// Defines the methods: `Name = number { parameters } -> Result;` makes a struct `Name` of the parameters, which travels as
/// their array (see [`array`]), an entry `Name` of [`Method`], and the [`Call`] that ties the two together. A parameter that
/// is not written as the type that is read, a value in pieces for one, has a generic type.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident $(<$($part:ident),+>)? = $number:literal { $($params:tt)* } -> $answer:ty;)*) => {
        numbered! {
            /// Every method of servers and managers; all are version 0, so the number is the id.
            Method: u32 { $($(#[$doc])* $name = $number,)* }
        }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The names of its parameters, with the value of those that may be left out.
            #[cfg(test)]
            pub(crate) fn parameters(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => <$name $(<$(methods!(@any $part)),+>)?>::ELEMENTS,)*
                }
            }
        }

        $(
            array! { $(#[$doc])* $name $(<$($part),+>)? { $($params)* } }

            impl $(<$($part: Encode),+>)? Call for $name $(<$($part),+>)? {
                const METHOD: Method = Method::$name;
                type Answer<'r> = $answer;
            }
        )*
    };
    (@any $part:ident) => { () };
}

methods! {
    /// The caller is alive.
    KeepAlive = 0 {
        /// The caller's clock.
        clock: u32,
        + /// Between nodes of this program: what else they tell each other. The result then has one, too.
        extension: Extension,
    } -> Option<Packed<Extension>>;

    /// Asks for the hash spaces, for writing and for reading.
    HashSpaceRequest = 1 {
        + /// From clients of this program: asks for the same in the result.
        extension: Extension,
    } -> Spaces<Seed>;

    /// The hash spaces have changed, or are repeated. The result is true if either was taken.
    HashSpaceSync<S> = 2 {
        /// For writing.
        whs: S,
        /// For reading.
        rhs: S,
        /// The caller's clock.
        clock: u32,
    } -> TrueOrNil;

    /// A manager tells its clients of the hash spaces.
    HashSpacePush<S> = 3 {
        /// For writing.
        whs: S,
        /// For reading.
        rhs: S,
        + /// To clients that have asked: how long a message servers take.
        extension: Extension,
    } -> Nil;

    /// Asks for the hash space for writing.
    WhsRequest = 4 {} -> Seed;

    /// Asks for the hash space for reading.
    RhsRequest = 5 {} -> Seed;

    /// Starts the copying of a replace.
    ReplaceCopyStart<S> = 8 {
        /// The hash space to go over to.
        seed: S,
        /// The caller's clock.
        clock: u32,
        /// Whether records are sent also to servers that should have them already.
        full: bool = false,
    } -> bool;

    /// Starts the deleting of a replace.
    ReplaceDeleteStart<S> = 9 {
        /// The hash space that was gone over to.
        seed: S,
        /// The caller's clock.
        clock: u32,
    } -> bool;

    /// The copying of a server has ended.
    ReplaceCopyEnd = 10 {
        /// That of the seed that started it.
        clocktime: ClockTime,
        /// The caller's clock.
        clock: u32,
    } -> bool;

    /// The deleting of a server has ended.
    ReplaceDeleteEnd = 11 {
        /// That of the seed that started it.
        clocktime: ClockTime,
        /// The caller's clock.
        clock: u32,
    } -> bool;

    /// Which of two managers runs an automatic replace: true if the one that is asked does.
    ReplaceElection<S> = 12 {
        /// The hash space for writing.
        seed: S,
        /// The caller's clock.
        clock: u32,
    } -> TrueOrNil;

    /// The caller has a stream of records; answered when they are stored.
    ReplaceOffer = 16 {
        /// Where to get it.
        stream: NodeAddress,
        + /// Between servers that vote.
        fence: Fence,
    } -> bool;

    /// A coordinator writes a replica: true if it is stored, false if what is there is as new.
    ReplicateSet<K, V> = 32 {
        /// The caller's clock.
        clock: u32,
        /// See [`REPLICATE_BY_RHS`].
        flags: u32,
        /// The raw key.
        key: K,
        /// The raw value.
        value: V,
        + /// Between servers that vote.
        fence: Fence,
    } -> Written;

    /// A coordinator deletes a replica; likewise.
    ReplicateDelete<K> = 33 {
        /// The caller's clock.
        clock: u32,
        /// See [`REPLICATE_BY_RHS`].
        flags: u32,
        /// When it was deleted.
        clocktime: ClockTime,
        /// The raw key.
        key: K,
        + /// Between servers that vote.
        fence: Fence,
    } -> Written;

    /// Reads a record.
    Get<K> = 34 {
        /// The raw key.
        key: K,
        + /// A deletion is to be told, too: the result of a deleted key is its tombstone then.
        look: Look,
    } -> Option<RecordValue<'r>>;

    /// Writes a record.
    Set<K, V> = 35 {
        /// How.
        op: SetOp,
        /// The raw key.
        key: K,
        /// The raw value, whose clocktime counts for a compare-and-swap only.
        value: V,
        + /// To servers that vote.
        route: Route,
    } -> Written;

    /// Deletes a record.
    Delete<K> = 36 {
        /// See [`DELETE_ASYNC`].
        flags: u32,
        /// The raw key.
        key: K,
        + /// To servers that vote.
        route: Route,
    } -> Written;

    /// Reads a record if it is later than one that the caller knows.
    GetIfModified<K> = 37 {
        /// The raw key.
        key: K,
        /// That of the known record.
        clocktime: ClockTime,
    } -> Modified<'r>;

    /// A server writes a backup; answered when it is complete.
    CreateBackup<S> = 96 {
        /// The suffix of its name, see [`super::params::is_backup_suffix`].
        suffix: S,
    } -> bool;

    /// Asks for one thing that a node tells of itself.
    GetStatus = 97 {
        /// See [`STATUS_PID`] and the others.
        number: u32,
    } -> Object<'r>;

    /// Changes a setting of a running server. The result is how many connections that concerned.
    SetConfig<V> = 98 {
        /// See [`CONFIG_NODELAY`].
        number: u32,
        /// Its type depends on the number.
        value: V,
    } -> u64;

    /// Asks a manager for the hash space for writing and the servers that are not attached to it.
    GetNodesInfo = 99 {
        + /// The state of the manager is to be in the result.
        ask: Ask,
    } -> NodesInfo<Seed>;

    /// Attaches the servers that are connected.
    AttachNewServers = 100 {
        /// Whether a replace follows.
        replace: bool,
        + /// Which of them; the result then says what was done.
        choice: Choice,
    } -> Option<Packed<Changed>>;

    /// Detaches the servers that are faulty.
    DetachFaultServers = 101 {
        /// Whether a replace follows.
        replace: bool,
        + /// Which of them; the result then says what was done.
        choice: Choice,
    } -> Option<Packed<Changed>>;

    /// Has every server write a backup; answered at once, unless its end is asked for.
    ManagerBackup<S> = 102 {
        /// The suffix of their names, see [`super::params::is_backup_suffix`].
        suffix: S,
        + /// The result is to say how it has ended.
        ask: Ask,
    } -> Option<Packed<BackupEnd>>;

    /// Switches automatic replaces.
    SetAutoReplace = 103 {
        /// Whether there are any from now on.
        enabled: bool,
    } -> Nil;

    /// Starts a replace.
    StartReplace = 104 {
        /// Whether records are sent also to servers that should have them already.
        full: bool = false,
    } -> Nil;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{RecordKey, pack};

    fn node(text: &str) -> NodeAddress {
        NodeAddress::new(text.parse().unwrap())
    }

    fn written(call: &impl Call) -> Vec<u8> {
        let mut out = Vec::new();
        call.encode(&mut out);
        out
    }

    #[test]
    fn a_seed_reads_back() {
        let seed = Seed {
            nodes: vec![(node("127.0.0.1:1"), true), (node("[::1]:2"), false)],
            clocktime: ClockTime::new(9, 3),
        };
        let start = ReplaceCopyStart { seed: &seed, clock: 7, full: true };
        let read = ReplaceCopyStart { seed: seed.clone(), clock: 7, full: true };
        assert_eq!(decode(&written(&start)), Ok(read));
    }

    #[test]
    fn a_seed_that_names_a_node_twice_is_refused() {
        let seed = Seed { nodes: vec![(node("127.0.0.1:1"), true); 2], clocktime: ClockTime(1) };
        let mut out = Vec::new();
        seed.encode(&mut out);
        assert_eq!(decode::<Seed>(&out), Err(Error::Malformed));
    }

    #[test]
    fn full_may_be_left_out() {
        let mut out = vec![0x92];
        Seed::default().encode(&mut out);
        out.push(5);
        let start = ReplaceCopyStart { seed: Seed::default(), clock: 5, full: false };
        assert_eq!(decode(&out), Ok(start));
        assert_eq!(decode(&[0x90]), Ok(StartReplace { full: false }));
        assert_eq!(decode::<AttachNewServers>(&[0x90]), Err(Error::Malformed));
    }

    #[test]
    fn extra_elements_are_ignored_and_missing_ones_refused() {
        let key = [0x93, 0xa8, 0, 0, 0, 0, 0, 0, 0, 1, 0xc0, 0x05];
        assert_eq!(decode::<Get<RecordKey<'_>>>(&key).map(|call| call.key.hash()), Ok(1));
        assert!(decode::<GetIfModified<RecordKey<'_>>>(&[0x91, 0xa8, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
        assert!(decode::<Get<RecordKey<'_>>>(&[0x05]).is_err());
    }

    #[test]
    fn a_set_must_have_a_known_op_and_a_whole_value() {
        let key = [0; 8];
        for (op, value_len, fine) in [(0u8, 10, true), (2, 11, true), (3, 10, false), (0, 9, false), (0, 8, false)] {
            let mut out = vec![0x93, op];
            pack::raw(&mut out, &key);
            pack::raw(&mut out, &vec![0; value_len]);
            let read = decode::<Set<RecordKey<'_>, RecordValue<'_>>>(&out);
            assert_eq!(read.is_ok(), fine, "op {op}, {value_len} bytes");
        }
    }

    #[test]
    fn results_read_back() {
        let mut out = Vec::new();
        let results = [Written::At(ClockTime(7)), Written::Is(true), Written::Is(false), Written::Partly];
        for result in results {
            out.clear();
            result.encode(&mut out);
            assert_eq!(decode(&out), Ok(result));
        }
        let raw = crate::wire::record::raw_value(ClockTime(1), 0, b"data");
        for result in [Modified::No, Modified::Now(None), Modified::Now(RecordValue::live(&raw).ok())] {
            out.clear();
            result.encode(&mut out);
            assert_eq!(decode(&out), Ok(result));
        }
    }
}
