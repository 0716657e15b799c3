//! Values of flags: numbers with units, checked as they are read so that the message names the flag.

use std::time::Duration;

/// Longest time a flag may give, in seconds: three years, so that no sum of times overflows.
const LONGEST_SECONDS: f64 = 1e8;

/// Seconds, possibly with a fraction; zero is allowed.
pub(in crate::cli) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.0..=LONGEST_SECONDS).contains(&seconds) {
        return Err(format!("must be from 0 to {LONGEST_SECONDS} seconds"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Seconds, possibly with a fraction, at least a millisecond: for what repeats or must be able to happen.
pub(in crate::cli) fn positive_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|time| match time {
        time if time < Duration::from_millis(1) => Err("must be at least 0.001 seconds".to_owned()),
        time => Ok(time),
    })
}

/// `KiB` as bytes.
pub(in crate::cli) fn kibibytes(text: &str) -> Result<u64, String> {
    bytes(text, 1 << 10, "KiB")
}

/// `MiB` as bytes.
pub(in crate::cli) fn mebibytes(text: &str) -> Result<u64, String> {
    bytes(text, 1 << 20, "MiB")
}

fn bytes(text: &str, unit: u64, name: &str) -> Result<u64, String> {
    let count: u64 = text.parse().map_err(|_| format!("not a whole number of {name}"))?;
    // What SQLite, file sizes and i64 columns can take.
    count.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| format!("too many {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_be_fractions() {
        assert_eq!(seconds("3.0"), Ok(Duration::from_secs(3)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(positive_seconds("0.001"), Ok(Duration::from_millis(1)));
    }

    #[test]
    fn times_without_meaning_are_refused() {
        for text in ["-1", "nan", "inf", "1e9", "", "5s", "1e-400x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        for text in ["0", "1e-9"] {
            assert!(positive_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_do_not_wrap() {
        assert_eq!(kibibytes("20480"), Ok(20480 << 10));
        assert_eq!(mebibytes("0"), Ok(0));
        for text in ["-1", "1.5", "18446744073709551615", "9007199254740992"] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
    }
}
