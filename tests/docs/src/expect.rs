//! Shown output against actual output.

/// Any text within a line; alone on a line, any number of lines.
const ANYTHING: &str = "...";

/// Whether the actual lines are what is shown. White space at the end of a line does not count, since documents have
/// none there.
pub fn agrees(shown: &[String], actual: &str) -> bool {
    let actual: Vec<&str> = actual.lines().map(str::trim_end).collect();
    let shown: Vec<&str> = shown.iter().map(|line| line.trim_end()).collect();
    lines_agree(&shown, &actual)
}

fn lines_agree(shown: &[&str], actual: &[&str]) -> bool {
    match shown.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first.trim() == ANYTHING => {
            (0..=actual.len()).any(|skipped| lines_agree(rest, &actual[skipped..]))
        }
        Some((first, rest)) => match actual.split_first() {
            Some((line, others)) => line_agrees(first, line) && lines_agree(rest, others),
            None => false,
        },
    }
}

fn line_agrees(shown: &str, actual: &str) -> bool {
    let Some((before, after)) = shown.split_once(ANYTHING) else { return shown == actual };
    let Some(rest) = actual.strip_prefix(before) else { return false };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().any(|at| line_agrees(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(shown: &str, actual: &str) -> bool {
        agrees(&shown.lines().map(str::to_owned).collect::<Vec<_>>(), actual)
    }

    #[test]
    fn equal_lines_agree_and_others_do_not() {
        assert!(compare("a\nb", "a\r\nb\n"));
        assert!(compare("", ""));
        for (shown, actual) in [("a", "b"), ("a", ""), ("", "a"), ("a\nb", "a"), ("a", "a\nb")] {
            assert!(!compare(shown, actual), "{shown:?} {actual:?}");
        }
    }

    #[test]
    fn dots_stand_for_text_and_alone_for_lines() {
        assert!(compare("Date: ...\nx", "Date: today\nx"));
        assert!(compare("a...c...", "abcd"));
        assert!(compare("...\nb\n...", "a\nb"));
        assert!(compare("...", ""));
        assert!(!compare("...\nb", "a\nb\nc"));
        assert!(!compare("a...c", "abd"));
    }
}
