//! Points in time as users write and read them: milliseconds since 1970, or a date in UTC.

const MS_PER_SECOND: i64 = 1000;
const SECONDS_PER_DAY: i64 = 86_400;

/// What [`parse`] takes, for messages.
pub(crate) const ACCEPTED: &str = "milliseconds since 1970 (1767323045000) or a date \
     (2026-01-02, 2026-01-02T03:04, 2026-01-02T03:04:05.678, then Z or +hh:mm; UTC without a zone)";

/// Milliseconds since 1970 now.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Milliseconds since 1970 of what the user wrote.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "00:00"),
    };
    let (clock, offset_minutes) = split_zone(time)?;
    let day = parse_date(date)?;
    let ms = parse_clock(clock)?;
    Some(day * SECONDS_PER_DAY * MS_PER_SECOND + ms - offset_minutes * 60 * MS_PER_SECOND)
}

/// Exactly `digits` digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

fn within(value: i64, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    range.contains(&value).then_some(value)
}

/// Days since 1970.
fn parse_date(date: &str) -> Option<i64> {
    let mut parts = date.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let month = within(number(parts.next()?, 2)?, 1..=12)?;
    let day = within(number(parts.next()?, 2)?, 1..=31)?;
    let days = days_of(year, month, day);
    // The 31st of a shorter month comes back as another day.
    (date_of(days) == (year, month, day)).then_some(days)
}

/// Milliseconds of the day.
fn parse_clock(clock: &str) -> Option<i64> {
    let mut parts = clock.splitn(3, ':');
    let hour = within(number(parts.next()?, 2)?, 0..=23)?;
    let minute = within(number(parts.next()?, 2)?, 0..=59)?;
    let (second, fraction) = match parts.next() {
        None => ("00", "0"),
        Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "0")),
    };
    let second = within(number(second, 2)?, 0..=59)?;
    let is_fraction =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let ms: i64 = match is_fraction {
        true => format!("{fraction:0<3}")[..3].parse().ok()?,
        false => return None,
    };
    Some(((hour * 60 + minute) * 60 + second) * MS_PER_SECOND + ms)
}

/// The clock, and how many minutes its zone is ahead of UTC.
fn split_zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = time.find(['+', '-']) else {
        return Some((time, 0));
    };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let hours = within(number(hours, 2)?, 0..=23)?;
    let minutes = within(number(minutes, 2)?, 0..=59)?;
    let sign = if time.as_bytes()[at] == b'-' { -1 } else { 1 };
    Some((&time[..at], sign * (hours * 60 + minutes)))
}

/// `2026-01-02T03:04:05.678Z`, or `-` for a negative timestamp, which means none.
pub(crate) fn format(timestamp_ms: i64) -> String {
    if timestamp_ms < 0 {
        return "-".to_owned();
    }
    let seconds = timestamp_ms / MS_PER_SECOND;
    let (year, month, day) = date_of(seconds / SECONDS_PER_DAY);
    let second = seconds % SECONDS_PER_DAY;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        timestamp_ms % MS_PER_SECOND
    )
}

/// Days since 1970 of a date of the Gregorian calendar: years start in March, so that the leap day
/// is their last, and 400 of them have 146,097 days.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of a day since 1970; the inverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_and_dates_mean_the_same() {
        let expected = 1_767_323_045_678;
        for text in [
            "1767323045678",
            "2026-01-02T03:04:05.678Z",
            "2026-01-02 03:04:05.678",
            "2026-01-02t03:04:05.678999z",
            "2026-01-02T05:34:05.678+02:30",
            "2026-01-01T22:04:05.678-05:00",
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        assert_eq!(parse("1970-01-01"), Some(0));
        assert_eq!(parse("1970-01-01T00:01"), Some(60_000));
        assert_eq!(parse("1969-12-31T23:59:59Z"), Some(-1000));
        assert_eq!(parse("2024-02-29"), Some(1_709_164_800_000));
        assert_eq!(parse("2026-01-02T03:04:05.5Z"), Some(1_767_323_045_500));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-1",
            "now",
            "2026",
            "2026-1-2",
            "2026-13-01",
            "2026-02-29",
            "2026-01-02T",
            "2026-01-02T24:00",
            "2026-01-02T03:04:60",
            "2026-01-02T03:04:05.",
            "2026-01-02T03:04:05.x",
            "2026-01-02T03:04+2",
            "2026-01-02T03:04+99:00",
            "99999999999999999999",
            "2026-01-02T03:04:05.6Zé",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_comes_back() {
        for day in -100_000..100_000 {
            let (year, month, date) = date_of(day);
            assert_eq!(days_of(year, month, date), day);
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for timestamp_ms in [
            0,
            1,
            951_782_399_999,
            1_767_323_045_678,
            253_402_300_799_999,
        ] {
            assert_eq!(parse(&format(timestamp_ms)), Some(timestamp_ms));
        }
        assert_eq!(format(-1), "-");
    }
}
