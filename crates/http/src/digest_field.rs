//! `Content-Digest` and `Repr-Digest` (RFC 9530): the sha-256 of the body, when a client sends one.

/// A digest header of which the sha-256 cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadDigest;

/// The sha-256 in a dictionary such as `sha-256=:<base64>:, sha-512=:<base64>:`. Other algorithms are ignored. As
/// in every dictionary (RFC 8941 section 3.2), the last of several counts.
pub(crate) fn parse(value: &[u8]) -> Result<Option<[u8; 32]>, BadDigest> {
    let mut found = None;
    for member in crate::text::list(value) {
        let Some(rest) = strip_name(member) else { continue };
        let encoded = rest.strip_prefix(b"=:").ok_or(BadDigest)?;
        let end = memchr::memchr(b':', encoded).ok_or(BadDigest)?;
        let (encoded, parameters) = encoded.split_at_checked(end).ok_or(BadDigest)?;
        if !matches!(parameters, [b':'] | [b':', b';', ..]) {
            return Err(BadDigest);
        }
        found = Some(decode(encoded).ok_or(BadDigest)?);
    }
    Ok(found)
}

fn strip_name(member: &[u8]) -> Option<&[u8]> {
    let (name, rest) = member.split_at_checked(7)?;
    let ends = !rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(byte));
    (name.eq_ignore_ascii_case(b"sha-256") && ends).then_some(rest)
}

/// 32 bytes of base64, with or without the padding.
fn decode(encoded: &[u8]) -> Option<[u8; 32]> {
    let digits = encoded.strip_suffix(b"=").unwrap_or(encoded);
    if digits.len() != 43 {
        return None;
    }
    let mut bytes = [0; 32];
    let mut out = bytes.iter_mut();
    for group in digits.chunks(4) {
        let bits = group.iter().try_fold(0_u32, |bits, &digit| Some(bits << 6 | sextet(digit)?))?;
        let bits = if group.len() == 3 { bits << 6 } else { bits };
        let [_, group_bytes @ ..] = bits.to_be_bytes();
        out.by_ref().zip(group_bytes).for_each(|(to, byte)| *to = byte);
    }
    Some(bytes)
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
        let digit = |at: usize| DIGITS[(0..6).fold(0, |value, n| value << 1 | usize::from(bit(at + n)))];
        let mut text: String = (0..bytes.len() * 8).step_by(6).map(|at| char::from(digit(at))).collect();
        text.push('=');
        text
    }

    proptest! {
        #[test]
        fn digests_come_back(bytes in any::<[u8; 32]>()) {
            let header = format!("sha-512=:AAAA:, sha-256=:{}:", encode(&bytes));
            prop_assert_eq!(parse(header.as_bytes()), Ok(Some(bytes)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"sha-256=:", &bytes[..], b":"].concat());
        }
    }

    #[test]
    fn a_known_digest() {
        let header = b"SHA-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:;x=1";
        let digest = parse(header).unwrap().unwrap();
        assert_eq!(digest[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }

    #[test]
    fn other_algorithms_are_ignored_and_a_broken_sha_256_is_not() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"sha-512=:xx:, md5=:yy:, sha-256x=:zz:"), Ok(None));
        for bad in [
            "sha-256",
            "sha-256=47DE",
            "sha-256=:47DE:",
            "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(BadDigest), "{bad}");
        }
    }
}
