//! The rules by which a cluster keeps its promises, each with a name: a simulation leaves one out to see what it is for.
//!
//! Outside of simulations all of them are followed, and there is no way to leave one out. Knows nothing of what they are
//! about.

/// A rule that can be left out in a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A write has succeeded only if every owner that is active has it.
    AllOwners,
    /// Servers complete a change that its manager has left half done.
    Complete,
    /// An owner shows a copy only when all owners have it, and sees to those of lost coordinators.
    SettleCopies,
    /// What a server holds from before its admission counts as absent.
    Admission,
    /// A write that was sent by an earlier hash space is refused.
    LateWrites,
}

impl Rule {
    /// All rules.
    pub const ALL: &[Self] = &[Self::AllOwners, Self::Complete, Self::SettleCopies, Self::Admission, Self::LateWrites];

    /// Its name, in words joined by dashes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllOwners => "all-owners",
            Self::Complete => "complete",
            Self::SettleCopies => "settle-copies",
            Self::Admission => "admission",
            Self::LateWrites => "late-writes",
        }
    }
}

/// The rules that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// A bit for each rule that is left out.
    without: u64,
}

impl Rules {
    /// All but one.
    pub const fn without(rule: Rule) -> Self {
        Self { without: 1 << rule as u32 }
    }

    /// Whether this one is followed.
    #[inline]
    pub const fn follow(self, rule: Rule) -> bool {
        self.without & (1 << rule as u32) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_left_out_and_no_other() {
        assert!(Rule::ALL.iter().all(|rule| Rules::default().follow(*rule)));
        for left_out in Rule::ALL {
            let rules = Rules::without(*left_out);
            assert!(Rule::ALL.iter().all(|rule| rules.follow(*rule) == (rule != left_out)), "{left_out:?}");
        }
        let names: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len(), "two rules have one name");
    }
}
