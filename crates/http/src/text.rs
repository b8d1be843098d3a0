//! Numbers and names as bytes, without the formatting machinery: these run on every request.

/// Room for every `u64` in decimal.
const MAX_DIGITS: usize = 20;

/// Appends a number in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; MAX_DIGITS];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[MAX_DIGITS - used..]);
}

/// Reads one or more decimal digits and nothing else.
pub(crate) fn parse_decimal(digits: &[u8]) -> Result<u64, NumberError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NumberError::Malformed);
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let shifted = number.checked_mul(10).ok_or(NumberError::TooLarge)?;
        shifted.checked_add(u64::from(digit - b'0')).ok_or(NumberError::TooLarge)
    })
}

/// Why some bytes are no `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    /// There is something else than digits in it, or nothing.
    Malformed,
    /// All digits, and more than a `u64` holds.
    TooLarge,
}

/// Without the spaces and tabs around it.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or_default()
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), trimmed, empty ones left out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_as_they_are_written(number in any::<u64>(), shift in 0_u32..64) {
            let number = number >> shift;
            let mut text = b"x".to_vec();
            push_decimal(&mut text, number);
            let expected = number.to_string();
            prop_assert_eq!(&text[1..], expected.as_bytes());
            prop_assert_eq!(parse_decimal(&text[1..]), Ok(number));
        }
    }

    #[test]
    fn only_digits_are_numbers() {
        for bad in ["", "-1", "+1", " 1", "1 ", "0x1", "1.0", "1_0"] {
            assert_eq!(parse_decimal(bad.as_bytes()), Err(NumberError::Malformed), "{bad:?}");
        }
        assert_eq!(parse_decimal(b"18446744073709551616"), Err(NumberError::TooLarge));
        assert_eq!(parse_decimal(b"00018446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn lists_leave_out_what_is_empty() {
        assert_eq!(list(b" a ,, b\t,").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(trim(b" \t "), b"");
    }
}
