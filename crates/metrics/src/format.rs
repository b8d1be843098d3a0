//! The two formats of the page, and the choice between them by `Accept` (RFC 9110, 12.5.1).

/// How the page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` of a page in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format that suits an `Accept` header best; several of them are joined with commas. Where both suit alike
    /// it is the one that is named rather than covered by a wildcard, then [`Format::Text`], which is the answer too
    /// when neither is acceptable: a page in the wrong format serves better than none.
    pub fn from_accept(accept: &[u8]) -> Self {
        if preference(accept, Self::OpenMetrics) > preference(accept, Self::Text) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Text => ("text", "plain"),
            Self::OpenMetrics => ("application", "openmetrics-text"),
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Text => "0.0.4",
            Self::OpenMetrics => "1.0.0",
        }
    }
}

/// How precisely a media range says what it means. The most precise that matches a format has the say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Anything,
    Type,
    Subtype,
    Version,
}

/// How much a format is wanted: its weight in thousandths, then whether it was named. Zero is not at all.
type Preference = (u16, bool);

fn preference(accept: &[u8], format: Format) -> Preference {
    let best = split(accept, b',').filter_map(|range| match_range(range, format)).max();
    match best {
        Some((precision, weight)) if weight > 0 => (weight, precision >= Precision::Subtype),
        _ => (0, false),
    }
}

/// How precisely a media range matches a format, and with which weight. None: not at all, or it cannot be read.
fn match_range(range: &[u8], format: Format) -> Option<(Precision, u16)> {
    let mut parts = split(range, b';').map(<[u8]>::trim_ascii);
    let mut precision = match_type(parts.next()?, format)?;
    let mut weight = 1000;
    for part in parts {
        let mut sides = part.splitn(2, |byte| *byte == b'=');
        let (name, value) = (sides.next()?, sides.next().unwrap_or_default());
        if name.eq_ignore_ascii_case(b"q") {
            weight = parse_weight(value)?;
        } else if name.eq_ignore_ascii_case(b"version") && precision >= Precision::Subtype {
            // The other parameters (charset, escaping) ask for nothing that the page does not fulfil anyway.
            if unquoted(value) != format.version().as_bytes() {
                return None;
            }
            precision = Precision::Version;
        }
    }
    Some((precision, weight))
}

fn match_type(range: &[u8], format: Format) -> Option<Precision> {
    let slash = range.iter().position(|byte| *byte == b'/')?;
    let (kind, subtype) = (range.get(..slash)?, range.get(slash + 1..)?);
    let (our_kind, our_subtype) = format.media_type();
    let is = |theirs: &[u8], ours: &str| theirs.eq_ignore_ascii_case(ours.as_bytes());
    match (kind, subtype) {
        (b"*", b"*") => Some(Precision::Anything),
        (kind, b"*") if is(kind, our_kind) => Some(Precision::Type),
        (kind, subtype) if is(kind, our_kind) && is(subtype, our_subtype) => Some(Precision::Subtype),
        _ => None,
    }
}

/// A weight in thousandths: 0 or 1, and up to three digits after the point (RFC 9110, 12.4.2).
fn parse_weight(value: &[u8]) -> Option<u16> {
    let (whole, fraction) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut weight = u16::from(whole - b'0');
    for place in 0..3 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        weight = weight * 10 + u16::from(digit - b'0');
    }
    (weight <= 1000).then_some(weight)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// The parts between separators, those in quoted strings not counted.
fn split(input: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    input.split(move |byte| {
        let literal = std::mem::take(&mut escaped);
        match byte {
            b'\\' if quoted && !literal => escaped = true,
            b'"' if !literal => quoted = !quoted,
            _ => {}
        }
        *byte == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(accept: &str) -> Format {
        Format::from_accept(accept.as_bytes())
    }

    #[test]
    fn text_is_what_those_get_who_do_not_ask() {
        for accept in ["", "*/*", "text/*", "text/html, */*;q=0.8", "text/plain", "TEXT/PLAIN;Version=0.0.4"]
        {
            assert_eq!(chosen(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn prometheus_gets_what_it_prefers() {
        let of_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let of_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                    application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;\
                    q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let text_first = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5";
        assert_eq!(chosen(of_2), Format::OpenMetrics);
        assert_eq!(chosen(of_3), Format::OpenMetrics);
        assert_eq!(chosen(text_first), Format::Text);
    }

    #[test]
    fn the_larger_weight_wins_and_zero_forbids() {
        let open = "application/openmetrics-text";
        assert_eq!(chosen(&format!("text/plain;q=0.9, {open};q=0.901")), Format::OpenMetrics);
        assert_eq!(chosen(&format!("text/plain;q=1.000 , {open} ; Q=0.999")), Format::Text);
        assert_eq!(chosen("application/*, text/*;q=0.5"), Format::OpenMetrics);
        assert_eq!(chosen("text/plain;q=0, */*;q=0.1"), Format::OpenMetrics);
        assert_eq!(chosen(&format!("*/*, {open};q=0")), Format::Text);
        assert_eq!(chosen(&format!("text/plain;q=0, {open};q=0")), Format::Text);
        assert_eq!(chosen("application/json"), Format::Text);
    }

    #[test]
    fn the_more_precise_range_has_the_say_whatever_its_weight() {
        let open = "application/openmetrics-text";
        assert_eq!(chosen(&format!("{open};version=1.0.0;q=0.1, {open}, text/plain;q=0.5")), Format::Text);
        assert_eq!(chosen("*/*;q=0.9, text/plain;q=0.5"), Format::OpenMetrics);
    }

    #[test]
    fn named_beats_covered_and_text_beats_open_metrics_among_equals() {
        let open = "application/openmetrics-text";
        assert_eq!(chosen(&format!("{open}, */*")), Format::OpenMetrics);
        assert_eq!(chosen(&format!("{open};version=1.0.0, text/plain")), Format::Text);
        assert_eq!(chosen(&format!("{open};q=0.5, text/plain;q=0.5")), Format::Text);
    }

    #[test]
    fn another_version_is_another_format() {
        assert_eq!(chosen("application/openmetrics-text;version=0.0.1, text/plain;q=0.1"), Format::Text);
        assert_eq!(
            chosen("text/plain;version=1.0.0, application/openmetrics-text;version=\"1.0.0\";q=0.1"),
            Format::OpenMetrics
        );
    }

    #[test]
    fn what_cannot_be_read_does_not_count() {
        let open = "application/openmetrics-text";
        for q in ["", "2", "1.001", "-1", "0.1234", "0,5", "0.x", ".5", "nan"] {
            assert_eq!(chosen(&format!("{open};q={q}, text/plain;q=0.001")), Format::Text, "{q}");
        }
        assert_eq!(chosen(&format!("{open};note=\"a,b;q=0\\\",\", text/plain;q=0.5")), Format::OpenMetrics);
        assert_eq!(chosen(&format!(",,;;,/,openmetrics-text,{open}")), Format::OpenMetrics);
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_format(accept: Vec<u8>) {
            Format::from_accept(&accept);
        }

        #[test]
        fn weights_decide_between_the_two_whatever_their_order(text in 0u16..=1000, open in 0u16..=1000, flip: bool) {
            let q = |weight: u16| format!("{}.{:03}", weight / 1000, weight % 1000);
            let ranges = [
                format!("text/plain;version=0.0.4;q={}", q(text)),
                format!("application/openmetrics-text;version=1.0.0;q={}", q(open)),
            ];
            let [first, second] = if flip { [&ranges[1], &ranges[0]] } else { [&ranges[0], &ranges[1]] };
            let expected = if open > text { Format::OpenMetrics } else { Format::Text };
            prop_assert_eq!(chosen(&format!("{first}, {second}")), expected);
        }
    }
}
