//! The id of an upload by ranges as clients see it: 32 hexadecimal digits, view and sequence of its version.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice)]

use elcache_core::value::Version;

const HALF: usize = 16;

/// Appends it.
pub(crate) fn push(out: &mut Vec<u8>, id: Version) {
    out.extend_from_slice(format!("{:016x}{:016x}", id.view, id.sequence).as_bytes());
}

/// Reads it; `None` when it is none.
pub(crate) fn parse(text: &[u8]) -> Option<Version> {
    let (view, sequence) = text.split_at_checked(HALF)?;
    if sequence.len() != HALF {
        return None;
    }
    Some(Version { view: number(view)?, sequence: number(sequence)? })
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |number: u64, &digit| Some(number << 4 | u64::from(char::from(digit).to_digit(16)?)))
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "nothing here comes from outside")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(view: u64, sequence: u64) -> String {
        let mut out = Vec::new();
        push(&mut out, Version { view, sequence });
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn ids_come_back_in_either_case(view in any::<u64>(), sequence in any::<u64>(), shift in 0_u32..64) {
            let id = Version { view: view >> shift, sequence };
            let text = text(id.view, id.sequence);
            prop_assert_eq!(parse(text.as_bytes()), Some(id));
            prop_assert_eq!(parse(text.to_uppercase().as_bytes()), Some(id));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(parse(&bytes).is_none() || bytes.len() == 32);
        }
    }

    #[test]
    fn an_id_is_32_digits_and_nothing_else() {
        assert_eq!(text(1, 0xab), "000000000000000100000000000000ab");
        let zeros = "0".repeat(32);
        assert_eq!(parse(zeros.as_bytes()), Some(Version::default()));
        for bad in [
            "",
            "0",
            &zeros[1..],
            &format!("{zeros}0"),
            &format!("+{}", &zeros[1..]),
            &format!(" {}", &zeros[1..]),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
