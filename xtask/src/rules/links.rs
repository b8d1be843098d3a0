//! Relative links in Markdown lead somewhere: to a file or folder, and to a heading where they name one.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::project::{File, Project};

/// Looks at every link that is not a URL.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in project.markdown_files() {
        for link in links(text) {
            if let Some(what) = broken(project, file, &link.target) {
                let why = "a reader who follows it ends nowhere";
                findings.push(file.finding(
                    link.line,
                    what,
                    why,
                    "correct the link, or what it should lead to",
                ));
            }
        }
    }
    findings
}

/// The files that the links of `file` lead to, whether they exist or not.
pub(crate) fn targets(file: &File, text: &str) -> impl Iterator<Item = String> {
    links(text).into_iter().filter_map(|link| {
        let path = link.target.split('#').next().unwrap_or("");
        if path.is_empty() { None } else { resolve(&file.path, path) }
    })
}

struct Link {
    line: usize,
    target: String,
}

fn broken(project: &Project, file: &File, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let path = if path.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, path) };
    let Some(path) = path else {
        return Some(format!("the link `{target}` leads out of the repository"));
    };
    if !exists(project, &path) {
        return Some(format!("the link `{target}` leads to `{path}`, which does not exist"));
    }
    let text = project.file(&path).filter(|_| path.ends_with(".md"))?.text.as_deref()?;
    let anchor = anchor.filter(|anchor| !anchor.is_empty())?;
    (!anchors(text).contains(anchor)).then(|| format!("`{path}` has no heading for the link `{target}`"))
}

fn exists(project: &Project, path: &str) -> bool {
    path.is_empty() || project.files.iter().any(|file| file.path.strip_prefix(path).is_some_and(is_end))
}

fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// The path of a link as seen from the root; `None` if it leads out.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if link.starts_with('/') {
        parts.clear();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The links of a text that are not URLs. Code is left out.
fn links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    for (line, prose) in prose(text) {
        let inline = prose.match_indices("](").map(|(at, _)| &prose[at + 2..]);
        let reference = prose
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
            .map(|(_, rest)| rest);
        let targets = inline.filter_map(destination).chain(reference.and_then(destination));
        links.extend(targets.filter(|target| !is_url(target)).map(|target| Link { line, target }));
    }
    links
}

/// What stands before the title and the closing bracket.
fn destination(rest: &str) -> Option<String> {
    let rest = rest.trim_start();
    let end = match rest.strip_prefix('<') {
        Some(inside) => return inside.split_once('>').map(|(target, _)| target.to_owned()),
        None => rest.find([')', ' ']).unwrap_or(rest.len()),
    };
    Some(rest[..end].to_owned()).filter(|target| !target.is_empty())
}

fn is_url(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// The lines outside code blocks with their numbers, code spans blanked.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(_)) => fence = mark,
            (Some(open), Some(close)) if open == close => fence = None,
            (None, None) => return Some((index + 1, without_code(line))),
            _ => {}
        }
        None
    })
}

fn without_code(line: &str) -> String {
    let mut parts = line.split('`');
    let mut result = parts.next().unwrap_or("").to_owned();
    for (index, part) in parts.enumerate() {
        result.push_str(if index % 2 == 0 { " " } else { part });
    }
    result
}

/// The anchors that a renderer gives to the headings of a text, and those that it sets itself.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let numbers: BTreeSet<usize> = prose(text).map(|(number, _)| number).collect();
    for (_, line) in text.lines().enumerate().filter(|(index, _)| numbers.contains(&(index + 1))) {
        if let Some(title) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) {
            insert_numbered(&mut anchors, slug(title));
        }
        for attribute in ["id=\"", "name=\""] {
            let named = line
                .match_indices(attribute)
                .filter_map(|(at, _)| line[at + attribute.len()..].split('"').next());
            anchors.extend(named.map(str::to_owned));
        }
    }
    anchors
}

fn insert_numbered(anchors: &mut BTreeSet<String>, slug: String) {
    let mut name = slug.clone();
    let mut number = 0;
    while !anchors.insert(name) {
        number += 1;
        name = format!("{slug}-{number}");
    }
}

/// Lower case, without punctuation, spaces as hyphens.
fn slug(title: &str) -> String {
    let title = title.trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    fn found(files: &[(&str, &str)]) -> Vec<(String, usize)> {
        check(&sample(files)).into_iter().map(|finding| (finding.path, finding.line)).collect()
    }

    #[test]
    fn links_to_files_folders_headings_and_urls_pass() {
        let text = "# Top\n[a](docs/b.md) ![c](docs) [d](#top) [e](docs/b.md#what-it-is-2024 \"title\")\n\
                    [f]: <docs/b.md>\n[g](https://example.org/x) `[h](nowhere.md)`\n```\n[i](nowhere.md)\n```\n";
        let other = "## What it is: 2024\n[back](../README.md#top) [root](/README.md)\n";
        assert_eq!(found(&[("README.md", text), ("docs/b.md", other)]), []);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let text = "\n[a](docs/none.md)\n[b]: none.md\n[c](#none)\n[d](docs/b.md#none)\n[e](../out.md)\n";
        let found = found(&[("README.md", text), ("docs/b.md", "# Other")]);
        assert_eq!(found.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_name_that_only_begins_alike_is_no_file() {
        assert_eq!(found(&[("a.md", "[x](do)"), ("docs/b.md", "")]).len(), 1);
    }

    #[test]
    fn repeated_headings_are_numbered() {
        let anchors = anchors("# A b\n## A b\n```\n# no\n```\n<a id=\"own\"></a>\n## `Code` and *more*\n");
        assert_eq!(anchors.into_iter().collect::<Vec<_>>(), ["a-b", "a-b-1", "code-and-more", "own"]);
    }
}
