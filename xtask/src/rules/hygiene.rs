//! Files are UTF-8, without stray white space, and know nothing of the machine that they were written on.

use crate::finding::Finding;
use crate::project::{File, Project};

/// Kinds of files that are not text.
const BINARY: [&str; 7] = [".bin", ".gz", ".ico", ".png", ".wasm", ".woff2", ".zst"];
/// Folders of inputs that have to stay as they are.
const VERBATIM: [&str; 1] = ["fuzz/corpus/"];
/// Folders of one machine. Put together here, so that this file does not contain them.
const MACHINE_PATHS: [&str; 3] = [concat!("/wor", "k/"), concat!("/tmp/", "h-"), concat!("/roo", "t/")];

/// Looks at every line of every file that is text.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    project.files.iter().filter(|file| is_text(&file.path)).flat_map(check_file).collect()
}

fn is_text(path: &str) -> bool {
    !BINARY.iter().any(|ending| path.ends_with(ending))
        && !VERBATIM.iter().any(|folder| path.starts_with(folder))
}

fn check_file(file: &File) -> Vec<Finding> {
    if file.text.is_none() {
        let why = "editors and tools read all sources as UTF-8";
        let fix = "convert it, or add its kind in xtask/src/rules/hygiene.rs";
        return vec![file.finding(1, "the file is not UTF-8".to_owned(), why, fix)];
    }
    file.lines().flat_map(|(number, line)| check_line(file, number, line)).collect()
}

fn check_line(file: &File, number: usize, line: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |what: &str, why, fix| findings.push(file.finding(number, what.to_owned(), why, fix));
    if line.ends_with([' ', '\t', '\r']) {
        add("white space at the end of the line", "it hides in reviews", "delete it");
    }
    if file.path.ends_with(".rs") && line.contains('\t') {
        add("a tab", "its width differs from reader to reader", "use spaces, or write \\t in a literal");
    }
    if let Some(path) = MACHINE_PATHS.iter().find(|path| names_path(line, path)) {
        let what = format!("a path of one machine: `{path}`");
        add(&what, "nobody else has it", "use a path from the root of the repository, or a setting");
    }
    findings
}

/// Whether an absolute path begins with `path`: it is not the tail of a longer one or of a URL.
fn names_path(line: &str, path: &str) -> bool {
    let is_absolute = |at: usize| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(|before| !(before.is_alphanumeric() || "._-}*".contains(before)))
    };
    line.match_indices(path).any(|(at, _)| is_absolute(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&sample(&[(path, text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn stray_white_space_is_found() {
        assert_eq!(lines("a.md", "one \ntwo\nthree\t\nfour\r\n"), [1, 3, 4]);
        assert_eq!(lines("a.rs", "fn a() {\n\tb();\n}"), [2]);
        assert_eq!(lines("Makefile", "a:\n\tb\n"), [] as [usize; 0]);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        for path in MACHINE_PATHS {
            assert_eq!(lines("a.md", &format!("\nsee `{path}x`")), [2], "{path}");
            assert_eq!(
                lines("a.md", &format!("see target{path}x and http://host{path}x")),
                [] as [usize; 0],
                "{path}"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_utf8_is_found_unless_it_is_binary() {
        let project = |path| Project::new(vec![File::new(path, vec![0xff])], Vec::new(), Vec::new());
        assert_eq!(check(&project("a.txt")).len(), 1);
        assert_eq!(check(&project("a.png")), []);
    }
}
