//! Times as text and as milliseconds since the Unix epoch, UTC.
//!
//! RFC 3339 writes four digits of year, so a time is one of the years 0000 to 9999; `jiff`'s
//! timestamps end a day earlier, hence the two calendar functions here (the tests hold them
//! against `jiff`). Source: RFC 3339 §5.6; Howard Hinnant, "chrono-compatible low-level date
//! algorithms", `days_from_civil` and `civil_from_days`.

/// 0000-01-01T00:00:00.000Z, the earliest time that has an RFC 3339 text.
pub const MS_MIN: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z, the latest.
pub const MS_MAX: i64 = 253_402_300_799_999;

/// `ms` where it is within `MS_MIN..=MS_MAX`.
pub fn checked_ms(ms: i64) -> Option<i64> {
    (MS_MIN..=MS_MAX).contains(&ms).then_some(ms)
}

/// Reads an RFC 3339 time with any offset; digits past the millisecond are cut off.
/// A leap second counts as the second before it. `None` where the text is no such time (a date
/// without an offset is none) or its UTC year is not 0000 to 9999.
pub fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let (head, tail) = text.as_bytes().split_at_checked(19)?;
    let [
        year @ ..,
        b'-',
        mo1,
        mo2,
        b'-',
        d1,
        d2,
        b'T' | b't' | b' ',
        h1,
        h2,
        b':',
        mi1,
        mi2,
        b':',
        s1,
        s2,
    ] = head
    else {
        return None;
    };
    let days = days(number(year)?, number(&[*mo1, *mo2])?, number(&[*d1, *d2])?)?;
    let (hour, minute) = (number(&[*h1, *h2])?, number(&[*mi1, *mi2])?);
    let second = number(&[*s1, *s2])?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second.min(59);
    let (fraction_ms, zone) = fraction(tail)?;
    checked_ms((seconds - offset_seconds(zone)?) * 1_000 + fraction_ms)
}

/// Appends `ms` as `2026-11-22T10:00:00.000Z`. A time outside `MS_MIN..=MS_MAX` is written as the
/// nearer end.
pub fn write_rfc3339_ms(out: &mut Vec<u8>, ms: i64) {
    // From here on all is positive and within 32 bits, where division is cheap.
    let since_year_0 = ms.clamp(MS_MIN, MS_MAX).abs_diff(MS_MIN);
    let (year, month, day) = civil((since_year_0 / MS_PER_DAY) as u32);
    let of_day = (since_year_0 % MS_PER_DAY) as u32;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], of_day / 3_600_000);
    put(&mut text[14..16], of_day / 60_000 % 60);
    put(&mut text[17..19], of_day / 1_000 % 60);
    put(&mut text[20..23], of_day % 1_000);
    out.extend_from_slice(&text);
}

const MS_PER_DAY: u64 = 86_400_000;

/// Fills `place` with the decimal digits of `value`, which has no more of them than fit.
fn put(place: &mut [u8], mut value: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The value of a few ASCII digits, and nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        Some(value * 10 + digit)
    })
}

/// Splits `.123456Z` into 123 and `Z`; a fraction may be absent, but not empty.
fn fraction(tail: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = tail.split_first() else {
        return Some((0, tail));
    };
    let count = digits.iter().take_while(|d| d.is_ascii_digit()).count();
    let (digits, zone) = digits.split_at(count);
    let ms = match *digits {
        [] => return None,
        [a] => number(&[a, b'0', b'0']),
        [a, b] => number(&[a, b, b'0']),
        [a, b, c, ..] => number(&[a, b, c]),
    };
    Some((ms?, zone))
}

/// Seconds east of UTC.
fn offset_seconds(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let seconds = hours * 3_600 + minutes * 60;
            let signed = if sign == b'-' { -seconds } else { seconds };
            (hours <= 23 && minutes <= 59).then_some(signed)
        }
        _ => None,
    }
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar; `None` where it has no such
/// day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    // The year begins in March, so that the leap day is its last.
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (1..=last)
        .contains(&day)
        .then_some(era * 146_097 + days - 719_468)
}

/// Year, month and day of the day so many days after 0000-01-01.
fn civil(days: u32) -> (u32, u32, u32) {
    // Counted in eras of 400 years, from the one that began on -0400-03-01: a year that begins in
    // March has its leap day last.
    let days = days + 146_097 - 60;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    (year + era * 400 + u32::from(month <= 2) - 400, month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn written(ms: i64) -> String {
        let mut out = Vec::new();
        write_rfc3339_ms(&mut out, ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reads_what_rfc_3339_allows() {
        let check = |text: &str, expected: &str| {
            let ms = parse_rfc3339_ms(text);
            assert_eq!(ms.map(written).as_deref(), Some(expected), "{text}");
        };
        check("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000Z");
        check("2026-11-22t10:00:00.5z", "2026-11-22T10:00:00.500Z");
        check("2026-11-22 10:00:00.12Z", "2026-11-22T10:00:00.120Z");
        check("2026-11-22T10:00:00.999999999Z", "2026-11-22T10:00:00.999Z");
        check("2026-11-22T10:00:00+02:00", "2026-11-22T08:00:00.000Z");
        check("2026-01-01T00:00:00-23:59", "2026-01-01T23:59:00.000Z");
        check("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z");
        check("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z");
        check("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z");
        check("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z");
        check("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn refuses_what_it_does_not() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T10:00Z",
            "2026-11-22T10:00:00",
            "2026-11-22T10:00:00.Z",
            "2026-11-22T10:00:00,5Z",
            "2026-11-22T10:00:00+0200",
            "2026-11-22T10:00:00+24:00",
            "2026-11-22T10:00:00ZZ",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:00:61Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-04-00T00:00:00Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+002026-11-22T10:00:00Z",
            "2026-11-22T10:00:00Zé",
            "2026-11-22T10:00:0é",
            "٢٠٢٦-11-22T10:00:00Z",
        ] {
            assert_eq!(parse_rfc3339_ms(text), None, "{text}");
        }
    }

    #[test]
    fn the_ends_are_where_they_are_said_to_be() {
        assert_eq!(parse_rfc3339_ms("0000-01-01T00:00:00Z"), Some(MS_MIN));
        assert_eq!(parse_rfc3339_ms("9999-12-31T23:59:59.999Z"), Some(MS_MAX));
        assert_eq!(written(i64::MIN), written(MS_MIN));
        assert_eq!(written(i64::MAX), written(MS_MAX));
        assert_eq!(checked_ms(MS_MAX + 1), None);
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(ms in MS_MIN..=MS_MAX) {
            prop_assert_eq!(parse_rfc3339_ms(&written(ms)), Some(ms));
        }

        #[test]
        fn writes_as_jiff_does(ms in MS_MIN..=Timestamp::MAX.as_millisecond()) {
            let jiff = Timestamp::from_millisecond(ms).unwrap();
            prop_assert_eq!(written(ms), format!("{jiff:.3}"));
        }

        #[test]
        fn reads_as_jiff_does(
            text in "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9])"
        ) {
            let jiff = text.parse::<Timestamp>().ok().map(|t| t.as_nanosecond().div_euclid(1_000_000));
            prop_assert_eq!(parse_rfc3339_ms(&text).map(i128::from), jiff);
        }

        #[test]
        fn reads_anything_without_panic(text in ".{0,40}") {
            let _ = parse_rfc3339_ms(&text);
        }
    }
}
