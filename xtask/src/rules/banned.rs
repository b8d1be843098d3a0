//! Calls that are not made here, with the reason for each.

use crate::finding::Finding;
use crate::project::{File, Project};
use crate::rust_source::RustSource;

struct Ban {
    /// As it stands in code, comments and literals apart.
    pattern: &'static str,
    why: &'static str,
    fix: &'static str,
    /// Folders in which the ban holds; an empty name is everywhere.
    within: &'static [&'static str],
    /// Folders, ending in `/`, and file names in which it does not hold.
    free: &'static [&'static str],
    tests_are_free: bool,
    /// A comment, on the line or above the statement, that lifts it.
    excuse: Option<&'static str>,
}

/// What most bans have in common.
const BAN: Ban = Ban {
    pattern: "",
    why: "",
    fix: "",
    within: &["crates/"],
    free: &[],
    tests_are_free: true,
    excuse: None,
};
const EVERYWHERE: Ban = Ban { within: &[""], tests_are_free: false, ..BAN };
const UNFINISHED: Ban = Ban { why: "what is merged works", fix: "write it, or leave it out", ..EVERYWHERE };
const PANIC: Ban = Ban {
    why: "outside data must not be able to stop the server",
    fix: "return an error, or say in a comment `// INVARIANT: ...` above it why it cannot happen",
    excuse: Some("// INVARIANT:"),
    ..BAN
};
const PRINT: Ban = Ban {
    why: "standard output and error belong to the program, not to its libraries",
    fix: "use tracing, or return what is to be printed",
    free: &["crates/server/"],
    ..BAN
};
const CLOCK: Ban = Ban {
    why: "time comes in as an argument, so that tests and simulations can own it",
    fix: "take a clock or an instant from the caller",
    free: &["clock.rs", "crates/server/", "crates/http/"],
    ..BAN
};

#[rustfmt::skip]
const BANS: [Ban; 13] = [
    Ban { pattern: "todo!", ..UNFINISHED },
    Ban { pattern: "unimplemented!", ..UNFINISHED },
    Ban { pattern: "dbg!", why: "a trace of debugging", fix: "delete it", ..EVERYWHERE },
    Ban { pattern: "#[ignore", why: "a test that nobody runs proves nothing", fix: "name it `soak_*` if it is long, so that `make soak` runs it", ..EVERYWHERE },
    Ban { pattern: ".unwrap()", ..PANIC },
    Ban { pattern: ".expect(", ..PANIC },
    Ban { pattern: "print!", ..PRINT },
    Ban { pattern: "println!", ..PRINT },
    Ban { pattern: "eprint!", ..PRINT },
    Ban { pattern: "eprintln!", ..PRINT },
    Ban { pattern: "SystemTime::now", ..CLOCK },
    Ban { pattern: "Instant::now", ..CLOCK },
    Ban { pattern: "thread::sleep", why: "a sleeping thread serves nobody", fix: "wait for an event with a time-out, or use the runtime's timer", ..BAN },
];

/// Looks for every banned call in every Rust file.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in project.rust_files() {
        for ban in BANS.iter().filter(|ban| ban.holds_in(&file.path)) {
            let calls =
                source.find(ban.pattern).filter(|offset| !is_allowed(project, file, source, ban, *offset));
            findings.extend(calls.map(|offset| {
                file.finding(source.line_of(offset), format!("`{}`", ban.pattern), ban.why, ban.fix)
            }));
        }
    }
    findings
}

impl Ban {
    fn holds_in(&self, path: &str) -> bool {
        let is_free = |place: &&str| {
            if place.ends_with('/') {
                path.starts_with(*place)
            } else {
                path.rsplit('/').next() == Some(*place)
            }
        };
        self.within.iter().any(|folder| path.starts_with(folder)) && !self.free.iter().any(is_free)
    }
}

fn is_allowed(project: &Project, file: &File, source: &RustSource, ban: &Ban, offset: usize) -> bool {
    let is_excused = ban.excuse.is_some_and(|excuse| has_comment(file, source.line_of(offset), excuse));
    is_excused || (ban.tests_are_free && project.is_test(file, source, offset))
}

/// Whether a comment stands on a line, or in the lines of comment above the statement that the line continues.
fn has_comment(file: &File, line: usize, comment: &str) -> bool {
    let lines: Vec<&str> = file.lines().take(line).map(|(_, text)| text.trim()).collect();
    if lines.last().is_some_and(|text| text.contains(comment)) {
        return true;
    }
    let start = lines.iter().rposition(|text| !text.starts_with('.') && !text.starts_with("//")).unwrap_or(0);
    let inside = &lines[start..];
    let above = lines[..start].iter().rev().take_while(|text| text.starts_with("//"));
    inside.iter().chain(above).any(|text| text.starts_with(comment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&sample(&[(path, text)])).into_iter().map(|finding| finding.line).collect()
    }

    const NONE: [usize; 0] = [];

    #[test]
    fn every_ban_is_found_in_a_library() {
        for ban in &BANS {
            let text = format!("\nfn f() {{ x{}; }}\n", ban.pattern);
            let text = if ban.pattern.starts_with(['.', '#']) { text } else { text.replace(" x", " ") };
            assert!(lines("crates/core/src/lib.rs", &text).contains(&2), "{}", ban.pattern);
        }
    }

    #[test]
    fn every_ban_says_why_and_what_instead() {
        assert!(BANS.iter().all(|ban| !ban.why.is_empty() && !ban.fix.is_empty()));
    }

    #[test]
    fn tests_may_panic_sleep_and_print_but_not_be_ignored() {
        let body = "x.unwrap(); thread::sleep(d); println!(); Instant::now();";
        let text = format!("#[cfg(test)]\nmod tests {{ #[test] fn a() {{ {body} }} }}\n");
        assert_eq!(lines("crates/core/src/lib.rs", &text), NONE);
        assert_eq!(lines("crates/core/tests/a.rs", body), NONE);
        assert_eq!(lines("crates/core/tests/a.rs", "#[ignore = \"slow\"] fn a() {}"), [1]);
    }

    #[test]
    fn an_invariant_lifts_the_ban_on_panics() {
        for text in [
            "x.unwrap(); // INVARIANT: set above",
            "// INVARIANT: set above,\n// always\nlet y = x.unwrap();",
            "// INVARIANT: set above\nlet y = x\n    .lock()\n    .unwrap();",
            "let y = x\n    // INVARIANT: set above\n    .unwrap();",
        ] {
            assert_eq!(lines("crates/core/src/lib.rs", text), NONE, "{text}");
        }
        assert_eq!(lines("crates/core/src/lib.rs", "// INVARIANT: of another\nlet y = 1;\nx.unwrap();"), [3]);
    }

    #[test]
    fn clocks_are_read_where_they_may_be() {
        for path in ["crates/core/src/clock.rs", "crates/server/src/main.rs", "bench/src/main.rs"] {
            assert_eq!(lines(path, "Instant::now()"), NONE, "{path}");
        }
        assert_eq!(lines("crates/core/src/lib.rs", "mod clock; fn f() { std::time::Instant::now(); }"), [1]);
    }

    #[test]
    fn comments_strings_and_longer_names_pass() {
        let text = "// todo!\nlet s = \"dbg!\"; my_todo!(); x.unwrap_or(1); x.expect_err(2);";
        assert_eq!(lines("crates/core/src/lib.rs", text), NONE);
    }
}
