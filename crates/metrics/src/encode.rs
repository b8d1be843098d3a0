//! The table of families as a page, in either format.
//!
//! They differ in little: OpenMetrics names a family without `_total` or `_info`, tells its unit, knows the type
//! `info`, and ends in `# EOF`.

use std::fmt::{self, Display, Write};

use crate::families::{FAMILIES, Family, Kind, Source};
use crate::format::Format;
use crate::histogram::{BOUNDS_LE, Totals};

/// The whole page. Families without a sample are left out.
pub(crate) fn page(format: Format, source: &Source<'_>) -> String {
    let mut text = String::with_capacity(16 << 10);
    for family in FAMILIES {
        let mut samples = Samples { format, family, begun: false, text: &mut text };
        (family.collect)(source, &mut samples);
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(value) if *value == f64::INFINITY => f.write_str("+Inf"),
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// Takes the samples of one family.
pub(crate) struct Samples<'a> {
    format: Format,
    family: &'static Family,
    begun: bool,
    text: &'a mut String,
}

impl Samples<'_> {
    /// One sample, with the values of the family's labels in their order.
    pub(crate) fn put(&mut self, labels: &[&str], value: impl Into<Value>) {
        self.line("", labels, None, value.into());
    }

    /// All samples of a histogram.
    pub(crate) fn histogram(&mut self, labels: &[&str], totals: &Totals) {
        for (le, at_most) in BOUNDS_LE.iter().chain(&["+Inf"]).zip(totals.at_most) {
            self.line("_bucket", labels, Some(le), at_most.into());
        }
        self.line("_sum", labels, None, (totals.sum_nanos as f64 / 1e9).into());
        let [.., count] = totals.at_most;
        self.line("_count", labels, None, count.into());
    }

    fn line(&mut self, suffix: &str, values: &[&str], le: Option<&str>, value: Value) {
        debug_assert_eq!(values.len(), self.family.labels.len(), "{}", self.family.name);
        if !self.begun {
            self.begun = true;
            self.header();
        }
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let labels = self.family.labels.iter().copied().zip(values.iter().copied());
        let mut separator = '{';
        for (name, value) in labels.chain(le.map(|le| ("le", le))) {
            self.write(format_args!("{separator}{name}=\""));
            self.escaped(value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    /// A label's value, as both formats escape it.
    fn escaped(&mut self, value: &str) {
        for letter in value.chars() {
            match letter {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                letter => self.text.push(letter),
            }
        }
    }

    fn header(&mut self) {
        let Family { name, kind, help, .. } = self.family;
        match self.format {
            Format::Text => {
                self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.in_text()));
            }
            Format::OpenMetrics => {
                let name = self.family.base_name();
                self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str()));
                if let Some(unit) = self.family.unit_in_name() {
                    self.write(format_args!("# UNIT {name} {unit}\n"));
                }
            }
        }
    }

    fn write(&mut self, what: fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.text.write_fmt(what);
    }
}

impl Kind {
    /// The type's name in OpenMetrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// The type's name in the classic format, which has no type for facts.
    fn in_text(self) -> &'static str {
        match self {
            Self::Info => Self::Gauge.as_str(),
            other => other.as_str(),
        }
    }
}
