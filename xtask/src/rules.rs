//! The rules, one module each.

mod arrows;
mod banned;
mod dead_files;
mod http_types;
mod hygiene;
mod length;
mod licences;
mod links;
mod unsafe_code;

use crate::finding::Finding;
use crate::project::Project;

type Rule = fn(&Project) -> Vec<Finding>;

const RULES: [Rule; COUNT] = [
    arrows::check,
    http_types::check,
    unsafe_code::check,
    length::check,
    dead_files::check,
    links::check,
    banned::check,
    licences::check,
    hygiene::check,
];

/// How many rules there are.
pub(crate) const COUNT: usize = 9;

/// What all rules find, in the order of the files.
pub(crate) fn run(project: &Project) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(project)).collect();
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

/// What is worth knowing without being wrong.
pub(crate) fn report(project: &Project) -> Vec<String> {
    [length::report(project), licences::report(project)].concat()
}
