//! Holds what clients and servers say against the promises.

use std::sync::Arc;
use std::time::Duration;

use super::history::{self, Operation, Verdict};
use super::load::{self, KEYS, Ledger};
use super::operator::Operator;
use super::run::Run;

/// Time after which all copies of every record are the same, once nobody writes any more.
const EQUAL_WITHIN: Duration = Duration::from_secs(20);
/// Pause between two looks at the copies.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How far a warning may be from the refusal that it explains.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// Notes every promise that was broken.
pub(crate) async fn judge(run: &Arc<Run>, ledger: &Arc<Ledger>) {
    let unequal = wait_until_equal(run).await;
    for key in unequal {
        run.violation(format!("the owners of {key} hold different records {EQUAL_WITHIN:?} after the end"));
    }
    for gateway in 0..run.plan.shape.gateways {
        let application = run.cluster.application(gateway, gateway);
        for key in 0..KEYS {
            if !load::read_at_the_end(&run.world, ledger, &application, key).await {
                run.violation(format!("{} cannot be read at the end", load::key_name(key)));
            }
        }
    }
    for (key, history) in ledger.histories() {
        match history::check(&history) {
            Verdict::Linearizable => {}
            Verdict::Violated => {
                let smallest = show(&history::smallest(&history));
                run.violation(format!("{} is not linearizable:\n{smallest}", load::key_name(key)));
            }
            Verdict::Undecided => run.violation(format!("{} could not be decided", load::key_name(key))),
        }
    }
    let outage = ledger.longest_outage();
    if outage > run.scenario.outage_limit {
        run.violation(format!("a client waited for {outage:.1?}, {:?} is allowed", run.scenario.outage_limit));
    }
    look_for_reasons(run, ledger);
}

/// Waits until all owners of each key hold the same; returns the keys of which they do not in time.
async fn wait_until_equal(run: &Run) -> Vec<String> {
    let operator = run.cluster.operator();
    let mut unequal = Vec::new();
    let end = run.world.now() + EQUAL_WITHIN;
    while run.world.now() < end {
        unequal.clear();
        for key in 0..KEYS {
            let name = load::key_name(key);
            if let Err(copies) = copies_are_equal(run, &operator, &name).await {
                unequal.push(format!("{name} ({copies})"));
            }
        }
        if unequal.is_empty() {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    unequal
}

/// Whether all servers that answer for a key answer the same; else what each does.
async fn copies_are_equal(run: &Run, operator: &Operator, key: &str) -> Result<(), String> {
    let mut copies = Vec::new();
    for server in 0..run.plan.shape.servers {
        // Those that do not own the key refuse to answer.
        if let Ok(copy) = operator.read(run.cluster.server_address(server), key.as_bytes()).await {
            copies.push((server + 1, copy));
        }
    }
    if !copies.is_empty() && copies.windows(2).all(|pair| pair[0].1 == pair[1].1) {
        return Ok(());
    }
    let each: Vec<_> = copies.iter().map(|(server, copy)| format!("server{server}: {}", copy.escape_ascii())).collect();
    Err(each.join(", "))
}

/// Whether somebody has warned whenever a client was refused.
fn look_for_reasons(run: &Run, ledger: &Ledger) {
    let journal = run.world.journal();
    let untold = ledger
        .refusals()
        .into_iter()
        .find(|refusal| !journal.has_warning(refusal.begun.saturating_sub(TOLD_WITHIN), refusal.ended + TOLD_WITHIN));
    if let Some(refusal) = untold {
        run.violation(format!("a client was refused at {:.3?}, and no node has said why", refusal.ended));
    }
}

/// A history as people read it.
fn show(history: &[Operation]) -> String {
    let mut sorted: Vec<_> = history.iter().collect();
    sorted.sort_by_key(|operation| operation.begun);
    let line = |operation: &&Operation| {
        // No answer, or one that does not matter for the violation.
        let ended = operation.ended.map_or_else(String::new, |ended| format!("{:.6}", ended.as_secs_f64()));
        format!(
            "{:14.6} - {ended:>11}  client {}: {:?}",
            operation.begun.as_secs_f64(),
            operation.client + 1,
            operation.kind
        )
    };
    sorted.iter().map(line).collect::<Vec<_>>().join("\n")
}
