//! The requests that each kind of node takes on each kind of connection, and from whom. The receivers match on these types,
//! so that one without an arm for a method does not compile; what a method does is decided there.

use super::Error;
use super::method::{
    AttachNewServers, CreateBackup, Delete, DetachFaultServers, ErrorCode, Get, GetIfModified, GetNodesInfo, GetStatus,
    HashSpacePush, HashSpaceRequest, HashSpaceSync, KeepAlive, ManagerBackup, Method, ReplaceCopyEnd, ReplaceCopyStart,
    ReplaceDeleteEnd, ReplaceDeleteStart, ReplaceElection, ReplaceOffer, ReplicateDelete, ReplicateSet, RhsRequest,
    Set, SetAutoReplace, SetConfig, StartReplace, WhsRequest,
};
use super::params::{Object, Seed, decode};
use super::record::{RecordKey, RecordValue};

/// Whose requests a method is taken from, on the connections where it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Anybody who connects.
    Any,
    /// One of the server's managers.
    Manager,
    /// The other manager of the cluster.
    Partner,
    /// A server that is active in a hash space of the receiver.
    Member,
}

/// Why a request is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No method of that number exists at this receiver, on this kind of connection.
    #[error("no such method on this kind of connection")]
    Unknown,
    /// The parameters have a wrong shape.
    #[error(transparent)]
    Malformed(#[from] Error),
    /// It is not taken from this caller.
    #[error("not allowed")]
    NotAllowed(Method),
}

impl Rejected {
    /// The error to answer.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Unknown | Self::Malformed(_) => ErrorCode::Protocol,
            Self::NotAllowed(_) => ErrorCode::Server,
        }
    }
}

/// A method that a receiver takes on one kind of connection, and from whom.
#[cfg(test)]
pub(crate) type Taken = (Method, By);

/// Defines an enum of requests for each kind of connection: `Method(Parameters) by By,` is one method that is taken there.
macro_rules! requests {
    ($($(#[$doc:meta])* $list:ident $(<$life:lifetime>)? { $($name:ident($type:ty) by $by:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is named like its method")]
        pub enum $list $(<$life>)? { $($name($type),)* }

        impl $(<$life>)? $list $(<$life>)? {
            /// The methods.
            #[cfg(test)]
            pub(crate) const TAKEN: &'static [Taken] = &[$((Method::$name, By::$by)),*];

            /// Reads a request, if it may be made `by` whoever makes it.
            #[inline]
            pub fn read(
                method: u32,
                params: &$($life)? [u8],
                by: impl FnOnce(By) -> bool,
            ) -> Result<Self, Rejected> {
                match Method::from_number(method) {
                    $(Some(Method::$name) => {
                        if !by(By::$by) {
                            return Err(Rejected::NotAllowed(Method::$name));
                        }
                        Ok(Self::$name(decode(params)?))
                    })*
                    _ => Err(Rejected::Unknown),
                }
            }
        }
    )*};
}

requests! {
    /// Requests that a server accepts on a client connection.
    ClientToServer<'a> {
        Get(Get<RecordKey<'a>>) by Any,
        Set(Set<RecordKey<'a>, RecordValue<'a>>) by Any,
        Delete(Delete<RecordKey<'a>>) by Any,
        GetIfModified(GetIfModified<RecordKey<'a>>) by Any,
        GetStatus(GetStatus) by Any,
        SetConfig(SetConfig<Object<'a>>) by Any,
    }

    /// Requests that a server accepts on a cluster connection.
    NodeToServer<'a> {
        ReplicateSet(ReplicateSet<RecordKey<'a>, RecordValue<'a>>) by Member,
        ReplicateDelete(ReplicateDelete<RecordKey<'a>>) by Member,
        KeepAlive(KeepAlive) by Any,
        HashSpaceSync(HashSpaceSync<Seed>) by Manager,
        ReplaceCopyStart(ReplaceCopyStart<Seed>) by Manager,
        ReplaceDeleteStart(ReplaceDeleteStart<Seed>) by Manager,
        ReplaceOffer(ReplaceOffer) by Member,
        CreateBackup(CreateBackup<&'a [u8]>) by Manager,
    }

    /// Requests that a manager accepts on a client connection.
    ClientToManager<'a> {
        HashSpaceRequest(HashSpaceRequest) by Any,
        GetNodesInfo(GetNodesInfo) by Any,
        GetStatus(GetStatus) by Any,
        AttachNewServers(AttachNewServers) by Any,
        DetachFaultServers(DetachFaultServers) by Any,
        ManagerBackup(ManagerBackup<&'a [u8]>) by Any,
        SetAutoReplace(SetAutoReplace) by Any,
        StartReplace(StartReplace) by Any,
    }

    /// Requests that a manager accepts on a cluster connection.
    NodeToManager {
        KeepAlive(KeepAlive) by Any,
        HashSpaceSync(HashSpaceSync<Seed>) by Partner,
        WhsRequest(WhsRequest) by Any,
        RhsRequest(RhsRequest) by Any,
        ReplaceCopyEnd(ReplaceCopyEnd) by Member,
        ReplaceDeleteEnd(ReplaceDeleteEnd) by Member,
        ReplaceElection(ReplaceElection<Seed>) by Partner,
    }

    /// Requests that a client accepts on a connection that it has made to a manager.
    ManagerToClient {
        HashSpacePush(HashSpacePush<Seed>) by Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::method::Call;

    fn written(call: &impl Call) -> Vec<u8> {
        let mut out = Vec::new();
        call.encode(&mut out);
        out
    }

    #[test]
    fn a_method_is_read_where_it_exists_and_by_whom_it_may_be_called() {
        let alive = written(&KeepAlive { clock: 5, extension: None });
        let number = Method::KeepAlive.number();
        assert_eq!(
            NodeToServer::read(number, &alive, |_| true),
            Ok(NodeToServer::KeepAlive(KeepAlive { clock: 5, extension: None }))
        );
        assert_eq!(ClientToServer::read(number, &alive, |_| true), Err(Rejected::Unknown));
        assert_eq!(NodeToServer::read(number, &[0x90], |_| true), Err(Rejected::Malformed(Error::Malformed)));
        let backup = written(&CreateBackup { suffix: b"x" });
        let refused = NodeToServer::read(Method::CreateBackup.number(), &backup, |by| by == By::Member);
        assert_eq!(refused, Err(Rejected::NotAllowed(Method::CreateBackup)));
    }

    /// Every list of requests: the heading of its receiver in `docs/protocol.md`, the kind of connection, the methods.
    const LISTS: [(&str, &str, &[Taken]); 5] = [
        ("## Methods of a server", "client", ClientToServer::TAKEN),
        ("## Methods of a server", "cluster", NodeToServer::TAKEN),
        ("## Methods of a manager", "client", ClientToManager::TAKEN),
        ("## Methods of a manager", "cluster", NodeToManager::TAKEN),
        ("## Methods of a client", "client", ManagerToClient::TAKEN),
    ];

    #[test]
    fn every_method_exists_somewhere() {
        for method in Method::ALL {
            assert!(LISTS.iter().any(|(_, _, list)| list.iter().any(|(taken, _)| taken == method)), "{method:?}");
        }
    }

    #[test]
    fn the_documentation_has_the_same_methods() {
        let row = |section: &str, connection: &str, (method, by): Taken| {
            let by = match by {
                By::Any => "anybody",
                By::Manager => "its managers",
                By::Partner => "its partner",
                By::Member => "members",
            };
            let (number, name, parameters) = (method.number(), method.name(), method.parameters().join(", "));
            format!("{section} | {number} {name} | {connection} | {by} | `[{parameters}]`")
        };
        let mut defined: Vec<String> = LISTS
            .iter()
            .flat_map(|&(section, connection, list)| list.iter().map(move |taken| row(section, connection, *taken)))
            .collect();
        let mut section = "";
        let mut documented = Vec::new();
        for line in include_str!("../../docs/protocol.md").lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if line.starts_with("## ") {
                section = line;
            } else if let ["", method, connection, by, parameters, ..] = cells[..]
                && section.starts_with("## Methods")
                && ["client", "cluster"].contains(&connection)
            {
                let parameters = parameters.split_inclusive(']').next().unwrap_or_default();
                documented.push(format!("{section} | {method} | {connection} | {by} | {parameters}`"));
            }
        }
        defined.sort();
        documented.sort();
        assert_eq!(documented, defined, "docs/protocol.md");
    }
}
