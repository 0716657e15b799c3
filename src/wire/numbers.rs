//! Numbers of the protocol: roles, error codes, flags, what `GetStatus` and `SetConfig` are about. Each stands here
//! once; those of the methods are in [`super::method`].

/// Defines a fieldless enum with its wire numbers and a checked conversion from them.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident: $repr:ty { $($(#[$item_doc:meta])* $item:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$item_doc])* $item = $number,)* }

        impl $name {
            /// The number on the wire.
            pub fn number(self) -> $repr {
                self as $repr
            }

            /// The one that `number` names, if any does.
            #[inline]
            pub fn from_number(number: $repr) -> Option<Self> {
                match number {
                    $($number => Some(Self::$item),)*
                    _ => None,
                }
            }
        }
    };
}

pub(super) use numbered;

numbered! {
    /// The kind of node that one says it is when it opens a cluster connection.
    Role: u8 {
        /// Knows the servers and owns the hash space.
        Manager = 0,
        /// Stores records.
        Server = 1,
    }
}

numbered! {
    /// Why a request failed.
    ErrorCode: u32 {
        /// The connection that carried the request was lost.
        TransportLost = 1,
        /// The node could not be reached.
        NodeLost = 2,
        /// No answer within the time-out.
        TimedOut = 3,
        /// Anything else.
        Unknown = 4,
        /// Unknown method, or parameters of a wrong shape.
        Protocol = 5,
        /// Not ready, obsolete hash space, storage failure, not allowed.
        Server = 6,
        /// The message was not sent: it is longer than the node takes. Never an answer.
        TooLarge = 7,
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TransportLost => "connection lost",
            Self::NodeLost => "node unreachable",
            Self::TimedOut => "timed out",
            Self::Unknown => "unknown error",
            Self::Protocol => "protocol error",
            Self::Server => "server error",
            Self::TooLarge => "message larger than the node takes",
        })
    }
}

/// Flag of Delete: do not wait for the replicas.
pub(crate) const DELETE_ASYNC: u32 = 1;
/// Flag of `ReplicateSet` and `ReplicateDelete`: the receiver is an owner by rhs, not by whs.
pub(crate) const REPLICATE_BY_RHS: u32 = 1;

/// Number of `GetStatus` for the process id.
pub(crate) const STATUS_PID: u32 = 0;
/// Number of `GetStatus` for the seconds since the start.
pub(crate) const STATUS_UPTIME: u32 = 1;
/// Number of `GetStatus` for unix seconds by the server's clock.
pub(crate) const STATUS_TIME: u32 = 2;
/// Number of `GetStatus` for the version, a text.
pub(crate) const STATUS_VERSION: u32 = 3;
/// Number of `GetStatus` for the Get requests since the start.
pub(crate) const STATUS_GETS: u32 = 4;
/// Number of `GetStatus` for the Set requests since the start.
pub(crate) const STATUS_SETS: u32 = 5;
/// Number of `GetStatus` for the Delete requests since the start.
pub(crate) const STATUS_DELETES: u32 = 6;
/// Number of `GetStatus` for the stored records.
pub(crate) const STATUS_ITEMS: u32 = 7;
/// Number of `GetStatus` for the clocktime now.
pub const STATUS_CLOCKTIME: u32 = 8;
/// Number of `GetStatus` for the hash space for reading.
pub const STATUS_RHS: u32 = 9;
/// Number of `GetStatus` for the hash space for writing.
pub const STATUS_WHS: u32 = 10;
/// Number of `GetStatus` for flags: what a server is busy with; of a manager, what its servers are.
pub const STATUS_FLAGS: u32 = 11;
/// Number of `GetStatus`, ours, for everything there is to know, as JSON.
pub const STATUS_JSON: u32 = 1000;
/// Number of `GetStatus`, ours, for `[whs, rhs]` as a server last held them, before its restart if need be; else nil.
pub const STATUS_REMEMBERED: u32 = 1001;
/// Number of `SetConfig` for `TCP_NODELAY` on all connections.
pub(crate) const CONFIG_NODELAY: u32 = 0;
/// Flag: the server is not active in the hash space for writing.
pub(crate) const FLAG_INACTIVE: u32 = 1;
/// Flag: the hash spaces for reading and for writing have different nodes.
pub(crate) const FLAG_DIFFERENT: u32 = 2;
/// Flag: records are being copied.
pub(crate) const FLAG_COPYING: u32 = 4;
/// Flag: records are being deleted.
pub(crate) const FLAG_DELETING: u32 = 8;
/// Flag of a manager: the last replace has not ended well and should be run again.
pub(crate) const FLAG_UNFINISHED: u32 = 16;
