//! How many files and connections the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: what the administrator allows is what is meant.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// How many of `wanted` connections fit within the limit of open files, with `reserve` files for everything else.
///
/// Warns if that is not all of them.
pub fn connections(wanted: usize, reserve: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let fitting = fitting(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)), wanted, reserve);
    if fitting < wanted {
        tracing::warn!(
            "the limit of open files allows only {fitting} connections instead of {wanted}; raise it (ulimit -n)"
        );
    }
    fitting
}

fn fitting(limit: Option<usize>, wanted: usize, reserve: usize) -> usize {
    // However small the limit, somebody must be able to ask what is wrong.
    limit.map_or(wanted, |limit| wanted.min(limit.saturating_sub(reserve).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_reserve() {
        assert_eq!(fitting(None, 10, 5), 10);
        assert_eq!(fitting(Some(15), 10, 5), 10);
        assert_eq!(fitting(Some(14), 10, 5), 9);
        assert_eq!(fitting(Some(3), 10, 5), 1);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
