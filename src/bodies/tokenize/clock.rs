//! `strftime` for templates that tell the model what day it is, in UTC: engines run in containers, whose clocks
//! say that.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A date in the C locale. An error names the directive that is not known.
pub(super) fn strftime(format: &str, now: SystemTime) -> Result<String, String> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) =
        (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let day_of_year = days - days_before(year) + 1;
    // The epoch was a Thursday.
    let weekday = DAYS[(days as usize + 3) % 7];
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut directive = letters.next();
        let is_bare = directive == Some('-');
        if is_bare {
            directive = letters.next();
        }
        let (number, width) = match directive {
            Some('Y') => (year, 4),
            Some('y') => (year % 100, 2),
            Some('m') => (month, 2),
            Some('d') => (day, 2),
            Some('H') => (hour, 2),
            Some('I') => ((hour + 11) % 12 + 1, 2),
            Some('M') => (minute, 2),
            Some('S') => (second, 2),
            Some('j') => (day_of_year, 3),
            other => {
                out.push_str(match other {
                    Some('B') => month_name,
                    Some('b') => &month_name[..3],
                    Some('A') => weekday,
                    Some('a') => &weekday[..3],
                    Some('p') if hour < 12 => "AM",
                    Some('p') => "PM",
                    Some('%') => "%",
                    other => {
                        return Err(format!(
                            "strftime_now: the directive {other:?} is not known here"
                        ));
                    }
                });
                continue;
            }
        };
        let width = if is_bare { 0 } else { width };
        _ = write!(out, "{number:0width$}");
    }
    Ok(out)
}

/// Year, month and day of a day since the epoch: Howard Hinnant's `civil_from_days`, for days from 1970 on.
fn civil(days: u64) -> (u64, u64, u64) {
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days since the epoch before a year.
fn days_before(year: u64) -> u64 {
    let last = year - 1;
    365 * (year - 1_970) + (last / 4 - last / 100 + last / 400)
        - (1_969 / 4 - 1_969 / 100 + 1_969 / 400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "Thursday, 01 January 1970 00:00:00 001"),
            (951_782_400, "Tuesday, 29 February 2000 00:00:00 060"),
            (1_735_689_599, "Tuesday, 31 December 2024 23:59:59 366"),
            (4_107_542_400, "Monday, 01 March 2100 00:00:00 060"),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(strftime("%A, %d %B %Y %H:%M:%S %j", now).unwrap(), expected);
        }
        let now = UNIX_EPOCH + Duration::from_secs(1_735_689_599);
        assert_eq!(strftime("%-d %b %y %I%p %% %a", now).unwrap(), "31 Dec 24 11PM % Tue");
        assert!(strftime("%Q", now).unwrap_err().contains('Q'));
    }
}
