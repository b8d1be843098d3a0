//! Functions fit a screen, files fit a head.

use crate::finding::Finding;
use crate::items::{self, Function};
use crate::project::{File, Project};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
const LONGEST: usize = 5;

/// Looks for what is longer than it may be. Test modules count as part of their file.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let long_functions = functions(project).into_iter().filter(|(_, found)| found.lines > FUNCTION_LINES_MAX);
    let long_files = project.rust_files().filter(|(file, _)| file_lines(file) > FILE_LINES_MAX);
    long_functions
        .map(|(file, found)| {
            file.finding(
                found.line,
                format!("`{}` is {} lines long, {FUNCTION_LINES_MAX} are allowed", found.name, found.lines),
                "what does not fit a screen is not read in one piece",
                "give its steps names and functions of their own",
            )
        })
        .chain(long_files.map(|(file, _)| {
            file.finding(
                FILE_LINES_MAX + 1,
                format!("the file is {} lines long, {FILE_LINES_MAX} are allowed", file_lines(file)),
                "a file is about one noun",
                "split it by what it is about",
            )
        }))
        .collect()
}

/// The distribution, and the longest functions.
pub(crate) fn report(project: &Project) -> Vec<String> {
    let mut found = functions(project);
    found.sort_by_key(|(_, function)| std::cmp::Reverse(function.lines));
    let lengths: Vec<usize> = found.iter().rev().map(|(_, function)| function.lines).collect();
    let mut files: Vec<usize> = project.rust_files().map(|(file, _)| file_lines(file)).collect();
    files.sort_unstable();
    let longest = found.iter().take(LONGEST).map(|(file, function)| {
        format!("  {:>3} lines: {} ({}:{})", function.lines, function.name, file.path, function.line)
    });
    [spread("functions", &lengths), spread("files", &files)].into_iter().chain(longest).collect()
}

fn functions(project: &Project) -> Vec<(&File, Function)> {
    let of_file = |(file, source)| items::functions(source).into_iter().map(move |found| (file, found));
    project.rust_files().flat_map(of_file).collect()
}

fn file_lines(file: &File) -> usize {
    file.text.as_deref().map_or(0, |text| text.lines().count())
}

fn spread(name: &str, sorted: &[usize]) -> String {
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
    let [median, p90, max] = [50, 90, 100].map(|percent| at(percent).copied().unwrap_or(0));
    format!("{} {name}: median {median} lines, 90th percentile {p90}, longest {max}", sorted.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_may_fill_a_screen_and_no_more() {
        assert_eq!(check(&sample(&[("crates/core/src/lib.rs", &function(70))])), []);
        let found = check(&sample(&[("crates/core/src/lib.rs", &function(71))]));
        assert_eq!((found.len(), found[0].line), (1, 1));
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(check(&sample(&[("crates/core/src/lib.rs", &"\n".repeat(800))])), []);
        assert_eq!(check(&sample(&[("crates/core/src/lib.rs", &"\n".repeat(801))])).len(), 1);
    }

    #[test]
    fn the_report_orders_by_length() {
        let text = [function(3), function(9), function(5)].concat();
        let lines = report(&sample(&[("crates/core/src/lib.rs", &text)]));
        assert_eq!(lines[0], "3 functions: median 5 lines, 90th percentile 9, longest 9");
        assert_eq!(lines[2], "    9 lines: f (crates/core/src/lib.rs:4)");
    }

    #[test]
    fn nothing_has_a_report_too() {
        assert_eq!(report(&sample(&[]))[0], "0 functions: median 0 lines, 90th percentile 0, longest 0");
    }
}
