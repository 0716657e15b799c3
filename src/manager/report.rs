//! What a manager tells of the cluster and of itself, for `ctl status`.

use super::addresses::Refused;
use super::shell::{Inner, Shell};
use crate::register::Machine;
use crate::wire::NodeAddress;
use crate::wire::figures::{ManagerFigures, RefusedFigures};

impl Shell {
    /// All figures.
    pub(super) fn figures(&self, inner: &Inner) -> ManagerFigures {
        let now = self.env.time().now();
        ManagerFigures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: Some(self.address),
            configuration: inner.votes.configuration().counter,
            refused: inner.addresses.refused(now).map(refused).collect(),
        }
    }
}

fn refused((node, refused): (NodeAddress, Refused)) -> RefusedFigures {
    let store = |machine: &Machine| if machine.store == 0 { String::new() } else { format!("{:016x}", machine.store) };
    RefusedFigures {
        address: Some(node),
        machine: refused.machine.ip.to_string(),
        store: store(&refused.machine),
        owner: refused.owner.map(|owner| owner.ip.to_string()).unwrap_or_default(),
        owner_store: refused.owner.as_ref().map(store).unwrap_or_default(),
    }
}
