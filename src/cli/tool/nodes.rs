//! The nodes that a tool asks: how they are named, and asking several at once.

use std::ffi::OsString;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::failure::failed;
use crate::cli::args::addresses::{peer_address, peer_node};
use crate::cli::args::layout::LayoutArgs;
use crate::cli::args::values::positive_seconds;
use crate::cli::exit::Stop;
use crate::client::{Caller, Client, Error, Options};
use crate::env::Env;
use crate::net::NamedNode;
use crate::net::hosts::{HostPort, MANAGER_PORT, SERVER_PORT, system_resolver};
use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;
use crate::wire::params::Seed;

/// The managers of the cluster that a tool works on.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Managers {
    /// Address of a manager of the cluster [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    manager1: HostPort,

    /// Address of the second manager, if there are two [port: 19700]
    #[arg(short = 'p', long, value_name = "ADDR[:PORT]")]
    manager2: Option<HostPort>,
}

impl Managers {
    /// A client of the cluster.
    pub(in crate::cli) async fn connect(&self) -> Result<Client, Stop> {
        let managers = named_managers([("-m", Some(&self.manager1)), ("-p", self.manager2.as_ref())])?;
        Client::connect_from(&Env::real(), managers, Options::default()).await.map_err(failed)
    }
}

/// A key of a cluster, and how its value is kept.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct KeyArgs {
    #[command(flatten)]
    pub(in crate::cli) managers: Managers,

    #[command(flatten)]
    pub(in crate::cli) layout: LayoutArgs,

    /// The key
    key: OsString,
}

impl KeyArgs {
    /// The key, whatever bytes it has.
    pub(in crate::cli) fn bytes(&self) -> &[u8] {
        self.key.as_encoded_bytes()
    }
}

/// Where the short-lived tools that ask servers find them: named one by one, or by a manager.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Cluster {
    /// Ask this manager for the servers [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    manager1: Option<HostPort>,

    /// The second manager, if there are two [port: 19700]
    #[arg(short = 'p', long, value_name = "ADDR[:PORT]", requires = "manager1")]
    manager2: Option<HostPort>,

    /// How long each node may take to answer
    #[arg(long, value_name = "SEC", default_value = "3", value_parser = positive_seconds)]
    pub(in crate::cli) timeout: Duration,
}

impl Cluster {
    /// The managers that were named; none: servers are.
    pub(in crate::cli) fn managers(&self) -> Result<Vec<NodeAddress>, Stop> {
        [("-m", &self.manager1), ("-p", &self.manager2)]
            .into_iter()
            .filter_map(|(flag, host)| host.as_ref().map(|host| manager(flag, host)))
            .collect()
    }

    /// The same for a tool that goes on for a while: it looks up again those that cannot be reached.
    pub(in crate::cli) fn named_managers(&self) -> Result<Vec<NamedNode>, Stop> {
        named_managers([("-m", self.manager1.as_ref()), ("-p", self.manager2.as_ref())])
    }

    /// A client of nodes. Must be called within a runtime.
    pub(in crate::cli) fn caller(&self) -> Arc<Caller> {
        let connect_timeout = self.timeout.min(Options::default().connect_timeout);
        Arc::new(Caller::new(
            &Env::real(),
            &Options { connect_timeout, call_timeout: self.timeout, ..Options::default() },
        ))
    }

    /// The hash space for writing, of the first manager that answers; the error is the last one's.
    pub(in crate::cli) async fn space(&self, caller: &Caller) -> Result<Seed, Stop> {
        let mut failure = Stop::Failed("no manager to ask".to_owned());
        for manager in self.managers()? {
            match caller.spaces(manager).await {
                Ok((whs, _)) if whs.nodes.is_empty() => {
                    return Err(Stop::Failed(format!("manager {manager} has no server attached")));
                }
                Ok((whs, _)) => return Ok(whs),
                Err(error) => failure = failed(Error::Manager(manager, error)),
            }
        }
        Err(failure)
    }
}

/// The address of a server given as `what`.
pub(in crate::cli) fn server(what: &str, host: &HostPort) -> Result<NodeAddress, Stop> {
    peer_address(what, host, SERVER_PORT, &system_resolver)
}

/// The address of a manager given as `what`.
pub(in crate::cli) fn manager(what: &str, host: &HostPort) -> Result<NodeAddress, Stop> {
    peer_address(what, host, MANAGER_PORT, &system_resolver)
}

/// The managers that these flags name. One of two may have a name that does not resolve now.
fn named_managers(flags: [(&str, Option<&HostPort>); 2]) -> Result<Vec<NamedNode>, Stop> {
    let given = || flags.into_iter().filter_map(|(flag, host)| Some((flag, host?)));
    let named = given().map(|(flag, host)| peer_node(flag, host, MANAGER_PORT, &system_resolver));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    match given().next() {
        // The reason is that of the first.
        Some((flag, host)) if named.iter().all(|manager| manager.address().is_none()) => {
            manager(flag, host).map(|address| vec![address.into()])
        }
        _ => Ok(named),
    }
}

/// Asks all nodes at once; each may take so long. The answers are in the order of the nodes.
pub(in crate::cli) async fn ask_all<T, F>(
    nodes: &[NodeAddress],
    limit: Duration,
    ask: impl Fn(NodeAddress) -> F,
) -> Vec<Result<T, ErrorCode>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ErrorCode>> + Send + 'static,
{
    let asking: Vec<_> = nodes.iter().map(|node| tokio::spawn(tokio::time::timeout(limit, ask(*node)))).collect();
    let mut answers = Vec::with_capacity(asking.len());
    for answer in asking {
        answers.push(match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ErrorCode::TimedOut),
            Err(_) => Err(ErrorCode::Unknown),
        });
    }
    answers
}
