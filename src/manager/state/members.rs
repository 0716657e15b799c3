//! Attach and detach of chosen servers, and what they have changed. Pure, as all of the state.

use super::{Action, Impossible, State};
use crate::clock::Clock;
use crate::wire::NodeAddress;
use crate::wire::extension::{Changed, Choice};

impl State {
    /// Attaches the chosen servers, or all that are not attached, and starts a replace if asked to. If a chosen one is not
    /// connected, nothing is changed.
    ///
    /// After the end of all servers the last hash space is taken up as by [`State::attach`]: those who were active in it
    /// and are back are active again, chosen or not, since they hold the records.
    pub(in crate::manager) fn attach_chosen(
        &mut self,
        choice: &Choice,
        replace: bool,
        clock: &Clock,
    ) -> Result<(Changed, Vec<Action>), Impossible> {
        let chosen = choice.servers.clone();
        let missing = missing(chosen.as_deref(), |server| self.servers.contains(&server));
        if !missing.is_empty() {
            return Ok((Changed { missing, ..Changed::default() }, Vec::new()));
        }
        let before = self.spaces.whs.nodes.clone();
        let actions = self.attach_servers(chosen, replace, clock)?;
        let new = |server: &(NodeAddress, bool)| server.1 && !before.contains(server);
        let servers = self.spaces.whs.nodes.iter().filter(|server| new(server)).map(|(server, _)| *server).collect();
        Ok((Changed { servers, replace, ..Changed::default() }, actions))
    }

    /// Removes the chosen servers, or all that are in fault; only if there are any a replace is started. If a chosen one is
    /// not in fault, nothing is changed.
    pub(in crate::manager) fn detach_chosen(
        &mut self,
        choice: &Choice,
        replace: bool,
        clock: &Clock,
    ) -> Result<(Changed, Vec<Action>), Impossible> {
        let faulty = self.spaces.faulty();
        let missing = missing(choice.servers.as_deref(), |server| faulty.contains(&server));
        if !missing.is_empty() {
            return Ok((Changed { missing, ..Changed::default() }, Vec::new()));
        }
        let chosen = choice.servers.clone().unwrap_or(faulty);
        let changed = self.spaces.remove(&chosen, clock);
        let replace = replace && changed;
        let actions = self.after_change(changed, replace, clock)?;
        let servers = if changed { chosen } else { Vec::new() };
        Ok((Changed { servers, replace, ..Changed::default() }, actions))
    }

    /// Removes servers that an operator says are off for good, also the last owners of some keys.
    pub(in crate::manager) fn detach_forced(
        &mut self,
        servers: &[NodeAddress],
        replace: bool,
        clock: &Clock,
    ) -> Result<(Changed, Vec<Action>), Impossible> {
        for server in servers {
            self.server_away(*server);
            self.spaces.fault(*server, clock);
        }
        self.void_copy("servers were detached by force");
        let changed = self.spaces.remove(servers, clock);
        let actions = self.after_change(changed, replace, clock)?;
        Ok((Changed { servers: servers.to_vec(), replace, ..Changed::default() }, actions))
    }
}

/// Those of `chosen` that are not as they should be.
fn missing(chosen: Option<&[NodeAddress]>, is_there: impl Fn(NodeAddress) -> bool) -> Vec<NodeAddress> {
    chosen.into_iter().flatten().copied().filter(|server| !is_there(*server)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{node, settled};
    use super::*;
    use crate::manager::state::tests::clock;

    fn only(numbers: &[u8]) -> Choice {
        Choice { servers: Some(numbers.iter().map(|number| node(*number)).collect()), ..Choice::default() }
    }

    fn changed(servers: &[u8], missing: &[u8], replace: bool) -> Changed {
        let nodes = |numbers: &[u8]| numbers.iter().map(|number| node(*number)).collect();
        Changed { servers: nodes(servers), missing: nodes(missing), replace, ..Changed::default() }
    }

    #[test]
    fn only_the_chosen_are_attached_and_all_of_them_or_none() {
        let clock = clock();
        let mut state = settled(&[1, 2], &clock);
        for number in [3, 4] {
            state.server_bound(node(number));
        }
        let before = state.spaces.clone();
        let (done, actions) = state.attach_chosen(&only(&[3, 9]), true, &clock).unwrap();
        assert_eq!((done, actions), (changed(&[], &[9], false), Vec::new()));
        assert_eq!(state.spaces, before);
        assert!(state.replace().is_none());

        let (done, actions) = state.attach_chosen(&only(&[1, 3]), true, &clock).unwrap();
        assert_eq!(done, changed(&[3], &[], true));
        assert!(actions.contains(&Action::StartCopy));
        assert_eq!(state.detached(), [node(4)]);
        assert_eq!(state.attach_chosen(&Choice::default(), false, &clock).unwrap().0, changed(&[4], &[], false));
        let (done, _) = state.attach_chosen(&Choice::default(), true, &clock).unwrap();
        assert_eq!(done, changed(&[], &[], true), "an attach of nobody starts a replace, as ever");
    }

    #[test]
    fn only_the_chosen_are_removed_and_without_a_removal_nothing_is_started() {
        let clock = clock();
        let mut state = settled(&[1, 2, 3, 4], &clock);
        let (done, actions) = state.detach_chosen(&Choice::default(), true, &clock).unwrap();
        assert_eq!((done, actions), (changed(&[], &[], false), Vec::new()));
        assert!(state.replace().is_none());
        state.server_lost(node(1), &clock);
        state.server_lost(node(2), &clock);
        let before = state.spaces.clone();
        assert_eq!(state.detach_chosen(&only(&[1, 3]), true, &clock).unwrap().0, changed(&[], &[3], false));
        assert_eq!(state.spaces, before);
        let (done, actions) = state.detach_chosen(&only(&[2]), true, &clock).unwrap();
        assert_eq!(done, changed(&[2], &[], true));
        assert!(actions.contains(&Action::StartCopy));
        assert_eq!(state.spaces.whs.nodes, [(node(1), false), (node(3), true), (node(4), true)]);
        assert_eq!(state.detach_chosen(&Choice::default(), false, &clock).unwrap().0, changed(&[1], &[], false));
    }

    #[test]
    fn the_last_servers_are_never_removed() {
        let clock = clock();
        let mut state = settled(&[1], &clock);
        state.server_lost(node(1), &clock);
        assert_eq!(state.detach_chosen(&only(&[1]), true, &clock), Err(Impossible::NoServer));
        assert_eq!(state.spaces.whs.nodes, [(node(1), false)]);
    }

    #[test]
    fn an_attach_after_the_end_of_all_tells_of_those_who_are_taken_up() {
        let clock = clock();
        let mut state = settled(&[1, 2], &clock);
        for number in [1, 2] {
            state.server_lost(node(number), &clock);
        }
        state.server_bound(node(1));
        assert_eq!(state.attach_chosen(&only(&[2]), false, &clock).unwrap().0, changed(&[], &[2], false));
        assert_eq!(state.attach_chosen(&only(&[1]), false, &clock).unwrap().0, changed(&[1], &[], false));
        assert_eq!(state.spaces.whs.nodes, [(node(1), true), (node(2), false)]);
    }
}
