//! The semantics of HTTP know no HTTP library, so that another one can be put under them.

use crate::finding::Finding;
use crate::project::Project;
use crate::rust_source::is_word;

const SEMANTICS: &str = "crates/http/src/";
/// The shells around the semantics: one a protocol.
const SHELLS: [&str; 2] = ["h1", "h2"];
const LIBRARIES: [&str; 6] = ["hyper", "hyper_util", "http", "http_body", "http_body_util", "httparse"];

/// Looks for the libraries' paths in everything but the shells.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in project.rust_files().filter(|(file, _)| is_semantic(&file.path)) {
        for library in LIBRARIES {
            for offset in source.find(library).filter(|offset| is_path(&source.code, *offset, library)) {
                findings.push(file.finding(
                    source.line_of(offset),
                    format!("`{library}` outside {SEMANTICS}h1 and h2"),
                    "semantics that know a library's types keep other protocol lanes out",
                    "take and return the crate's own head and body types; convert them in the shell",
                ));
            }
        }
    }
    findings
}

fn is_semantic(path: &str) -> bool {
    path.strip_prefix(SEMANTICS).is_some_and(|rest| {
        let module = rest.split('/').next().unwrap_or(rest);
        !SHELLS.contains(&module.trim_end_matches(".rs"))
    })
}

/// Whether the word at `offset` begins a path (`http::X`) or is a whole one (`use http;`).
fn is_path(code: &str, offset: usize, library: &str) -> bool {
    let (before, after) = (code[..offset].trim_end(), &code[offset + library.len()..]);
    let is_inner = before
        .strip_suffix("::")
        .is_some_and(|outer| outer.bytes().next_back().is_some_and(|byte| is_word(byte) || byte == b'>'));
    let is_import = before.ends_with("use") || before.ends_with("extern crate");
    !is_inner && (after.trim_start().starts_with("::") || is_import)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&sample(&[(path, text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn library_types_in_the_semantics_are_found() {
        let text = "use hyper::Request;\nfn f(x: http::Method, y: ::http_body::Frame) {}\nuse httparse;\n";
        assert_eq!(lines("crates/http/src/ranges.rs", text), [1, 2, 2, 3]);
    }

    #[test]
    fn the_shells_may_use_them() {
        for path in ["crates/http/src/h2.rs", "crates/http/src/h1/head.rs", "crates/server/src/main.rs"] {
            assert_eq!(lines(path, "use hyper::Request;"), [] as [usize; 0], "{path}");
        }
    }

    #[test]
    fn modules_and_words_of_the_same_name_pass() {
        let text =
            "use elcache_http::App;\nuse crate::http::Head;\n// http::Method\nlet http = 1;\nmod hyper;\n";
        assert_eq!(lines("crates/http/src/lib.rs", text), [] as [usize; 0]);
    }
}
