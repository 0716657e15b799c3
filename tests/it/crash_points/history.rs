//! The lines that a worker has printed, and what may therefore be there after it was killed. Knows no processes and no files.
//!
//! ```text
//! try N KEY NAME|-    write N is about to be tried: the key becomes NAME, or is deleted
//! try N all -         likewise a floor: every key becomes absent
//! done N              ... it is acknowledged
//! same N              ... it has changed nothing
//! fail N              ... it was refused when it may have been stored
//! flushed N           all writes before N that were not refused are durable
//! saw KEY NAME|-      what a read has found
//! healed              faults are over
//! ```

use std::collections::BTreeMap;

/// What each key holds: the name of a write, or nothing.
pub(crate) type View = BTreeMap<u64, String>;

/// Stands for every key.
const ALL: u64 = u64::MAX;

/// How a worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself or by a kill: what the kernel had is there.
    Kill,
    /// By a loss of power: what had not been synced may be gone.
    Dark {
        /// Whether acknowledged is synced.
        always: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Done,
    Void,
}

#[derive(Debug)]
struct Try {
    key: u64,
    becomes: Option<String>,
    fate: Fate,
}

/// The writes of one worker's life, on top of what was there before.
#[derive(Debug, Default)]
pub(crate) struct History {
    base: View,
    tries: Vec<Try>,
    flushed: usize,
    /// The disk has failed: what is there need not be a prefix of what was tried.
    failed: bool,
}

impl History {
    pub(crate) fn on(base: View) -> Self {
        Self { base, ..Self::default() }
    }

    /// Takes in a line; an error if it says something impossible.
    pub(crate) fn hear(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        let (word, first) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let number = first.parse::<usize>().unwrap_or(usize::MAX);
        match word {
            "try" => {
                let key = words.next().ok_or(line)?;
                let key = if key == "all" { ALL } else { key.parse().map_err(|_| line)? };
                let becomes = words.next().filter(|name| *name != "-").map(str::to_owned);
                if number != self.tries.len() {
                    return Err(format!("out of order: {line}"));
                }
                self.tries.push(Try { key, becomes, fate: Fate::Open });
            }
            "done" | "same" | "fail" => {
                let fate = match word {
                    "done" => Fate::Done,
                    "same" => Fate::Void,
                    _ => Fate::Open,
                };
                self.failed |= word == "fail";
                self.tries.get_mut(number).ok_or(line)?.fate = fate;
            }
            "flushed" => self.flushed = self.flushed.max(number),
            "saw" => {
                let found = words.next().filter(|name| *name != "-");
                self.allows(u64::try_from(number).unwrap_or_default(), found, End::Kill)?;
            }
            "healed" | "end" | "unclosed" => {}
            _ => return Err(line.to_owned()),
        }
        Ok(())
    }

    /// The disk has failed meanwhile.
    pub(crate) fn note_failure(&mut self) {
        self.failed = true;
    }

    /// Whether a key may hold this: what was kept last, or what was tried after it.
    fn allows(&self, key: u64, found: Option<&str>, end: End) -> Result<(), String> {
        let mut allowed = vec![self.base.get(&key).map(String::as_str)];
        for (number, one) in
            self.tries.iter().enumerate().filter(|(_, one)| [key, ALL].contains(&one.key) && one.fate != Fate::Void)
        {
            let kept = match end {
                End::Kill | End::Dark { always: true } => true,
                End::Dark { always: false } => number < self.flushed,
            };
            if kept && one.fate == Fate::Done {
                allowed.clear();
            }
            allowed.push(one.becomes.as_deref());
        }
        if allowed.contains(&found) {
            return Ok(());
        }
        Err(format!("key {key} holds {found:?}, which is not one of {allowed:?}"))
    }

    /// Whether this may be there after `end`.
    pub(crate) fn allows_all(&self, found: &View, end: End) -> Result<(), String> {
        let tried = self.tries.iter().map(|one| &one.key).filter(|key| **key != ALL);
        for &key in tried.chain(self.base.keys()).chain(found.keys()) {
            self.allows(key, found.get(&key).map(String::as_str), end)?;
        }
        if matches!(end, End::Dark { .. }) && !self.failed && !self.is_prefix(found) {
            return Err(format!("{found:?} is no prefix of what was tried"));
        }
        Ok(())
    }

    /// Whether this was there after some write and before the next.
    fn is_prefix(&self, found: &View) -> bool {
        let mut view = self.base.clone();
        if view == *found {
            return true;
        }
        self.tries.iter().filter(|one| one.fate != Fate::Void).any(|one| {
            match &one.becomes {
                Some(name) => view.insert(one.key, name.clone()),
                None if one.key == ALL => {
                    view.clear();
                    None
                }
                None => view.remove(&one.key),
            };
            view == *found
        })
    }

    /// Writes that were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.tries.iter().filter(|one| one.fate == Fate::Done).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> History {
        let mut history = History::on(View::from([(1, "old".to_owned())]));
        for line in lines {
            history.hear(line).unwrap();
        }
        history
    }

    #[test]
    fn what_is_acknowledged_must_be_there() {
        let history = told(&["try 0 1 new", "done 0", "try 1 1 newer", "try 2 2 other", "same 2"]);
        let view = |name: &str| View::from([(1, name.to_owned())]);
        let dark = End::Dark { always: false };
        for (name, killed, darkened) in [("new", true, true), ("newer", true, true), ("old", false, true)] {
            assert_eq!(history.allows_all(&view(name), End::Kill).is_ok(), killed, "{name}");
            assert_eq!(history.allows_all(&view(name), dark).is_ok(), darkened, "{name}");
        }
        assert!(history.allows_all(&view("old"), End::Dark { always: true }).is_err());
        assert!(history.allows_all(&View::from([(2, "other".to_owned())]), End::Kill).is_err());
        assert!(told(&["try 0 1 new", "done 0", "flushed 1"]).allows_all(&view("old"), dark).is_err());
    }

    #[test]
    fn what_is_left_without_power_has_no_holes() {
        let history = told(&["try 0 1 one", "done 0", "try 1 2 two", "done 1"]);
        let hole = View::from([(1, "old".to_owned()), (2, "two".to_owned())]);
        assert!(history.allows_all(&hole, End::Dark { always: false }).is_err());
        assert!(history.hear_is_refused("done 7") && history.hear_is_refused("problem x"));
    }

    impl History {
        fn hear_is_refused(&self, line: &str) -> bool {
            Self::on(self.base.clone()).hear(line).is_err()
        }
    }
}
