//! A simulated cluster: managers, servers and clients, each on a machine of its own, started and killed at will.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kumo_server::client::{self, Caller};
use kumo_server::gateway::item::Rules;
use kumo_server::gateway::layout::Layout;
use kumo_server::gateway::{self, Gateway, Listen};
use kumo_server::manager::{self, Manager};
use kumo_server::net::{DialPolicy, Limits};
use kumo_server::ring;
use kumo_server::server::{self, Server};
use kumo_server::store;
use kumo_server::wire::NodeAddress;
use kumo_server::wire::method::{ErrorCode, Get};

use super::application::{Application, Memcached};
use super::store_driver::Driver;
use super::world::{Machine, World};

const MANAGER_PORT: u16 = 19700;
const SERVER_PORT: u16 = 19800;
const STREAM_PORT: u16 = 19900;
const GATEWAY_PORT: u16 = 11411;
/// Memory for records of one server.
const CACHE_BYTES: u64 = 8 << 20;

/// How a cluster is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) managers: u8,
    pub(crate) servers: u8,
    pub(crate) clients: u8,
}

/// A manager's machine.
pub(crate) struct ManagerNode {
    pub(crate) machine: Machine,
    pub(crate) address: NodeAddress,
    running: Option<Manager>,
}

/// A server's machine.
pub(crate) struct ServerNode {
    pub(crate) machine: Machine,
    pub(crate) address: NodeAddress,
    path: PathBuf,
    running: Option<Server>,
}

impl ServerNode {
    /// Whether its process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

/// A gateway's machine.
pub(crate) struct GatewayNode {
    machine: Machine,
    running: Option<Gateway>,
}

/// Machines, and what runs on them.
pub(crate) struct Cluster {
    pub(crate) world: Arc<World>,
    pub(crate) managers: Vec<ManagerNode>,
    pub(crate) servers: Vec<ServerNode>,
    pub(crate) clients: Vec<Machine>,
    gateway: GatewayNode,
}

fn address(ip: IpAddr, port: u16) -> NodeAddress {
    NodeAddress::new(SocketAddr::new(ip, port))
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
        let machine = |kind: u8, number: u8| Machine::new(world, IpAddr::from([10, 0, kind, number + 1]));
        let manager = |number| {
            let machine = machine(0, number);
            ManagerNode { address: address(machine.ip(), MANAGER_PORT), machine, running: None }
        };
        let server = |number| {
            let machine = machine(1, number);
            let path = directory.join(format!("server{number}"));
            ServerNode { address: address(machine.ip(), SERVER_PORT), machine, path, running: None }
        };
        Self {
            world: world.clone(),
            managers: (0..shape.managers).map(manager).collect(),
            servers: (0..shape.servers).map(server).collect(),
            clients: (0..shape.clients).map(|number| machine(2, number)).collect(),
            gateway: GatewayNode { machine: machine(3, 0), running: None },
        }
    }

    /// All machines.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let managers = self.managers.iter().map(|node| node.machine.ip());
        let servers = self.servers.iter().map(|node| node.machine.ip());
        managers.chain(servers).chain(self.clients.iter().map(Machine::ip)).collect()
    }

    /// The managers' addresses.
    pub(crate) fn manager_addresses(&self) -> Vec<NodeAddress> {
        self.managers.iter().map(|node| node.address).collect()
    }

    /// Starts a manager.
    pub(crate) fn start_manager(&mut self, number: usize) {
        let partner =
            self.managers.iter().map(|node| node.address).find(|other| *other != self.managers[number].address);
        let node = &mut self.managers[number];
        let config = manager::Config {
            address: node.address,
            bind: node.address.socket(),
            partner: partner.map(Into::into),
            auto_replace: false,
            replace_delay: Duration::from_secs(4),
            keepalive_interval: Duration::from_secs(2),
            votes: std::env::var_os("KUMO_VOTES").is_some(),
            dial: dial(),
            clock_interval: Duration::from_secs(2),
            binary_log: None,
            limits: limits(),
        };
        node.running = Some(Manager::start(&node.machine.env(), config).expect("a manager"));
    }

    /// Kills a manager; what it knew is lost.
    pub(crate) fn kill_manager(&mut self, number: usize) {
        self.managers[number].machine.kill();
        self.managers[number].running = None;
    }

    /// Starts a server on what its disk holds.
    pub(crate) async fn start_server(&mut self, number: usize) {
        let managers = self.manager_addresses().into_iter().map(Into::into).collect();
        let node = &mut self.servers[number];
        let env = node.machine.env();
        let mut store = store::Options::new(&node.path);
        store.sync = store::SyncMode::Os;
        store.cache_bytes = CACHE_BYTES;
        store.driver = Some(Arc::new(Driver::new(&env)));
        let config = server::Config {
            stream_port: STREAM_PORT,
            dial: dial(),
            clock_interval: Duration::from_secs(2),
            limits: limits(),
            ..server::Config::new(node.address, managers, store)
        };
        node.running = Some(Server::start(&env, config).await.expect("a server"));
    }

    /// Kills a server; its disk keeps what was written.
    pub(crate) fn kill_server(&mut self, number: usize) {
        self.servers[number].machine.kill();
        self.servers[number].running = None;
    }

    /// Starts the gateway.
    pub(crate) fn start_gateway(&mut self) {
        let managers = self.manager_addresses().into_iter().map(Into::into).collect();
        let options = client::Options::default();
        let limit = Duration::from_secs(10);
        let config = gateway::Config {
            managers,
            listen: vec![Listen::At(self.gateway_address())],
            unix: None,
            rules: Rules { layout: Layout::BARE, value_limit: 1 << 20 },
            key_prefix: Vec::new(),
            async_set: false,
            async_delete: false,
            get_limit: limit,
            set_limit: limit,
            delete_limit: limit,
            renew_threshold: options.renew_threshold,
            connect_timeout: options.connect_timeout,
            call_timeout: options.call_timeout,
            keepalive_interval: options.follow_interval,
            allow_flush: false,
            limits: gateway::Limits::default(),
            binary_log: None,
        };
        self.gateway.running = Some(Gateway::start(&self.gateway.machine.env(), config).expect("a gateway"));
    }

    /// Kills the gateway, with what it has under way.
    pub(crate) fn kill_gateway(&mut self) {
        self.gateway.machine.kill();
        self.gateway.running = None;
    }

    fn gateway_address(&self) -> SocketAddr {
        SocketAddr::new(self.gateway.machine.ip(), GATEWAY_PORT)
    }

    /// An application on one of the clients' machines that knows the gateway alone.
    pub(crate) fn memcached_client(&self, number: usize) -> Application {
        Application::Gateway(Memcached::new(self.clients[number].env(), self.gateway_address()))
    }

    /// Removes everything from a killed server's disk.
    pub(crate) fn empty_disk(&self, number: usize) {
        let path = &self.servers[number].path;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = path.parent().expect("a folder");
        for file in std::fs::read_dir(folder).expect("a folder").flatten() {
            if file.file_name().to_string_lossy().starts_with(&name) {
                std::fs::remove_file(file.path()).expect("a file");
            }
        }
    }

    /// A client of the cluster on one of the clients' machines.
    pub(crate) async fn client(&self, number: usize) -> Option<client::Client> {
        let options = client::Options { deadline: Duration::from_secs(10), ..client::Options::default() };
        client::Client::connect_from(&self.clients[number].env(), self.manager_addresses(), options).await.ok()
    }

    /// Whom to ask as an operator.
    pub(crate) fn operator(&self) -> Operator {
        let options = client::Options { call_timeout: Duration::from_secs(10), ..client::Options::default() };
        let env = self.clients[0].env();
        Operator { caller: Caller::new(&env, &options), managers: self.manager_addresses() }
    }
}

/// Someone who types commands to the managers.
pub(crate) struct Operator {
    caller: Caller,
    managers: Vec<NodeAddress>,
}

impl Operator {
    /// Attaches all servers that are connected, and has records moved.
    pub(crate) async fn attach(&self) -> Result<(), ErrorCode> {
        self.caller.attach(self.managers[0], true, None).await.map(drop)
    }

    /// Waits until so many servers are known and not attached, for at most `limit`.
    pub(crate) async fn wait_detached(&self, count: usize, limit: Duration) -> bool {
        self.wait(limit, async || {
            self.caller.overview(self.managers[0]).await.is_ok_and(|overview| overview.detached.len() >= count)
        })
        .await
    }

    /// Waits until `count` servers are active for reading and writing alike, for at most `limit`.
    pub(crate) async fn wait_settled(&self, count: usize, limit: Duration) -> bool {
        self.wait(limit, async || {
            let Ok((whs, rhs)) = self.caller.spaces(self.managers[0]).await else { return false };
            whs == rhs && whs.nodes.iter().filter(|(_, active)| *active).count() == count
        })
        .await
    }

    async fn wait(&self, limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }

    /// The raw value that a server answers for a key.
    pub(crate) async fn read(&self, server: NodeAddress, key: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let key = ring::raw_key(key);
        self.caller.ask(server, &Get { key: &key, look: None }).await
    }
}
