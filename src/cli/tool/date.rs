//! Dates as the tools of 2010 print them: `Sun Nov 22 17:05:31 +0000 2026`, in UTC.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: u32 = 86_400;

/// The date and time of unix seconds.
pub(in crate::cli) fn date(seconds: u32) -> String {
    let (day, second) = (seconds / DAY, seconds % DAY);
    let name = DAYS.get(usize::try_from(day % 7).unwrap_or_default()).copied().unwrap_or_default();
    let (year, month, day) = civil(day);
    let month = MONTHS.get(month).copied().unwrap_or_default();
    format!("{name} {month} {day:02} {:02}:{:02}:{:02} +0000 {year}", second / 3600, second / 60 % 60, second % 60)
}

/// Unix seconds as `2026-11-22 17:05:31 +0000`.
pub(in crate::cli) fn stamp(seconds: u64) -> String {
    let Ok(seconds) = u32::try_from(seconds) else { return format!("unix second {seconds}") };
    let (year, month, day) = civil(seconds / DAY);
    let second = seconds % DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000", month + 1)
}

/// The day of unix seconds as `20261122`.
pub(in crate::cli) fn compact(seconds: u32) -> String {
    let (year, month, day) = civil(seconds / DAY);
    format!("{year:04}{:02}{day:02}", month + 1)
}

/// Year, month from 0, and day from 1, of a day since 1970.
fn civil(mut day: u32) -> (u32, usize, u32) {
    let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    for (month, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    (year, 11, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_across_leap_years() {
        for (seconds, text) in [
            (0, "Thu Jan 01 00:00:00 +0000 1970"),
            (68_255_999, "Tue Feb 29 23:59:59 +0000 1972"),
            (951_868_799, "Tue Feb 29 23:59:59 +0000 2000"),
            (1_228_315_535, "Wed Dec 03 14:45:35 +0000 2008"),
            (1_798_761_599, "Thu Dec 31 23:59:59 +0000 2026"),
            (u32::MAX, "Sun Feb 07 06:28:15 +0000 2106"),
        ] {
            assert_eq!(date(seconds), text);
        }
        assert_eq!(compact(951_868_799), "20000229");
        assert_eq!(stamp(951_868_799), "2000-02-29 23:59:59 +0000");
        assert_eq!(stamp(1 << 40), "unix second 1099511627776");
    }
}
