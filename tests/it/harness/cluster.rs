//! A cluster of real processes on loopback: one or two managers, servers that come, go, hang and return.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kumo_server::clock::ClockTime;
use kumo_server::ring::{self, HashSpace};
use kumo_server::wire::figures::Figures;
use kumo_server::wire::method::{self, ErrorCode, Method, STATUS_JSON};
use kumo_server::wire::params::{self, Encode as _, Seed, SetOp};
use kumo_server::wire::record::raw_value;
use kumo_server::wire::unpack::Reader;
use kumo_server::wire::{NodeAddress, RecordValue, pack};
use rustix::process::Signal;

use super::scripted::Line;
use super::{Finished, Folder, Network, Port, Process, kumo_server, wait_until};

/// Ports of nodes on machines of their own.
const MANAGER_PORT: u16 = 19_700;
const SERVER_PORT: u16 = 19_800;
const STREAM_PORT: u16 = 19_900;

/// How long requests may be refused in a cluster that is well: a change of it is voted on.
const REFUSAL: Duration = Duration::from_secs(2);

/// What a write was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Stored everywhere, under this clocktime.
    At(ClockTime),
    /// Deleted, or found deleted.
    Bool(bool),
    /// A replica could not be written.
    Nil,
    /// Not stored, as far as this server knows.
    Error(ErrorCode),
    /// The connection was lost first.
    Unknown,
}

impl Written {
    /// Whether every copy is promised.
    pub(crate) fn is_acknowledged(self) -> bool {
        matches!(self, Self::At(_) | Self::Bool(true))
    }
}

/// A server process with its place: it keeps port and store when it is killed and started again.
pub(crate) struct Server {
    port: Port,
    stream: Port,
    name: String,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub(crate) fn stream_address(&self) -> SocketAddr {
        self.stream.address()
    }

    /// More flags for its next start.
    pub(crate) fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(ToString::to_string));
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running server")
    }
}

/// The processes of a cluster.
pub(crate) struct Cluster {
    stores: PathBuf,
    pub(crate) managers: Vec<(Port, Option<Process>)>,
    pub(crate) servers: Vec<Server>,
    flags: Vec<String>,
    /// More flags for managers that are started from now on.
    pub(crate) manager_flags: Vec<&'static str>,
    /// The environment of servers that are started from now on, besides what they inherit.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// Each node is on a machine of its own: the managers first, then the servers.
    network: Option<Network>,
    /// Dropped last: the processes show what they have written there.
    folder: Folder,
}

impl Cluster {
    /// A manager and `servers` servers, attached and ready.
    pub(crate) fn start(servers: usize) -> Self {
        Self::start_with(1, servers, &[])
    }

    /// The same with several managers, and with flags for every server.
    pub(crate) fn start_with(managers: usize, servers: usize, flags: &[&str]) -> Self {
        Self::start_where(None, managers, servers, flags, &[])
    }

    /// A manager without servers, on the first machine of `network`.
    pub(crate) fn start_on(network: Network, manager_flags: &[&'static str]) -> Self {
        let mut cluster = Self {
            managers: vec![(Port::of_machine(Network::ip(0), MANAGER_PORT), None)],
            manager_flags: manager_flags.to_vec(),
            network: Some(network),
            ..Self::empty(None, &[])
        };
        cluster.start_manager(0);
        cluster
    }

    /// The same with a single manager and the stores in `stores`.
    pub(crate) fn start_in(stores: &Path, servers: usize, flags: &[&str]) -> Self {
        Self::start_where(Some(stores.to_owned()), 1, servers, flags, &[])
    }

    /// Managers with these flags, and servers.
    pub(crate) fn start_managed(managers: usize, servers: usize, manager_flags: &[&'static str]) -> Self {
        Self::start_where(None, managers, servers, &[], manager_flags)
    }

    fn start_where(
        stores: Option<PathBuf>,
        managers: usize,
        servers: usize,
        flags: &[&str],
        manager_flags: &[&'static str],
    ) -> Self {
        let mut cluster = Self::empty(stores, flags);
        cluster.manager_flags = manager_flags.to_vec();
        cluster.managers = (0..managers).map(|_| (Port::reserve(), None)).collect();
        for index in 0..managers {
            cluster.start_manager(index);
        }
        for _ in 0..servers {
            cluster.add_server();
        }
        if servers > 0 {
            cluster.attach();
        }
        cluster
    }

    fn empty(stores: Option<PathBuf>, flags: &[&str]) -> Self {
        let folder = Folder::new();
        Self {
            stores: stores.unwrap_or_else(|| folder.path().to_owned()),
            managers: Vec::new(),
            servers: Vec::new(),
            flags: flags.iter().map(ToString::to_string).collect(),
            manager_flags: Vec::new(),
            environment: Vec::new(),
            network: None,
            folder,
        }
    }

    /// The machines, of a cluster that was started on some.
    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().expect("machines")
    }

    /// Starts a process, the `place`th of the nodes, on its machine.
    pub(crate) fn spawn(&self, place: usize, name: &str, command: Command) -> Process {
        match &self.network {
            Some(network) => network.spawn(place, &self.folder, name, command),
            None => Process::spawn_command(&self.folder, name, command),
        }
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn start_manager(&mut self, index: usize) {
        let own = self.managers[index].0.address().to_string();
        let mut args = vec!["manager", "-v", "-l", &own, "-k", "0.3"];
        let partner = self
            .managers
            .iter()
            .enumerate()
            .find(|(at, _)| *at != index)
            .map(|(_, (port, _))| port.address().to_string());
        if let Some(partner) = &partner {
            args.extend(["-p", partner]);
        }
        args.extend(&self.manager_flags);
        let mut command = Command::new(kumo_server());
        command.args(args);
        let process = self.spawn(index, &format!("manager{index}"), command);
        self.managers[index].1 = Some(process);
    }

    /// Starts one more server and waits until the managers know it; it is not attached yet.
    pub(crate) fn add_server(&mut self) -> usize {
        self.add_server_with(&[])
    }

    /// The same with more flags.
    pub(crate) fn add_server_with(&mut self, flags: &[&str]) -> usize {
        let index = self.servers.len();
        let machine = self.network.as_ref().map(|_| Network::ip(self.managers.len() + index));
        let port = |number| machine.map_or_else(Port::reserve, |ip| Port::of_machine(ip, number));
        self.servers.push(Server {
            port: port(SERVER_PORT),
            stream: port(STREAM_PORT),
            name: format!("server{index}"),
            flags: self.flags.clone(),
            process: None,
        });
        self.servers[index].add_flags(flags);
        self.start_server(index);
        self.wait_known(index);
        index
    }

    /// Starts a server on its old port with its old store.
    pub(crate) fn start_server(&mut self, index: usize) {
        let managers: Vec<_> = self.managers.iter().map(|(port, _)| port.address().to_string()).collect();
        let store = self.store_path(index);
        let server = &self.servers[index];
        let (own, stream) = (server.address().to_string(), server.stream.number().to_string());
        let mut args = vec![
            "-v",
            "-l",
            &own,
            "-L",
            &stream,
            "-s",
            store.to_str().expect("a path in UTF-8"),
            "-m",
            &managers[0],
            "-k",
            "0.3",
            "-Ci",
            "1",
            "-f",
            ".",
        ];
        if let Some(second) = managers.get(1) {
            args.extend(["-p", second]);
        }
        args.extend(server.flags.iter().map(String::as_str));
        let mut command = Command::new(kumo_server());
        command.args(args).envs(self.environment.iter().cloned());
        let name = server.name.clone();
        self.servers[index].process = Some(self.spawn(self.managers.len() + index, &name, command));
    }

    /// Where a server has its store.
    pub(crate) fn store_path(&self, index: usize) -> PathBuf {
        self.stores.join(format!("{}.tch", self.servers[index].name))
    }

    /// Waits until the managers know a server, attached or not.
    pub(crate) fn wait_known(&self, index: usize) {
        let address = NodeAddress::new(self.servers[index].address());
        wait_until(&format!("the manager knows {address}"), || {
            let (whs, detached) = self.nodes_info();
            detached.contains(&address) || whs.nodes.contains(&(address, true))
        });
    }

    /// Kills a server as power loss would, but for the kernel's buffers.
    pub(crate) fn kill(&mut self, index: usize) {
        self.servers[index].process().signal(Signal::KILL);
        self.servers[index].process = None;
    }

    /// Removes all files of a killed server's store.
    pub(crate) fn empty_store(&self, index: usize) {
        let name = format!("{}.tch", self.servers[index].name);
        for file in std::fs::read_dir(&self.stores).expect("the folder of the stores").flatten() {
            if file.file_name().to_string_lossy().starts_with(&name) {
                std::fs::remove_file(file.path()).expect("a file of the store");
            }
        }
    }

    /// Tells a server to end and waits for it.
    pub(crate) fn stop(&mut self, index: usize) {
        let finished = self.terminate(index);
        assert!(finished.status.success(), "{finished:?}");
    }

    /// The same, however it ends.
    pub(crate) fn terminate(&mut self, index: usize) -> Finished {
        let process = self.servers[index].process.take().expect("a running server");
        process.signal(Signal::TERM);
        process.finish()
    }

    /// Asks a running manager.
    pub(crate) fn manager(&self, method: Method, write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let running = self.managers.iter().find(|(_, process)| process.is_some()).expect("a running manager");
        ask(running.0.address(), method, write)
            .expect("an answer of the manager")
            .unwrap_or_else(|error| panic!("{method:?}: {error}"))
    }

    /// The hash space for writing, and the servers not attached.
    pub(crate) fn nodes_info(&self) -> (Seed, Vec<NodeAddress>) {
        params::decode(&self.manager(Method::GetNodesInfo, |out| pack::array(out, 0))).unwrap()
    }

    /// Both hash spaces as the manager has them.
    pub(crate) fn spaces(&self) -> (HashSpace, HashSpace) {
        let (whs, rhs) =
            params::decode::<(Seed, Seed)>(&self.manager(Method::HashSpaceRequest, |out| pack::array(out, 0))).unwrap();
        (HashSpace::new(whs), HashSpace::new(rhs))
    }

    /// Attaches all servers that wait for it, and waits until the replace is over.
    pub(crate) fn attach(&self) {
        self.start_attach();
        self.wait_replaced();
    }

    /// Starts an attach and goes on.
    pub(crate) fn start_attach(&self) {
        self.manager(Method::AttachNewServers, |out| {
            method::AttachNewServers { replace: true, choice: None }.encode(out);
        });
    }

    /// Removes faulty servers, and waits until the replace is over.
    pub(crate) fn detach(&self) {
        self.manager(Method::DetachFaultServers, |out| {
            method::DetachFaultServers { replace: true, choice: None }.encode(out);
        });
        self.wait_replaced();
    }

    /// Waits until manager and running servers agree on one hash space, none copies or deletes, and all who are active may act.
    pub(crate) fn wait_replaced(&self) {
        let votes = !self.manager_flags.contains(&"--compatible");
        wait_until("the replace is over", || {
            let (whs, rhs) = self.spaces();
            let active = |server: &&Server| whs.is_active(NodeAddress::new(server.address()));
            whs.is_ready()
                && whs.seed() == rhs.seed()
                && self.running().all(|server| server_settled(server.address(), whs.seed()))
                && self.running().filter(active).all(|server| {
                    let lease = figures_at(server.address()).and_then(|figures| figures.lease_ms);
                    if votes { lease.is_some_and(|lease| lease > 0) } else { lease.is_none() }
                })
        });
    }

    /// Waits until the managers have given up a server that was killed or hangs.
    pub(crate) fn wait_faulty(&self, index: usize) {
        let address = NodeAddress::new(self.servers[index].address());
        wait_until(&format!("{address} is faulty"), || {
            let (whs, rhs) = self.spaces();
            let alive = self.running().filter(|server| NodeAddress::new(server.address()) != address);
            !whs.is_active(address)
                && !rhs.is_active(address)
                && alive.map(|server| seed(server.address(), 10)).all(|held| held.as_ref() == Some(whs.seed()))
        });
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.process.is_some())
    }

    /// A client that knows the hash spaces as they are now.
    pub(crate) fn client(&self) -> Client {
        Client { spaces: self.spaces(), lines: BTreeMap::new() }
    }

    /// Records that all running servers hold together, tombstones included.
    pub(crate) fn items(&self) -> u64 {
        self.running().map(|server| status(server.address(), 7).expect("a count")).sum()
    }

    /// Asserts that each key is answered with its value by each of its owners, and that nothing else is stored.
    pub(crate) fn assert_exactly<'k>(&self, records: impl IntoIterator<Item = (&'k [u8], &'k [u8])>, tombstones: u64) {
        let mut client = self.client();
        let mut copies = 0;
        for (key, value) in records {
            let owners: Vec<_> = client.spaces.1.owners(ring::hash(key)).active().collect();
            for owner in &owners {
                let found = client
                    .get_surely_from(owner.socket(), key)
                    .unwrap_or_else(|error| panic!("get {key:?} from {owner}: {error}"));
                let found = found.unwrap_or_else(|| panic!("{} is missing on {owner}", key.escape_ascii()));
                assert_eq!(RecordValue::new(&found).unwrap().data(), value, "{} on {owner}", key.escape_ascii());
            }
            copies += owners.len() as u64;
        }
        assert_eq!(
            self.items(),
            copies + tombstones,
            "copies on servers that should have none, or none where some should be"
        );
    }
}

/// One call on a connection of its own; `None` when the connection could not be used.
pub(crate) fn ask(
    address: SocketAddr,
    method: Method,
    write: impl Fn(&mut Vec<u8>),
) -> Option<Result<Vec<u8>, ErrorCode>> {
    Line::connect(address).try_call(method, write)
}

/// A number of `GetStatus`.
pub(crate) fn status(address: SocketAddr, number: u32) -> Option<u64> {
    let result = ask(address, Method::GetStatus, |out| method::GetStatus { number }.encode(out))?.ok()?;
    Reader::new(&result).u64().ok()
}

/// A hash space of a server: 9 rhs, 10 whs.
pub(crate) fn seed(address: SocketAddr, number: u32) -> Option<Seed> {
    let result = ask(address, Method::GetStatus, |out| method::GetStatus { number }.encode(out))?.ok()?;
    params::decode::<Seed>(&result).ok()
}

/// All figures of a server.
pub(crate) fn figures_at(address: SocketAddr) -> Option<Figures> {
    let result = ask(address, Method::GetStatus, |out| method::GetStatus { number: STATUS_JSON }.encode(out))?.ok()?;
    serde_json::from_slice(params::decode::<&[u8]>(&result).ok()?).ok()
}

/// Whether a server has the hash space and nothing to do for it.
fn server_settled(address: SocketAddr, whs: &Seed) -> bool {
    let active = whs.nodes.contains(&(NodeAddress::new(address), true));
    !active
        || (seed(address, 9).as_ref() == Some(whs)
            && seed(address, 10).as_ref() == Some(whs)
            && status(address, 11) == Some(0))
}

/// A client of the servers: each request to the node that a gateway would choose.
pub(crate) struct Client {
    pub(crate) spaces: (HashSpace, HashSpace),
    lines: BTreeMap<SocketAddr, Line>,
}

impl Client {
    fn call(
        &mut self,
        address: SocketAddr,
        method: Method,
        write: impl Fn(&mut Vec<u8>),
    ) -> Option<Result<Vec<u8>, ErrorCode>> {
        if let std::collections::btree_map::Entry::Vacant(e) = self.lines.entry(address) {
            e.insert(Line::try_connect(address)?);
        }
        let result = self.lines.get_mut(&address)?.try_call(method, write);
        if result.is_none() {
            self.lines.remove(&address);
        }
        result
    }

    /// Sends a write to the coordinator.
    pub(crate) fn write(&mut self, key: &[u8], method: Method, write: impl Fn(&mut Vec<u8>)) -> Written {
        let Some(coordinator) = self.spaces.0.owners(ring::hash(key)).coordinator() else {
            return Written::Error(ErrorCode::NodeLost);
        };
        match self.call(coordinator.socket(), method, write) {
            None => Written::Unknown,
            Some(Err(error)) => Written::Error(error),
            Some(Ok(result)) => match result[..] {
                [0xc0] => Written::Nil,
                [0xc2] => Written::Bool(false),
                [0xc3] => Written::Bool(true),
                _ => Written::At(ClockTime(Reader::new(&result).u64().unwrap())),
            },
        }
    }

    pub(crate) fn set(&mut self, key: &[u8], data: &[u8]) -> Written {
        self.set_op(SetOp::Sync, key, ClockTime(0), data)
    }

    pub(crate) fn cas(&mut self, key: &[u8], expected: ClockTime, data: &[u8]) -> Written {
        self.set_op(SetOp::Cas, key, expected, data)
    }

    pub(crate) fn set_op(&mut self, op: SetOp, key: &[u8], clocktime: ClockTime, data: &[u8]) -> Written {
        let value = raw_value(clocktime, 0, data);
        self.write(key, Method::Set, |out| {
            method::Set { op, key: &ring::raw_key(key), value: &value, route: None }.encode(out);
        })
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Written {
        self.write(key, Method::Delete, |out| {
            method::Delete { flags: 0, key: &ring::raw_key(key), route: None }.encode(out);
        })
    }

    /// Gets from one server, whoever it is.
    pub(crate) fn get_from(&mut self, address: SocketAddr, key: &[u8]) -> Result<Option<Vec<u8>>, ErrorCode> {
        let result =
            self.call(address, Method::Get, |out| method::Get { key: &ring::raw_key(key), look: None }.encode(out));
        let result = result.unwrap_or(Err(ErrorCode::TransportLost))?;
        let mut reader = Reader::new(&result);
        Ok(if reader.nil() { None } else { Some(reader.raw().unwrap().to_vec()) })
    }

    /// The same until it is not refused: while a configuration is voted on, servers refuse for a moment.
    fn get_surely_from(&mut self, address: SocketAddr, key: &[u8]) -> Result<Option<Vec<u8>>, ErrorCode> {
        let begun = Instant::now();
        loop {
            match self.get_from(address, key) {
                Err(ErrorCode::Server) if begun.elapsed() < REFUSAL => std::thread::sleep(Duration::from_millis(5)),
                answer => return answer,
            }
        }
    }

    /// Gets the data from the first owner that answers; if all refuse, again, as a gateway does.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let owners: Vec<_> = self.spaces.1.owners(ring::hash(key)).active().collect();
        let begun = Instant::now();
        while begun.elapsed() < REFUSAL {
            for owner in &owners {
                if let Ok(found) = self.get_from(owner.socket(), key) {
                    return found.map(|value| RecordValue::new(&value).unwrap().data().to_vec());
                }
            }
        }
        panic!("none of {owners:?} answers for {}", key.escape_ascii());
    }

    /// Sets until it is acknowledged, following the cluster's hash spaces.
    pub(crate) fn set_surely(&mut self, cluster: &Cluster, key: &[u8], data: &[u8]) {
        wait_until("a set is acknowledged", || {
            let acknowledged = self.set(key, data).is_acknowledged();
            if !acknowledged {
                self.spaces = cluster.spaces();
            }
            acknowledged
        });
    }
}

/// The figures of a server.
pub(crate) fn figures(cluster: &Cluster, index: usize) -> Figures {
    let answer = ask(cluster.servers[index].address(), Method::GetStatus, |out| {
        method::GetStatus { number: STATUS_JSON }.encode(out);
    });
    let bytes = answer.expect("an answer").expect("figures");
    let json = params::decode::<&[u8]>(&bytes).expect("a raw");
    serde_json::from_slice(json).expect("figures")
}

/// Whether a server holds a lease.
pub(crate) fn has_lease(cluster: &Cluster, index: usize) -> bool {
    figures(cluster, index).lease_ms.is_some_and(|lease| lease > 0)
}

/// Waits until every server holds a lease.
pub(crate) fn wait_voted(cluster: &Cluster) {
    wait_until("all servers hold leases", || (0..cluster.servers.len()).all(|index| has_lease(cluster, index)));
}

/// Some keys.
pub(crate) fn keys() -> Vec<Vec<u8>> {
    (0..60).map(|index| format!("k{index}").into_bytes()).collect()
}

/// Writes all keys, each until it is acknowledged. Gives the longest time that one took.
pub(crate) fn write_all(cluster: &Cluster, value: &[u8]) -> Duration {
    let mut client = cluster.client();
    let mut longest = Duration::ZERO;
    for key in keys() {
        let begun = Instant::now();
        client.set_surely(cluster, &key, value);
        longest = longest.max(begun.elapsed());
    }
    longest
}
