//! Dates as HTTP writes them (RFC 9110 section 5.6.7).

use std::cell::Cell;
use std::time::UNIX_EPOCH;

const LEN: usize = 29;
const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
/// 9999-12-31T23:59:59Z: a year has four digits.
const LAST: u64 = 253_402_300_799;

/// Appends a date. The same second is asked for thousands of times, so each thread remembers the last one.
pub(crate) fn push_date(out: &mut Vec<u8>, seconds: u64) {
    thread_local!(static LAST_DATE: Cell<(u64, [u8; LEN])> = const { Cell::new((u64::MAX, [0; LEN])) });
    let seconds = seconds.min(LAST);
    let (known, mut text) = LAST_DATE.get();
    if known != seconds {
        text = format(seconds);
        LAST_DATE.set((seconds, text));
    }
    out.extend_from_slice(&text);
}

/// Appends a date that is not likely to be asked for again.
pub(crate) fn push_date_once(out: &mut Vec<u8>, seconds: u64) {
    out.extend_from_slice(&format(seconds.min(LAST)));
}

/// Reads a date in any of the three forms, as seconds since 1970. Earlier ones count as 1970.
pub(crate) fn parse(value: &[u8]) -> Option<u64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

fn format(seconds: u64) -> [u8; LEN] {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    two(&mut text, 5, day);
    text[8..11].copy_from_slice(MONTHS[month as usize]);
    two(&mut text, 12, year / 100);
    two(&mut text, 14, year % 100);
    two(&mut text, 17, second / 3600);
    two(&mut text, 20, second / 60 % 60);
    two(&mut text, 23, second % 60);
    text
}

fn two(text: &mut [u8; LEN], at: usize, number: u64) {
    text[at] = b'0' + (number / 10 % 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

/// Year, month from 0, day of the month from 1, of a number of days since 1970. Years begin in March inside, so
/// that the leap day is the last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    (era * 400 + year_of_era + u64::from(month < 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn text(seconds: u64) -> String {
        let mut out = Vec::new();
        push_date(&mut out, seconds);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn dates_are_those_of_httpdate_and_come_back(seconds in 0..=LAST) {
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(text(seconds), expected);
            prop_assert_eq!(parse(text(seconds).as_bytes()), Some(seconds));
        }
    }

    #[test]
    fn the_three_forms_are_read_and_nothing_else() {
        let forms =
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
        for form in forms {
            assert_eq!(parse(form.as_bytes()), Some(784_111_777), "{form}");
        }
        assert_eq!(parse(b"0"), None);
        assert_eq!(parse(b"\xff"), None);
        assert_eq!(text(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
