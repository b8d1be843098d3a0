//! The project's own checks: `cargo run -p xtask -- tidy`.
//!
//! Layout: [`project`] holds everything that a rule may look at, loaded once; [`metadata`] reads what cargo knows;
//! [`rust_source`] blanks comments and literals, so that a search finds code only; [`items`] finds functions, test
//! code and `mod` lines in what is left; [`modules`] follows the `mod` lines; [`rules`] has one module a rule.
//!
//! Rules are plain functions from a project to findings. They read no files and start no programs, which is what
//! lets each rule's tests hand it a bad sample.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

mod finding;
mod items;
mod metadata;
mod modules;
mod project;
mod rules;
mod rust_source;

use std::process::ExitCode;

use project::Project;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        _ => {
            eprintln!("usage: cargo run -p xtask -- tidy");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> ExitCode {
    let project = match Project::load() {
        Ok(project) => project,
        Err(error) => {
            eprintln!("tidy: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = rules::run(&project);
    for finding in &findings {
        println!("{finding}");
    }
    for line in rules::report(&project) {
        println!("tidy: {line}");
    }
    println!("tidy: {} files, {} rules, {} findings", project.files.len(), rules::COUNT, findings.len());
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
