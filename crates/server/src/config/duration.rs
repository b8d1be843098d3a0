//! Durations, as people write them: one whole number and one unit.

use std::time::Duration;

use serde_json::Value as Json;

use super::node::{Fault, Node};
use super::setting::Setting;

/// Units in milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A century. Longer ones are a slip of the finger, and adding them to a point in time could overflow it.
const LONGEST: Duration = Duration::from_millis(36_500 * 86_400_000);

/// Reads `500ms`, `30s`, `5m`, `24h`, `1d`. `None` for anything else, and for more than 36500 days.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    let duration = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*milliseconds)?);
    (duration <= LONGEST).then_some(duration)
}

/// The shortest exact form that [`parse`] reads back. What is finer than a millisecond is dropped.
pub(super) fn print(duration: Duration) -> String {
    let total = duration.as_millis();
    let exact = |unit: u64| total != 0 && total.is_multiple_of(u128::from(unit));
    match UNITS.iter().find(|(_, unit)| exact(*unit)) {
        Some((name, unit)) => format!("{}{name}", total / u128::from(*unit)),
        None => "0s".to_owned(),
    }
}

impl Setting for Duration {
    fn expected() -> String {
        r#"a duration with its unit (ms, s, m, h or d), such as "500ms", "30s", "24h""#.to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        node.text().and_then(parse).ok_or_else(|| node.wrong(Self::expected()))
    }

    fn json(&self) -> Json {
        print(*self).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_known() {
        let cases =
            [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("1 d", 86_400_000)];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "30", "s", "-1s", "1.5s", "1h30m", "30S", "1 week", "36501d", "99999999999999999999s"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_largest_even_unit_is_printed() {
        assert_eq!(print(Duration::from_secs(86_400)), "1d");
        assert_eq!(print(Duration::from_secs(90)), "90s");
        assert_eq!(print(Duration::ZERO), "0s");
    }

    proptest! {
        #[test]
        fn printing_and_reading_is_the_identity(milliseconds in 0..=36_500_u64 * 86_400_000, unit in 0_usize..5) {
            let unit = UNITS[unit].1;
            let duration = Duration::from_millis(milliseconds / unit * unit);
            prop_assert_eq!(parse(&print(duration)), Some(duration));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,12}|[0-9]{0,30} ?[smhd]{0,2}") {
            let _ = parse(&text);
        }
    }
}
