//! The managers of a cluster as applications name them.

use std::time::Duration;

use super::Error;
use crate::env::Env;
use crate::net::NamedNode;
use crate::net::hosts::{HostPort, MANAGER_PORT};
use crate::wire::NodeAddress;

/// The managers that `texts` name, each looked up for at most `limit`. One whose name does not resolve now is looked up again
/// by whoever cannot reach it.
pub(super) async fn named(
    env: &Env,
    texts: impl IntoIterator<Item = impl ToString>,
    limit: Duration,
) -> Result<Vec<NamedNode>, Error> {
    let parsed: Result<Vec<_>, _> = texts.into_iter().map(|text| parse(&text.to_string())).collect();
    let managers = parsed?;
    for manager in managers.iter().filter(|manager| manager.address().is_none()) {
        let _ = tokio::time::timeout(limit, manager.look_up(env, None)).await;
    }
    Ok(managers)
}

fn parse(text: &str) -> Result<NamedNode, Error> {
    let wrong = |why: String| Error::Malformed(text.to_owned(), why);
    let host: HostPort = text.parse().map_err(wrong)?;
    if host.port(MANAGER_PORT) == 0 {
        return Err(wrong("the port of a manager is never 0".to_owned()));
    }
    let address = host.ip().map(|ip| NodeAddress::new((ip, host.port(MANAGER_PORT)).into()));
    Ok(host.node(MANAGER_PORT, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_an_address_or_a_name() {
        let address = |text: &str| parse(text).map(|node| (node.name(), node.address().map(|at| at.to_string())));
        for (text, name, resolved) in [
            ("10.0.0.1", "10.0.0.1:19700", Some("10.0.0.1:19700")),
            ("10.0.0.1:7", "10.0.0.1:7", Some("10.0.0.1:7")),
            ("::1", "[::1]:19700", Some("[::1]:19700")),
            ("[::1]:7", "[::1]:7", Some("[::1]:7")),
            ("mgr1", "mgr1:19700", None),
        ] {
            assert_eq!(address(text), Ok((name.to_owned(), resolved.map(str::to_owned))), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "manager '': the host is missing"),
            ("mgr1:x", "manager 'mgr1:x': 'x' is not a port (0 to 65535)"),
            ("mgr1:0", "manager 'mgr1:0': the port of a manager is never 0"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), why);
        }
    }
}
