//! What a rule has to say about one line.

use std::fmt;

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path from the root of the repository.
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
    /// What was found.
    pub(crate) what: String,
    /// Why it is not wanted.
    pub(crate) why: &'static str,
    /// What to do about it.
    pub(crate) fix: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}: {}", self.path, self.line, self.what)?;
        writeln!(f, "    why: {}", self.why)?;
        write!(f, "    fix: {}", self.fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_place_reason_and_remedy() {
        let finding = Finding { path: "a.rs".into(), line: 3, what: "x".into(), why: "y", fix: "z" };
        assert_eq!(finding.to_string(), "a.rs:3: x\n    why: y\n    fix: z");
    }
}
