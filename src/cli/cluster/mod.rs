//! `cluster`: a manager, some servers and a gateway as child processes on this machine, ready to be tried.
//!
//! The servers keep their data in one folder. What was attached before is attached again before anything is added,
//! so that a larger cluster on the same folder copies what the smaller one has stored.

mod children;
mod folder;
mod ports;

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use tokio::signal::unix::{SignalKind, signal};

use super::ctl;
use crate::cli::args::values::positive_seconds;
use crate::cli::args::{Call, parse};
use crate::cli::exit::Stop;
use crate::cli::tool::block_on;
use crate::client::Caller;
use crate::env::dial;
use crate::net::hosts::MANAGER_PORT;
use crate::wire::NodeAddress;
use crate::wire::method::{AttachNewServers, STATUS_WHS};
use crate::wire::params::Seed;
use children::{Children, POLL_INTERVAL};
use folder::Folder;
use ports::{Ports, check_ports, free_port_above, gateway_port, wait_free};

/// Most servers of a cluster on one machine.
const SERVERS_MAX: usize = 50;
/// How long the processes may take to find each other.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// Runs a manager, servers and a gateway on this machine until Ctrl-C; the data is kept.
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// Number of servers [default: 3, or as many as the folder has]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=SERVERS_MAX as u64))]
    servers: Option<usize>,

    /// Folder of the data and the logs
    #[arg(long, value_name = "DIR", default_value = "./kumo-cluster")]
    dir: PathBuf,

    /// Port of the manager; servers listen from 101 above it on, their streams from 201 above it on [default: 19700, or
    /// that of the folder]
    #[arg(long, value_name = "PORT", value_parser = RangedU64ValueParser::<u16>::new().range(1024..=65000))]
    base_port: Option<u16>,

    /// Port of the gateway, for memcached clients [default: 11411, or one above the manager's with another base port]
    #[arg(long, value_name = "PORT", value_parser = RangedU64ValueParser::<u16>::new().range(1..))]
    gateway_port: Option<u16>,

    /// How long a process that has ended stays away before it is started again
    #[arg(long, value_name = "SEC", default_value = "10", value_parser = positive_seconds)]
    restart_after: Duration,

    /// Do not start again what has ended
    #[arg(long, conflicts_with = "restart_after")]
    no_restart: bool,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let folder = Folder::open(&args.dir)?;
    let base = folder.base_port(args.base_port, MANAGER_PORT)?;
    let servers = folder.servers(args.servers)?;
    let gateway = gateway_port(args.gateway_port, folder.gateway_port(), base);
    let mut ports = Ports { base, gateway };
    check_ports(ports, servers, folder.attached() > 0)?;
    if args.gateway_port.is_some() {
        wait_free(ports.gateway(), "another --gateway-port may help")?;
    } else if TcpListener::bind(ports.gateway()).is_err() {
        ports.gateway = free_port_above(gateway, ports, servers)?;
        eprintln!("port {gateway} is taken: the gateway listens on {}", ports.gateway);
    }
    let mut children = Children::new(&folder)?;
    let restart = (!args.no_restart).then_some(args.restart_after);
    block_on(async {
        let cannot = |error| Stop::Failed(format!("cannot handle signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let ended = tokio::select! {
            ended = serve(&mut children, &folder, ports, servers, restart) => ended,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        children.stop().await;
        ended
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Brings everything up, which fails if a process ends meanwhile, and then keeps it up.
async fn serve(
    children: &mut Children<'_>,
    folder: &Folder,
    ports: Ports,
    servers: usize,
    restart: Option<Duration>,
) -> Result<(), Stop> {
    let caller = ctl::caller(CALL);
    children.start_manager(ports)?;
    let known = folder.attached().min(servers);
    if known > 0 {
        bring_up(children, &caller, ports, 1..=known).await?;
    }
    if known < servers {
        bring_up(children, &caller, ports, known + 1..=servers).await?;
    }
    children.start_gateway(ports)?;
    wait_gateway(children, ports).await?;
    folder.remember(servers, ports.base, ports.gateway)?;
    introduce(children, folder, ports, servers, restart);
    let hint = format!("; once it is listed, '{} ctl {} attach --wait' takes it back", program(), ports.manager());
    children.keep_up(restart, &hint).await
}

/// How this program was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "kumo-server".to_owned())
}

/// Starts the servers with these numbers and attaches them.
async fn bring_up(
    children: &mut Children<'_>,
    caller: &Caller,
    ports: Ports,
    numbers: std::ops::RangeInclusive<usize>,
) -> Result<(), Stop> {
    let manager = NodeAddress::new(ports.manager());
    for number in numbers.clone() {
        children.start_server(ports, number)?;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut attached = false;
    loop {
        children.check()?;
        // Until the manager listens there is no answer.
        if let Ok(nodes) = ctl::overview(caller, manager).await {
            let is_there = |number| {
                let node = NodeAddress::new(ports.server(number));
                (nodes.detached.contains(&node), nodes.whs.nodes.contains(&(node, true)))
            };
            let mut states = numbers.clone().map(is_there);
            if states.clone().all(|(_, active)| active) && agree(caller, ports, numbers.clone(), &nodes.whs).await {
                break;
            }
            if !attached && states.all(|(detached, active)| detached || active) {
                let answer = caller.ask(manager, &AttachNewServers { replace: true, choice: None }).await;
                answer.map_err(|error| ctl::failed(manager, error))?;
                attached = true;
            }
        }
        if Instant::now() > deadline {
            return Err(Stop::Failed(format!("the servers have not found the manager within {PATIENCE:?}")));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    tokio::select! {
        replaced = ctl::wait(caller, manager) => replaced,
        ended = children.watch() => ended,
    }
}

/// Whether the servers go by the hash space `whs`: a manager may have it from one that was lost before the last end.
async fn agree(caller: &Caller, ports: Ports, numbers: std::ops::RangeInclusive<usize>, whs: &Seed) -> bool {
    for number in numbers {
        let held = caller.space(NodeAddress::new(ports.server(number)), STATUS_WHS).await;
        if held.is_ok_and(|held| held == *whs) {
            continue;
        }
        return false;
    }
    true
}

/// Waits until the gateway takes connections.
async fn wait_gateway(children: &mut Children<'_>, ports: Ports) -> Result<(), Stop> {
    let deadline = Instant::now() + PATIENCE;
    while dial(ports.gateway()).await.is_err() {
        children.check()?;
        if Instant::now() > deadline {
            return Err(Stop::Failed(format!("the gateway does not listen within {PATIENCE:?}")));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Says where everything is and what can be done with it, in lines that can be pasted.
fn introduce(children: &Children<'_>, folder: &Folder, ports: Ports, servers: usize, restart: Option<Duration>) {
    let program = program();
    let (manager, gateway) = (ports.manager(), ports.gateway());
    let victim = format!("server{servers}");
    let pid = |name: &str| children.pid(name).unwrap_or_default();
    let line =
        |name: &str, address| format!("{name:<9} {address}  pid {:<7} {}\n", pid(name), folder.log(name).display());
    let server = |number| line(&format!("server{number}"), ports.server(number));
    let lines = (1..=servers).map(server).collect::<String>();
    let (back, attach) = match restart {
        Some(pause) => (
            format!("which is started again after {pause:?}"),
            format!(
                "When {victim} is back, and status lists it as not attached:\n  {program} ctl {manager} attach --wait\n"
            ),
        ),
        None => ("which is not started again (--no-restart)".to_owned(), String::new()),
    };
    let text = format!(
        "{}{lines}{}\nReady. Any memcached client can use {gateway}. Try, in another terminal:\n  \
         printf 'set greeting 0 0 5\\r\\nhello\\r\\nget greeting\\r\\nquit\\r\\n' | nc {} {}\n  \
         {program} set -m {manager} hello world\n  \
         {program} get -m {manager} hello\n  \
         {program} ctl {manager} status\n\
         To see it go on without {victim}, {back}:\n  \
         kill -9 {}\n  \
         {program} get -m {manager} hello\n  \
         {program} ctl {manager} status\n\
         {attach}\
         Ctrl-C ends all of it; the data stays in {}.\n",
        line("manager", manager),
        line("gateway", gateway),
        gateway.ip(),
        gateway.port(),
        pid(&victim),
        folder.path().display()
    );
    // Nobody may be reading: the cluster runs all the same.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
