//! Sizes in bytes, as people write them.

use std::fmt;

use serde_json::Value as Json;

use super::node::{Fault, Node};
use super::setting::Setting;

/// A number of bytes.
///
/// Written as a number, or as text: a whole or decimal number and a unit, in any case, with or without a space.
/// `K`, `M`, `G`, `T`, `P` and `KiB` to `PiB` are binary, `KB` to `PB` decimal, `B` or nothing is bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Largest first: the first that divides a size evenly is the one it is printed with.
const BINARY_UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// More decimals than this say nothing about a number of bytes, and would overflow the arithmetic.
const DECIMALS_MAX: usize = 15;

impl Size {
    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `kib` times 1024 bytes. For constants: an overflow does not compile.
    pub const fn kib(kib: u64) -> Self {
        Self(kib * (1 << 10))
    }

    /// `mib` times 2^20 bytes. For constants: an overflow does not compile.
    pub const fn mib(mib: u64) -> Self {
        Self(mib * (1 << 20))
    }

    /// `gib` times 2^30 bytes. For constants: an overflow does not compile.
    pub const fn gib(gib: u64) -> Self {
        Self(gib * (1 << 30))
    }

    /// `tib` times 2^40 bytes. For constants: an overflow does not compile.
    pub const fn tib(tib: u64) -> Self {
        Self(tib * (1 << 40))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Reads text such as `512M`, `1.5 GiB`, `20TB` or `4096`; a fraction of a byte is dropped. `None` for
    /// anything else, and for what does not fit 64 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        scaled(number, unit_bytes(unit.trim_start())?).map(Self)
    }

    /// As [`Size::parse`], with `unit` for a number that stands alone: the bare numbers of `-m` and `-D`.
    pub(super) fn with_unit(text: &str, unit: &str) -> String {
        let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if bare { format!("{text}{unit}") } else { text.to_owned() }
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return None,
    })
}

fn scaled(number: &str, unit: u64) -> Option<u64> {
    let Some((whole, decimals)) = number.split_once('.') else {
        return number.parse::<u64>().ok()?.checked_mul(unit);
    };
    if unit == 1 || decimals.len() > DECIMALS_MAX {
        return None;
    }
    let denominator = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    let fraction = u128::from(decimals.parse::<u64>().ok()?) * u128::from(unit) / denominator;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(fraction).ok()?)
}

/// The shortest exact form that [`Size::parse`] reads back.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shift: &u32| self.0 != 0 && self.0.trailing_zeros() >= *shift;
        match BINARY_UNITS.iter().find(|(_, shift)| whole(shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Setting for Size {
    fn expected() -> String {
        r#"a size: a number of bytes, or text such as "512M", "4GiB", "1.5TB""#.to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let number = || node.number().and_then(|text| text.parse().ok()).map(Self);
        number().or_else(|| Self::parse(node.text()?)).ok_or_else(|| node.wrong(Self::expected()))
    }

    fn json(&self) -> Json {
        match self.to_string() {
            text if text.ends_with('B') => text.into(),
            _ => self.0.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        Size::parse(text).map(Size::bytes)
    }

    #[test]
    fn short_units_are_binary_and_long_decimal_units_are_not() {
        assert_eq!(bytes("512M"), Some(512 << 20));
        assert_eq!(bytes("512MiB"), Some(512 << 20));
        assert_eq!(bytes("512MB"), Some(512_000_000));
        assert_eq!(bytes("4G"), Some(4 << 30));
        assert_eq!(bytes("20TiB"), Some(20 << 40));
        assert_eq!(bytes("2P"), Some(2 << 50));
        assert_eq!(bytes("7B"), Some(7));
        assert_eq!(bytes("4096"), Some(4096));
    }

    #[test]
    fn spaces_case_and_decimals_are_fine() {
        assert_eq!(bytes(" 1.5 gib "), Some(3 << 29));
        assert_eq!(bytes("0.25k"), Some(256));
        assert_eq!(bytes("0"), Some(0));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "lots", "1.5", "1.", ".5M", "1.2.3M", "-1M", "+1", "1 Mi", "1e3", "1MM", "1 2M"]
        {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(bytes("16383.9P"), Some((16383 << 50) + (9 * (1 << 50)) / 10));
        for text in ["16384P", "18446744073709551616", "1.0000000000000001P", "99999999999999999999.5K"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_bare_number_takes_the_unit_of_its_flag() {
        assert_eq!(Size::with_unit("256", "MiB"), "256MiB");
        assert_eq!(Size::with_unit("512K", "MiB"), "512K");
        assert_eq!(Size::with_unit("", "MiB"), "");
    }

    proptest! {
        #[test]
        fn printing_and_reading_is_the_identity(value: u64, shift in 0_u32..63) {
            let size = Size::new((value >> shift) << shift);
            prop_assert_eq!(Size::parse(&size.to_string()), Some(size));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,12}|[0-9.]{0,40} ?[kmgtpKMGTPiB]{0,3}") {
            let _ = Size::parse(&text);
        }
    }
}
