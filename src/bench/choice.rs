//! Random choices: which operation, which key.

use fastrand::Rng;

use super::config::{Distribution, Mix};

/// The operation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    /// Read.
    Get,
    /// Write.
    Set,
    /// Write if unchanged.
    Cas,
    /// Remove.
    Delete,
    /// A copy, as the coordinator of a key sends it to another owner.
    Replicate,
}

impl Operation {
    /// All of them, in the order of reports.
    pub(super) const ALL: [Self; 5] = [Self::Get, Self::Set, Self::Cas, Self::Delete, Self::Replicate];

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Cas => "cas",
            Self::Delete => "delete",
            Self::Replicate => "replicate",
        }
    }
}

impl Mix {
    /// Chooses an operation by the parts.
    #[inline]
    pub(super) fn choose(&self, rng: &mut Rng) -> Operation {
        let mut left = rng.u64(..self.total().max(1));
        for (operation, part) in [(Operation::Get, self.get), (Operation::Set, self.set), (Operation::Cas, self.cas)] {
            match left.checked_sub(u64::from(part)) {
                None => return operation,
                Some(rest) => left = rest,
            }
        }
        Operation::Delete
    }
}

/// Chooses keys by a distribution.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keys {
    /// All of so many alike.
    Uniform(u64),
    /// Few often, many seldom.
    Zipf(Zipf),
}

impl Keys {
    /// A choice among keys 0 to `count`.
    pub(super) fn new(distribution: Distribution, count: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform(count.max(1)),
            Distribution::Zipf(theta) => Self::Zipf(Zipf::new(count.max(1), theta)),
        }
    }

    /// The index of a key.
    #[inline]
    pub(super) fn choose(&self, rng: &mut Rng) -> u64 {
        match self {
            Self::Uniform(count) => rng.u64(..*count),
            // The most frequent key is number 0; the hash scatters them over the servers.
            Self::Zipf(zipf) => zipf.rank(|| rng.f64()) - 1,
        }
    }
}

/// Ranks 1 to n, each with a probability in proportion to rank^-theta.
///
/// Rejection-inversion (Hörmann and Derflinger, 1996): draw from the continuous density x^-theta, whose integral can be
/// inverted, round to a rank, and reject the little by which the density exceeds the step of that rank. Takes no memory
/// and little more than one draw for any n.
#[derive(Debug, Clone, Copy)]
pub(super) struct Zipf {
    count: f64,
    theta: f64,
    /// The integral up to half before the first rank's step, and up to the end.
    low: f64,
    high: f64,
    /// Points this close under their rank need no closer look.
    sure: f64,
}

impl Zipf {
    /// Ranks 1 to `count`; `theta` is more than 0.
    pub(super) fn new(count: u64, theta: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^53")]
        let count = count as f64;
        let mut zipf = Self { count, theta, low: 0.0, high: 0.0, sure: 0.0 };
        // The first rank's step begins where the area before it is exactly its probability, 1.
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(count + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    /// A rank, from draws uniform in [0, 1).
    #[inline]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the count, a u64")]
    pub(super) fn rank(&self, mut uniform: impl FnMut() -> f64) -> u64 {
        loop {
            let area = self.high + uniform() * (self.low - self.high);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.sure || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// The integral of the density from 1 to `x`: (x^(1-theta) - 1) / (1 - theta), or the logarithm.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let power = 1.0 - self.theta;
        if (power * log).abs() < 1e-8 { log } else { (power * log).exp_m1() / power }
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.theta;
        let grown = power * area;
        if grown.abs() < 1e-8 { area.exp() } else { (grown.ln_1p() / power).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 400_000;

    /// How often each of `count` keys is drawn.
    fn drawn(distribution: Distribution, count: usize) -> Vec<f64> {
        let mut rng = Rng::with_seed(7);
        let keys = Keys::new(distribution, count as u64);
        let mut seen = vec![0.0; count];
        for _ in 0..DRAWS {
            seen[usize::try_from(keys.choose(&mut rng)).unwrap()] += 1.0 / f64::from(DRAWS);
        }
        seen
    }

    /// Whether a share seen in [`DRAWS`] draws is within five standard deviations, or five draws, of the expected one.
    fn close(seen: f64, expected: f64) -> bool {
        let deviation = (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
        (seen - expected).abs() < 5.0 * deviation.max(1.0 / f64::from(DRAWS))
    }

    #[test]
    fn zipf_has_the_frequencies_of_its_law() {
        for theta in [0.2, 0.5, 0.99, 1.0, 1.3, 3.0] {
            for count in [1u32, 2, 10, 1000] {
                let seen = drawn(Distribution::Zipf(theta), count as usize);
                let sum: f64 = (1..=count).map(|rank| f64::from(rank).powf(-theta)).sum();
                for (rank, seen) in (1..=count).zip(seen) {
                    let expected = f64::from(rank).powf(-theta) / sum;
                    assert!(close(seen, expected), "theta {theta}, {rank} of {count}: {seen}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn zipf_seldom_draws_twice() {
        let mut rng = Rng::with_seed(7);
        let zipf = Zipf::new(5_000_000, 0.99);
        let mut draws = 0;
        for _ in 0..100_000 {
            let rank = zipf.rank(|| {
                draws += 1;
                rng.f64()
            });
            assert!((1..=5_000_000).contains(&rank));
        }
        assert!(draws < 130_000, "{draws}");
    }

    #[test]
    fn uniform_treats_all_alike() {
        let seen = drawn(Distribution::Uniform, 100);
        assert!(seen.iter().all(|seen| close(*seen, 0.01)), "{seen:?}");
    }

    #[test]
    fn operations_come_in_their_ratio() {
        let mix = Mix { get: 5, set: 3, cas: 0, delete: 2 };
        let mut rng = Rng::with_seed(7);
        let mut seen = [0.0; 4];
        for _ in 0..DRAWS {
            seen[mix.choose(&mut rng) as usize] += 1.0 / f64::from(DRAWS);
        }
        for (seen, expected) in seen.into_iter().zip([0.5, 0.3, 0.0, 0.2]) {
            assert!(close(seen, expected), "{seen}, not {expected}");
        }
    }

    #[test]
    fn one_operation_alone_is_always_chosen() {
        let mut rng = Rng::with_seed(7);
        for (mix, operation) in [
            (Mix { get: 1, set: 0, cas: 0, delete: 0 }, Operation::Get),
            (Mix { get: 0, set: 0, cas: 7, delete: 0 }, Operation::Cas),
            (Mix { get: 0, set: 0, cas: 0, delete: u32::MAX }, Operation::Delete),
        ] {
            assert!((0..100).all(|_| mix.choose(&mut rng) == operation));
        }
    }
}
