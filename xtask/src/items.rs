//! Functions, test code and `mod` lines of one file.

use std::ops::Range;

use crate::rust_source::{RustSource, is_word};

/// A function that has a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name, without path.
    pub(crate) name: String,
    /// Line of the word `fn`, counted from 1.
    pub(crate) line: usize,
    /// Lines from the word `fn` to the closing brace, both counted.
    pub(crate) lines: usize,
}

/// A line `mod name;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModLine {
    /// The modules of this file around the line, then the name: `["a", "b"]` for `mod a { mod b; }`.
    pub(crate) path: Vec<String>,
    /// What a `#[path = "..."]` on it says.
    pub(crate) file: Option<String>,
    /// Whether it is compiled for tests only.
    pub(crate) is_test: bool,
}

/// Every function with a body, in the order of the file. One inside another is counted in both.
pub(crate) fn functions(source: &RustSource) -> Vec<Function> {
    source.find("fn").filter_map(|offset| function(source, offset)).collect()
}

fn function(source: &RustSource, offset: usize) -> Option<Function> {
    let name = word_at(&source.code, offset + 2)?;
    let end = item_end(&source.code, offset);
    if source.code.as_bytes().get(end.checked_sub(1)?) != Some(&b'}') {
        return None;
    }
    let line = source.line_of(offset);
    Some(Function { name: name.to_owned(), line, lines: source.line_of(end - 1) - line + 1 })
}

/// The byte ranges that are compiled for tests only.
pub(crate) fn test_code(source: &RustSource) -> Vec<Range<usize>> {
    let code = &source.code;
    if code.match_indices("#![").any(|(offset, _)| is_test_attribute(attribute(code, offset + 2))) {
        return std::iter::once(0..code.len() + 1).collect();
    }
    code.match_indices("#[")
        .filter(|(offset, _)| is_test_attribute(attribute(code, offset + 1)))
        .map(|(offset, _)| offset..item_end(code, offset))
        .collect()
}

/// Every `mod name;`. `text` is the file as it was, since blanking takes the names out of `#[path]`.
pub(crate) fn mod_lines(source: &RustSource, text: &str) -> Vec<ModLine> {
    let test_code = test_code(source);
    let mut around: Vec<(Range<usize>, &str)> = Vec::new();
    let mut found = Vec::new();
    for offset in source.find("mod") {
        let Some(name) = word_at(&source.code, offset + 3) else { continue };
        let end = item_end(&source.code, offset);
        if source.code[..end].ends_with('}') {
            around.push((offset..end, name));
            continue;
        }
        let outer = around.iter().filter(|(range, _)| range.contains(&offset)).map(|(_, name)| *name);
        found.push(ModLine {
            path: outer.chain([name]).map(str::to_owned).collect(),
            file: path_attribute(&source.code, text, offset),
            is_test: test_code.iter().any(|range| range.contains(&offset)),
        });
    }
    found
}

/// The word after the white space at `from`.
fn word_at(code: &str, from: usize) -> Option<&str> {
    let rest = code.get(from..)?.trim_start();
    let length = rest.bytes().take_while(|byte| is_word(*byte)).count();
    rest.get(..length).filter(|word| !word.is_empty())
}

/// What stands between the brackets that open at `from`.
fn attribute(code: &str, from: usize) -> &str {
    code.get(from + 1..closing(code, from).saturating_sub(1)).unwrap_or("")
}

fn is_test_attribute(inside: &str) -> bool {
    let inside: String = inside.split_whitespace().collect();
    let name = inside.split('(').next().unwrap_or("");
    if name == "cfg" {
        return RustSource::new(&inside).find("test").any(|offset| !inside[..offset].ends_with("not("));
    }
    name == "test" || name.ends_with("::test")
}

/// The offset after the bracket that closes the one at `from`.
fn closing(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return offset + 1;
        }
    }
    code.len()
}

/// The offset after the item at `from`, which may begin with attributes: after its block, its semicolon, or, for a
/// field, a variant or an argument, before what ends it.
fn item_end(code: &str, from: usize) -> usize {
    let start = skip_attributes(code, from);
    let is_item = begins_item(&code[start..]);
    let mut at = start;
    while let Some(byte) = code.as_bytes().get(at) {
        match byte {
            b'(' | b'[' => at = closing(code, at),
            b'{' => return closing(code, at),
            b';' => return at + 1,
            b'}' | b')' | b']' => return at,
            b',' if !is_item => return at,
            _ => at += 1,
        }
    }
    code.len()
}

fn skip_attributes(code: &str, from: usize) -> usize {
    let mut at = from;
    loop {
        at = code.len() - code[at..].trim_start().len();
        if !code[at..].starts_with("#[") {
            return at;
        }
        at = closing(code, at + 1);
    }
}

fn begins_item(code: &str) -> bool {
    const ITEMS: [&str; 15] = [
        "async",
        "const",
        "enum",
        "extern",
        "fn",
        "impl",
        "let",
        "macro_rules",
        "mod",
        "static",
        "struct",
        "trait",
        "type",
        "unsafe",
        "use",
    ];
    let mut rest = code;
    if word_at(rest, 0) == Some("pub") {
        rest = rest[3..].trim_start();
        if rest.starts_with('(') {
            rest = &rest[closing(rest, 0)..];
        }
    }
    word_at(rest, 0).is_some_and(|word| ITEMS.contains(&word))
}

/// The string of a `#[path = "..."]` among the attributes before `offset`.
fn path_attribute(code: &str, text: &str, offset: usize) -> Option<String> {
    let start = code[..offset].rfind([';', '{', '}']).map_or(0, |at| at + 1);
    let (_, after) = text[start..offset].split_once("#[path")?;
    after.split('"').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_lines(text: &str) -> Vec<(String, usize)> {
        functions(&RustSource::new(text)).into_iter().map(|found| (found.name, found.lines)).collect()
    }

    fn is_test(text: &str, word: &str) -> bool {
        let offset = text.find(word).unwrap();
        test_code(&RustSource::new(text)).iter().any(|range| range.contains(&offset))
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        assert_eq!(
            names_and_lines("fn a() {}\npub fn b<T>(x: [u8; 4])\nwhere T: X,\n{\n}\n"),
            [("a".into(), 1), ("b".into(), 4)]
        );
    }

    #[test]
    fn declarations_and_pointers_are_no_functions() {
        assert_eq!(names_and_lines("trait T { fn a(&self); }\ntype F = fn(u8) -> u8;\n"), []);
    }

    #[test]
    fn test_modules_and_functions_are_test_code() {
        let text = "fn one() {}\n#[cfg(test)]\nmod tests { fn two() {} }\nfn three() {}\n";
        assert!(!is_test(text, "one") && is_test(text, "two") && !is_test(text, "three"));
        assert!(is_test("#[tokio::test(flavor = \"x\")]\nasync fn a<A, B>() { body }", "body"));
        assert!(is_test("#[cfg(all(test, loom))]\n#[allow(x)]\nimpl<A, B> X { body }", "body"));
        assert!(!is_test("#[cfg(not(test))] fn a() { body }", "body"));
        assert!(!is_test("#[cfg_attr(test, derive(Debug))] struct A { body: u8 }", "body"));
        assert!(is_test("#![cfg(test)]\nfn a() {}", "a()"));
    }

    #[test]
    fn a_field_for_tests_ends_at_its_comma() {
        let text = "struct A { #[cfg(test)] one: u8, two: u8 }\nfn three() {}";
        assert!(is_test(text, "one") && !is_test(text, "two") && !is_test(text, "three"));
    }

    #[test]
    fn mod_lines_know_their_surroundings() {
        let text =
            "mod a;\n#[cfg(test)]\nmod b;\nmod c { mod d; }\n#[path = \"x/y.rs\"]\nmod e;\n// mod f;\n";
        let found = mod_lines(&RustSource::new(text), text);
        let paths: Vec<String> = found.iter().map(|line| line.path.join("::")).collect();
        assert_eq!(paths, ["a", "b", "c::d", "e"]);
        assert_eq!(found.iter().map(|line| line.is_test).collect::<Vec<_>>(), [false, true, false, false]);
        assert_eq!(found[3].file.as_deref(), Some("x/y.rs"));
    }
}
