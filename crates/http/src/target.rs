//! The request target (RFC 9112 section 3.2): its form, its path, its query; and percent-decoding.

use std::borrow::Cow;
use std::fmt::Write;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// The server as a whole: `*`.
    Server,
    /// A path with its leading slash, as sent, and the query behind the first `?`.
    Path { path: &'a [u8], query: &'a [u8] },
}

impl<'a> Target<'a> {
    /// Reads origin-form, absolute-form and `*`. `None` for anything else: a target has no fragment, and
    /// authority-form belongs to CONNECT.
    pub(crate) fn parse(target: &'a [u8]) -> Option<Self> {
        if target == b"*" {
            return Some(Self::Server);
        }
        let target = if target.first() == Some(&b'/') { target } else { strip_authority(target)? };
        if memchr::memchr(b'#', target).is_some() {
            return None;
        }
        let (path, query) = match memchr::memchr(b'?', target) {
            Some(at) => (target.get(..at)?, target.get(at + 1..)?),
            None => (target, &b""[..]),
        };
        // An absolute-form target may have no path, which means the root.
        Some(Self::Path { path: if path.is_empty() { b"/" } else { path }, query })
    }
}

/// What stands behind `http://host:port` or `https://host:port`.
fn strip_authority(target: &[u8]) -> Option<&[u8]> {
    let strip = |scheme: &[u8]| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = strip(b"http://").or_else(|| strip(b"https://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    (!authority.is_empty() && host_is_valid(authority)).then_some(rest.get(end..)?)
}

/// Whether this is a host with an optional port (RFC 3986 section 3.2.2), or nothing at all. User information and
/// lists of hosts are what request smuggling is made of, so they are not.
pub(crate) fn host_is_valid(host: &[u8]) -> bool {
    let (name, rest) = match host.first() {
        Some(b'[') => match memchr::memchr(b']', host) {
            Some(end) => host.split_at(end + 1),
            None => return false,
        },
        _ => host.split_at(memchr::memchr(b':', host).unwrap_or(host.len())),
    };
    let port_is_valid = match rest.split_first() {
        None => true,
        Some((colon, port)) => *colon == b':' && port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
    };
    port_is_valid && if name.first() == Some(&b'[') { literal_is_valid(name) } else { name_is_valid(name) }
}

fn literal_is_valid(name: &[u8]) -> bool {
    let inner = name.get(1..name.len() - 1).unwrap_or_default();
    !inner.is_empty()
        && inner.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'%'))
}

fn name_is_valid(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    name.iter().all(allowed)
}

/// Decodes `%XX`, any byte. `None` when a `%` is not followed by two hexadecimal digits.
pub(crate) fn percent_decode(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    if memchr::memchr(b'%', bytes).is_none() {
        return Some(Cow::Borrowed(bytes));
    }
    let mut parts = bytes.split(|&byte| byte == b'%');
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(parts.next()?);
    for part in parts {
        let (&[high, low], plain) = part.split_first_chunk()?;
        decoded.push(hex(high)? << 4 | hex(low)?);
        decoded.extend_from_slice(plain);
    }
    Some(Cow::Owned(decoded))
}

/// Encodes all but what never means anything in a path, and slashes (RFC 3986 section 2.3).
pub(crate) fn percent_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The decoded values of a query's members of this name.
pub(crate) fn query_values<'a>(
    query: &'a [u8],
    name: &'a [u8],
) -> impl Iterator<Item = Option<Cow<'a, [u8]>>> {
    query.split(|&byte| byte == b'&').filter_map(move |member| {
        let rest = member.strip_prefix(name)?;
        match rest.split_first() {
            None => Some(Some(Cow::Borrowed(rest))),
            Some((b'=', value)) => Some(percent_decode(value)),
            Some(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path<'a>(path: &'a str, query: &'a str) -> Option<Target<'a>> {
        Some(Target::Path { path: path.as_bytes(), query: query.as_bytes() })
    }

    #[test]
    fn the_forms_of_a_target() {
        assert_eq!(Target::parse(b"*"), Some(Target::Server));
        assert_eq!(Target::parse(b"/a/../b?c?d"), path("/a/../b", "c?d"));
        assert_eq!(Target::parse(b"//cache//x"), path("//cache//x", ""));
        assert_eq!(Target::parse(b"HTTP://h:80/a?b"), path("/a", "b"));
        assert_eq!(Target::parse(b"https://[::1]:8443/cache/http://x"), path("/cache/http://x", ""));
        assert_eq!(Target::parse(b"http://h"), path("/", ""));
        assert_eq!(Target::parse(b"http://h?q"), path("/", "q"));
        for bad in ["", "a", "h:80", "ftp://h/", "http:///a", "http://u@h/", "/a#b", "**"] {
            assert_eq!(Target::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn hosts() {
        for good in ["", "h", "h:80", "h:", "127.0.0.1:8080", "[::1]", "[fe80::1%25eth0]:1", "a_b-c.d", "%41"]
        {
            assert!(host_is_valid(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "a b", "a,b", "u@h", "h/", "h:x", "h:123456", "h:1:2", "[::1", "[]", "[::1]x", "a\0", "h?",
            "a\"b",
        ] {
            assert!(!host_is_valid(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn every_byte_can_be_escaped_in_either_case() {
        let all: Vec<u8> = (0..=255).collect();
        let upper: String = all.iter().map(|byte| format!("%{byte:02X}")).collect();
        let lower: String = all.iter().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(percent_decode(upper.as_bytes()).unwrap(), all);
        assert_eq!(percent_decode(lower.as_bytes()).unwrap(), all);
    }

    #[test]
    fn a_broken_escape_is_refused_wherever_it_stands() {
        for bad in ["%", "%4", "a%", "a%4", "%zz", "%4g", "%%41", "%41%", "%-1", "% 1", "a%41b%4"] {
            assert_eq!(percent_decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn query_members() {
        let values = |query: &'static str| query_values(query.as_bytes(), b"range").collect::<Vec<_>>();
        assert_eq!(values("a=1&range=2%2D3&ranged=4"), [Some(Cow::Borrowed(&b"2-3"[..]))]);
        assert_eq!(values("range&range=%"), [Some(Cow::Borrowed(&b""[..])), None]);
        assert!(values("").is_empty());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let encoded = percent_encode(&bytes);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)));
            prop_assert_eq!(&percent_decode(encoded.as_bytes()).unwrap()[..], &bytes[..]);
        }

        #[test]
        fn decoding_reverses_encoding_of_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), plain in any::<u64>()) {
            let mut text = Vec::new();
            for (at, &byte) in bytes.iter().enumerate() {
                if byte != b'%' && plain >> (at % 64) & 1 == 1 {
                    text.push(byte);
                } else {
                    text.extend_from_slice(format!("%{byte:02x}").as_bytes());
                }
            }
            prop_assert_eq!(&percent_decode(&text).unwrap()[..], &bytes[..]);
        }

        #[test]
        fn any_target_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(Target::Path { path, query }) = Target::parse(&bytes) {
                let _ = percent_decode(path);
                query_values(query, b"range").count();
            }
            host_is_valid(&bytes);
        }
    }
}
