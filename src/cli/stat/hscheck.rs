//! `hscheck`: the hash spaces of managers and servers, compared with the first that answers.

use serde_json::json;

use super::answer::outcome;
use super::target::Target;
use crate::cli::exit::Stop;
use crate::cli::tool::space;
use crate::cli::tool::{ask_all, json, reason, show};
use crate::client::Caller;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, STATUS_RHS, STATUS_WHS};
use crate::wire::params::Seed;

/// The hash spaces of a node, for writing and for reading.
type Spaces = (Seed, Seed);

/// Asks managers and servers, prints a line for each, and fails if they differ.
pub(super) async fn run(target: &Target, as_json: bool) -> Result<(), Stop> {
    let caller = target.cluster.caller();
    let managers = target.cluster.managers()?;
    let servers = target.relatives(&caller).await?;
    let limit = target.cluster.timeout;
    let nodes: Vec<_> = managers.iter().chain(&servers).copied().collect();
    let answers = ask_all(&nodes, limit, |node| {
        let (caller, is_manager) = (caller.clone(), managers.contains(&node));
        async move { if is_manager { caller.spaces(node).await } else { spaces(&caller, node).await } }
    })
    .await;
    let answers: Vec<_> = nodes.into_iter().zip(answers).collect();
    let first = answers.iter().find_map(|(_, answer)| answer.as_ref().ok());
    let is_same = |answer: &Result<Spaces, ErrorCode>| answer.as_ref().is_ok_and(|spaces| Some(spaces) == first);
    let text = if as_json {
        let objects: Vec<_> = answers
            .iter()
            .map(|(node, answer)| match answer {
                Ok((whs, rhs)) => json!({
                    "address": node.to_string(),
                    "whs": space::Json::new(whs),
                    "rhs": space::Json::new(rhs),
                    "same": is_same(answer),
                }),
                Err(error) => json!({"address": node.to_string(), "error": reason(*error)}),
            })
            .collect();
        json(&objects)?
    } else {
        let line = |(node, answer): &(NodeAddress, _)| format!("{node}:  {}\n", verdict(answer, first));
        answers.iter().map(line).collect()
    };
    show(text.as_bytes())?;
    if answers.iter().any(|(_, answer)| answer.is_ok() && !is_same(answer)) {
        return Err(Stop::Failed("the hash spaces differ".to_owned()));
    }
    outcome(&answers)
}

async fn spaces(caller: &Caller, server: NodeAddress) -> Result<Spaces, ErrorCode> {
    tokio::try_join!(caller.space(server, STATUS_WHS), caller.space(server, STATUS_RHS))
}

/// The line of a node: the first is described, the others by how they differ from it.
fn verdict(answer: &Result<Spaces, ErrorCode>, first: Option<&Spaces>) -> String {
    let ((whs, rhs), first) = match (answer, first) {
        (Ok(spaces), Some(first)) => (spaces, first),
        (Ok(spaces), None) => (spaces, spaces),
        (Err(error), _) => return reason(*error).to_owned(),
    };
    let all = std::ptr::eq(first, answer.as_ref().unwrap_or(first));
    let described = [("whs", whs, &first.0), ("rhs", rhs, &first.1)]
        .into_iter()
        .filter(|(_, own, first)| all || own != first)
        .map(|(name, own, _)| format!("{name} {}", describe(own)))
        .collect::<Vec<_>>();
    match described.as_slice() {
        [] => "same".to_owned(),
        _ if all => described.join("; "),
        _ => format!("differs: {}", described.join("; ")),
    }
}

fn describe(seed: &Seed) -> String {
    let active = seed.nodes.iter().filter(|(_, active)| *active).count();
    format!("{}, {active} of {} active", space::timestamp(seed.clocktime), seed.nodes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;

    fn seed(clock: u32) -> Seed {
        let node = NodeAddress::new(([127, 0, 0, 1], 19801).into());
        Seed { nodes: vec![(node, true)], clocktime: ClockTime::new(0, clock) }
    }

    #[test]
    fn only_what_differs_is_named() {
        let first = Ok((seed(1), seed(1)));
        let reference = first.as_ref().ok();
        let at = "Thu Jan 01 00:00:00 +0000 1970 clock";
        assert_eq!(verdict(&first, reference), format!("whs {at} 1, 1 of 1 active; rhs {at} 1, 1 of 1 active"));
        assert_eq!(verdict(&Ok((seed(1), seed(1))), reference), "same");
        assert_eq!(verdict(&Ok((seed(2), seed(1))), reference), format!("differs: whs {at} 2, 1 of 1 active"));
        assert_eq!(verdict(&Err(ErrorCode::NodeLost), reference), "cannot be reached");
    }
}
