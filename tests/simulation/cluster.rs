//! A simulated cluster: managers, servers, gateways and clients, each on a machine of its own, started and killed at will.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kumo_server::client;
use kumo_server::gateway::item::Rules;
use kumo_server::gateway::layout::Layout;
use kumo_server::gateway::{self, Gateway, Listen};
use kumo_server::manager::{self, Manager};
use kumo_server::net::{DialPolicy, Limits};
use kumo_server::register::Timing;
use kumo_server::server::{self, Server};
use kumo_server::store::{self, SyncMode};
use kumo_server::wire::NodeAddress;
use parking_lot::Mutex;

use super::application::Application;
use super::operator::Operator;
use super::store_driver::{DiskState, Driver};
use super::world::{Machine, World};

const MANAGER_PORT: u16 = 19700;
const SERVER_PORT: u16 = 19800;
const STREAM_PORT: u16 = 19900;
const GATEWAY_PORT: u16 = 11411;
/// Memory for records of one server.
const CACHE_BYTES: u64 = 4 << 20;
/// How long a gateway tries what it was asked for.
const GATEWAY_LIMIT: Duration = Duration::from_secs(10);

/// How a cluster is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) managers: usize,
    pub(crate) servers: usize,
    pub(crate) gateways: usize,
    pub(crate) clients: usize,
    /// Managers attach, detach and replace by themselves (`-a`).
    pub(crate) auto_replace: bool,
    pub(crate) sync: SyncMode,
    /// When tombstones go.
    pub(crate) tombstones: Duration,
    /// Servers vote on every change.
    pub(crate) votes: bool,
}

/// A node of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Manager(usize),
    Server(usize),
    Gateway(usize),
}

/// A machine with the process that runs on it, if one does.
struct Place<T> {
    machine: Machine,
    running: Mutex<Option<T>>,
}

/// A server's disk: the folder of its files, and an older copy of it.
struct Disk {
    folder: PathBuf,
    copies: u32,
    older: Option<PathBuf>,
}

/// Machines, and what runs on them.
pub(crate) struct Cluster {
    shape: Shape,
    managers: Vec<Place<Manager>>,
    servers: Vec<Place<Server>>,
    gateways: Vec<Place<Gateway>>,
    clients: Vec<Machine>,
    disks: Vec<(Mutex<Disk>, Arc<DiskState>)>,
}

fn address(machine: &Machine, port: u16) -> NodeAddress {
    NodeAddress::new(SocketAddr::new(machine.ip(), port))
}

fn dial() -> DialPolicy {
    DialPolicy { timeout: Duration::from_secs(5), retry_limit: 4 }
}

fn limits() -> Limits {
    Limits { message: 1 << 20, ..Limits::default() }
}

impl Cluster {
    /// Machines of this shape, with the servers' stores in `directory`; nothing runs yet.
    pub(crate) fn new(world: &Arc<World>, shape: Shape, directory: &Path) -> Self {
        let machine = |kind: u8, number: usize| {
            let number = u8::try_from(number + 1).expect("a small number");
            Machine::new(world, IpAddr::from([10, 0, kind, number]))
        };
        let disk = |number| {
            let folder = directory.join(format!("server{number}.0"));
            std::fs::create_dir_all(&folder).expect("a folder");
            (Mutex::new(Disk { folder, copies: 0, older: None }), Arc::default())
        };
        Self {
            shape,
            managers: (0..shape.managers).map(|number| Place::new(machine(0, number))).collect(),
            servers: (0..shape.servers).map(|number| Place::new(machine(1, number))).collect(),
            gateways: (0..shape.gateways).map(|number| Place::new(machine(3, number))).collect(),
            clients: (0..shape.clients).map(|number| machine(2, number)).collect(),
            disks: (0..shape.servers).map(disk).collect(),
        }
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let managers = (0..self.managers.len()).map(Node::Manager);
        let servers = (0..self.servers.len()).map(Node::Server);
        managers.chain(servers).chain((0..self.gateways.len()).map(Node::Gateway)).collect()
    }

    /// The machine of a node.
    pub(crate) fn machine(&self, node: Node) -> &Machine {
        match node {
            Node::Manager(number) => &self.managers[number].machine,
            Node::Server(number) => &self.servers[number].machine,
            Node::Gateway(number) => &self.gateways[number].machine,
        }
    }

    /// Whether a node's process runs.
    pub(crate) fn is_running(&self, node: Node) -> bool {
        match node {
            Node::Manager(number) => self.managers[number].running.lock().is_some(),
            Node::Server(number) => self.servers[number].running.lock().is_some(),
            Node::Gateway(number) => self.gateways[number].running.lock().is_some(),
        }
    }

    /// The managers' addresses.
    pub(crate) fn manager_addresses(&self) -> Vec<NodeAddress> {
        self.managers.iter().map(|place| address(&place.machine, MANAGER_PORT)).collect()
    }

    /// A server's address.
    pub(crate) fn server_address(&self, number: usize) -> NodeAddress {
        address(&self.servers[number].machine, SERVER_PORT)
    }

    /// A client's machine.
    pub(crate) fn client(&self, number: usize) -> &Machine {
        &self.clients[number]
    }

    /// How a server's disk behaves.
    pub(crate) fn disk(&self, server: usize) -> &DiskState {
        &self.disks[server].1
    }

    /// Starts a node's process, a server on what its disk holds.
    pub(crate) async fn start(&self, node: Node) -> Result<(), String> {
        assert!(!self.is_running(node), "{node:?} runs");
        match node {
            Node::Manager(number) => {
                let running = Manager::start(&self.managers[number].machine.env(), self.manager_config(number));
                *self.managers[number].running.lock() = Some(running.map_err(|error| error.to_string())?);
            }
            Node::Server(number) => {
                let env = self.servers[number].machine.env();
                let config = self.server_config(number, &env);
                let running = Server::start(&env, config).await.map_err(|error| error.to_string())?;
                *self.servers[number].running.lock() = Some(running);
            }
            Node::Gateway(number) => {
                let running = Gateway::start(&self.gateways[number].machine.env(), self.gateway_config(number));
                *self.gateways[number].running.lock() = Some(running.map_err(|error| error.to_string())?);
            }
        }
        Ok(())
    }

    fn manager_config(&self, number: usize) -> manager::Config {
        let addresses = self.manager_addresses();
        let own = addresses[number];
        manager::Config {
            address: own,
            bind: own.socket(),
            partner: addresses.into_iter().find(|other| *other != own).map(Into::into),
            auto_replace: self.shape.auto_replace,
            replace_delay: Duration::from_secs(4),
            keepalive_interval: Duration::from_secs(2),
            votes: self.shape.votes,
            timing: Timing::default(),
            dial: dial(),
            clock_interval: Duration::from_secs(2),
            binary_log: None,
            limits: limits(),
        }
    }

    fn server_config(&self, number: usize, env: &kumo_server::env::Env) -> server::Config {
        let managers = self.manager_addresses().into_iter().map(Into::into).collect();
        let (disk, state) = &self.disks[number];
        let mut store = store::Options::new(disk.lock().folder.join("store"));
        store.sync = self.shape.sync;
        store.sweep.max_age = self.shape.tombstones;
        store.cache_bytes = CACHE_BYTES;
        store.driver = Some(Arc::new(Driver::new(env, state)));
        server::Config {
            stream_port: STREAM_PORT,
            dial: dial(),
            clock_interval: Duration::from_secs(2),
            limits: limits(),
            ..server::Config::new(self.server_address(number), managers, store)
        }
    }

    fn gateway_config(&self, number: usize) -> gateway::Config {
        let options = client::Options::default();
        gateway::Config {
            managers: self.manager_addresses().into_iter().map(Into::into).collect(),
            listen: vec![Listen::At(self.gateway_address(number))],
            unix: None,
            rules: Rules { layout: Layout::BARE, value_limit: 1 << 20 },
            key_prefix: Vec::new(),
            async_set: false,
            async_delete: false,
            get_limit: GATEWAY_LIMIT,
            set_limit: GATEWAY_LIMIT,
            delete_limit: GATEWAY_LIMIT,
            renew_threshold: options.renew_threshold,
            connect_timeout: options.connect_timeout,
            call_timeout: options.call_timeout,
            keepalive_interval: options.follow_interval,
            allow_flush: false,
            limits: gateway::Limits::default(),
            binary_log: None,
        }
    }

    /// Kills a node's process: at once, or with the power of its machine. A server's disk keeps what was written by then.
    pub(crate) fn kill(&self, node: Node, power: bool) {
        if let Node::Server(number) = node {
            // The process that ends closes its store tidily, on files that are nobody's any more.
            self.disks[number].0.lock().move_on();
        }
        let machine = self.machine(node);
        if power {
            machine.switch_off();
        } else {
            machine.kill();
        }
        match node {
            Node::Manager(number) => drop(self.managers[number].running.lock().take()),
            Node::Server(number) => drop(self.servers[number].running.lock().take()),
            Node::Gateway(number) => drop(self.gateways[number].running.lock().take()),
        }
    }

    /// Removes everything from a killed server's disk.
    pub(crate) fn empty_disk(&self, number: usize) {
        let disk = &mut *self.disks[number].0.lock();
        std::fs::remove_dir_all(&disk.folder).expect("a folder to be removed");
        std::fs::create_dir(&disk.folder).expect("a folder");
    }

    /// Remembers what is on a server's disk.
    pub(crate) fn remember_disk(&self, number: usize) {
        let disk = &mut *self.disks[number].0.lock();
        let older = disk.next();
        copy(&disk.folder, &older).expect("a copy");
        disk.older = Some(older);
    }

    /// Puts back what was remembered of a killed server's disk.
    pub(crate) fn return_disk(&self, number: usize) {
        let disk = &mut *self.disks[number].0.lock();
        if let Some(older) = disk.older.take() {
            disk.folder = older;
        }
    }

    fn gateway_address(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.gateways[number].machine.ip(), GATEWAY_PORT)
    }

    /// An application on one of the clients' machines, which asks one gateway.
    pub(crate) fn application(&self, client: usize, gateway: usize) -> Application {
        Application::new(self.clients[client].env(), self.gateway_address(gateway))
    }

    /// Whom to ask as an operator.
    pub(crate) fn operator(&self) -> Operator {
        Operator::new(&self.clients[0].env(), self.manager_addresses())
    }
}

impl<T> Place<T> {
    fn new(machine: Machine) -> Self {
        Self { machine, running: Mutex::new(None) }
    }
}

impl Disk {
    /// A folder that is not there yet.
    fn next(&mut self) -> PathBuf {
        self.copies += 1;
        self.folder.with_extension(self.copies.to_string())
    }

    /// Goes on with a copy of what is there now.
    fn move_on(&mut self) {
        let next = self.next();
        copy(&self.folder, &next).expect("a copy");
        self.folder = next;
    }
}

/// Copies a store's files as a kill would leave them.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for file in std::fs::read_dir(from)? {
        let name = file?.file_name();
        let text = name.to_string_lossy();
        // Locks end with the process; SQLite makes the index of its log anew.
        if !text.ends_with(".lock") && !text.ends_with("-shm") {
            std::fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}
