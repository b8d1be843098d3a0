//! JSON for people: pretty, one member a line, inner arrays on one line.

use std::fmt::Write;

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Object {
    text: String,
    depth: usize,
}

impl Object {
    /// Nothing in it yet.
    pub(crate) fn new() -> Self {
        Self::at_depth(1)
    }

    fn at_depth(depth: usize) -> Self {
        Self { text: String::new(), depth }
    }

    fn name(&mut self, name: &str) {
        self.text.push_str(if self.text.is_empty() { "{\n" } else { ",\n" });
        self.indent(self.depth);
        push_string(&mut self.text, name);
        self.text.push_str(": ");
    }

    fn indent(&mut self, depth: usize) {
        (0..depth).for_each(|_| self.text.push_str("  "));
    }

    /// Adds a text.
    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        push_string(&mut self.text, value);
        self
    }

    /// Adds a number.
    pub(crate) fn number(mut self, name: &str, value: u64) -> Self {
        self.name(name);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{value}");
        self
    }

    /// Adds yes or no.
    pub(crate) fn boolean(mut self, name: &str, value: bool) -> Self {
        self.name(name);
        self.text.push_str(if value { "true" } else { "false" });
        self
    }

    /// Adds pairs of numbers in an array.
    pub(crate) fn pairs(mut self, name: &str, values: &[(u64, u64)]) -> Self {
        self.name(name);
        self.text.push('[');
        for (number, (first, second)) in values.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            let _ = write!(self.text, "{separator}[{first}, {second}]");
        }
        self.text.push(']');
        self
    }

    /// Adds texts in an array.
    pub(crate) fn texts(mut self, name: &str, values: &[String]) -> Self {
        self.name(name);
        self.text.push('[');
        for (number, value) in values.iter().enumerate() {
            self.text.push_str(if number == 0 { "" } else { ", " });
            push_string(&mut self.text, value);
        }
        self.text.push(']');
        self
    }

    /// Adds an object, which `fill` fills.
    pub(crate) fn object(mut self, name: &str, fill: impl FnOnce(Self) -> Self) -> Self {
        self.name(name);
        let inner = fill(Self::at_depth(self.depth + 1)).close();
        self.text.push_str(&inner);
        self
    }

    fn close(mut self) -> String {
        if self.text.is_empty() {
            return "{}".to_owned();
        }
        self.text.push('\n');
        self.indent(self.depth - 1);
        self.text.push('}');
        self.text
    }

    /// The document, with a line break at its end.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut text = self.close();
        text.push('\n');
        text.into_bytes()
    }
}

fn push_string(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_one_a_line_and_arrays_on_one() {
        let document = Object::new()
            .text("status", "a \"b\"\\\n")
            .texts("reasons", &["x".into(), "y".into()])
            .object("tiers", |tiers| tiers.object("memory", |tier| tier.number("hits", 3)))
            .object("none", |none| none)
            .boolean("complete", false)
            .pairs("missing", &[(0, 5), (9, u64::MAX)])
            .pairs("nothing", &[])
            .finish();
        let expected = "{\n  \"status\": \"a \\\"b\\\"\\\\\\u000a\",\n  \"reasons\": [\"x\", \"y\"],\n  \"tiers\": \
                        {\n    \"memory\": {\n      \"hits\": 3\n    }\n  },\n  \"none\": {},\n  \"complete\": false,\n  \"missing\": \
                        [[0, 5], [9, 18446744073709551615]],\n  \"nothing\": []\n}\n";
        assert_eq!(String::from_utf8(document).unwrap(), expected);
    }
}
