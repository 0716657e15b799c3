//! A manager process, and what tools ask of it.

use std::net::SocketAddr;

use kumo_server::wire::method::{self, ErrorCode, Method};
use kumo_server::wire::params::{self, Encode as _, Seed};
use kumo_server::wire::{NodeAddress, pack};

use super::scripted::Line;
use super::{Folder, Port, Process, kumo_server, wait_until};

/// Quick enough for tests: a node that answers nothing is lost within a second.
const QUICK: &str = "-k 0.1 -Ys 0.3 -Ci 0.1 -v";

/// A manager on a port of its own.
pub(crate) struct Manager {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Manager {
    /// Starts one and waits until it listens. `args` are separated by blanks.
    pub(crate) fn start(folder: &Folder, name: &str, port: &Port, args: &str) -> Self {
        let listen = port.address().to_string();
        let mut all = vec!["manager", "-l", &listen];
        all.extend(QUICK.split_whitespace().chain(args.split_whitespace()));
        let process = Process::spawn(folder, name, &kumo_server(), &all);
        drop(Line::connect(port.address()));
        Self { process, address: port.address() }
    }

    /// The hash space for writing and the connected servers that are not in it, as `kumoctl status` asks.
    pub(crate) fn nodes(&self) -> (Seed, Vec<NodeAddress>) {
        let answer = Line::connect(self.address).call(Method::GetNodesInfo, |out| pack::array(out, 0));
        params::decode(&answer.expect("an answer")).expect("nodes")
    }

    /// Both hash spaces.
    pub(crate) fn spaces(&self) -> (Seed, Seed) {
        let answer = Line::connect(self.address).call(Method::HashSpaceRequest, |out| pack::array(out, 0));
        params::decode::<(Seed, Seed)>(&answer.expect("an answer")).expect("two hash spaces")
    }

    /// Asks for something that takes a boolean and answers nil; the error, if it is refused.
    pub(crate) fn switch(&self, method: Method, value: bool) -> Result<(), ErrorCode> {
        let answer = Line::connect(self.address)
            .call(method, |out| method::AttachNewServers { replace: value, choice: None }.encode(out));
        answer.map(|result| assert_eq!(result, [0xc0], "nil"))
    }

    /// Waits until exactly these servers are connected without being attached.
    #[track_caller]
    pub(crate) fn wait_detached(&self, servers: &[NodeAddress]) {
        let mut servers = servers.to_vec();
        servers.sort();
        wait_until(&format!("{servers:?} not attached"), || self.nodes().1 == servers);
    }

    /// Waits until these servers are in the hash space for writing, in these states, in any order.
    #[track_caller]
    pub(crate) fn wait_attached(&self, servers: &[(NodeAddress, bool)]) {
        let mut servers = servers.to_vec();
        servers.sort();
        wait_until(&format!("{servers:?} attached"), || {
            let mut nodes = self.nodes().0.nodes;
            nodes.sort();
            nodes == servers
        });
    }

    /// Waits until reading follows writing: no replace is under way.
    #[track_caller]
    pub(crate) fn wait_settled(&self) {
        wait_until("one hash space for writing and reading", || {
            let (whs, rhs) = self.spaces();
            whs == rhs && whs.has_active()
        });
    }
}
