//! Rust text with comments and literals blanked.
//!
//! The blanked text has the same length and the same lines as the original, so an offset found in one is good in the
//! other. Quotes stay, what is between them becomes spaces.

/// A Rust file, prepared for searching.
#[derive(Debug, Clone)]
pub(crate) struct RustSource {
    /// The text with comments and the insides of literals replaced by spaces.
    pub(crate) code: String,
    line_starts: Vec<usize>,
}

impl RustSource {
    /// Blanks `text`.
    pub(crate) fn new(text: &str) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        Self { code: Blanker::new(text).run(), line_starts }
    }

    /// The line of a byte offset, counted from 1.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The offsets at which `pattern` stands; where it begins or ends like a word, only as a whole word.
    pub(crate) fn find<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code
            .match_indices(pattern)
            .map(|(offset, _)| offset)
            .filter(move |offset| is_whole(&self.code, *offset, pattern))
    }
}

/// Whether a byte can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_whole(code: &str, offset: usize, pattern: &str) -> bool {
    let code = code.as_bytes();
    let before = offset.checked_sub(1).and_then(|at| code.get(at));
    let after = code.get(offset + pattern.len());
    let joined = |edge: Option<&u8>, neighbour: Option<&u8>| {
        edge.is_some_and(|byte| is_word(*byte)) && neighbour.is_some_and(|byte| is_word(*byte))
    };
    !joined(pattern.as_bytes().first(), before) && !joined(pattern.as_bytes().last(), after)
}

struct Blanker<'a> {
    input: &'a [u8],
    at: usize,
    output: Vec<u8>,
}

impl<'a> Blanker<'a> {
    fn new(text: &'a str) -> Self {
        Self { input: text.as_bytes(), at: 0, output: Vec::with_capacity(text.len()) }
    }

    fn run(mut self) -> String {
        while self.at < self.input.len() {
            self.step();
        }
        String::from_utf8_lossy(&self.output).into_owned()
    }

    fn step(&mut self) {
        let rest = &self.input[self.at..];
        if rest.starts_with(b"//") {
            self.blank(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
        } else if rest.starts_with(b"/*") {
            self.blank(block_comment(rest));
        } else if let Some((opening, whole)) = raw_string(rest) {
            self.literal(opening, whole);
        } else if rest[0] == b'"' {
            self.literal(1, quoted(rest, b'"'));
        } else if let Some(whole) = character(rest) {
            self.literal(1, whole);
        } else {
            self.keep(1);
        }
    }

    fn keep(&mut self, count: usize) {
        let end = (self.at + count).min(self.input.len());
        self.output.extend_from_slice(&self.input[self.at..end]);
        self.at = end;
    }

    fn blank(&mut self, count: usize) {
        let end = (self.at + count).min(self.input.len());
        let blanked = self.input[self.at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' });
        self.output.extend(blanked);
        self.at = end;
    }

    /// Keeps the `opening` bytes and the last byte of a literal of `whole` bytes.
    fn literal(&mut self, opening: usize, whole: usize) {
        self.keep(opening);
        self.blank(whole.saturating_sub(opening + 1));
        self.keep(1);
    }
}

/// The length of a block comment, which may contain others.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The lengths of the opening and of the whole of a raw string, its prefix from the `r` on.
fn raw_string(rest: &[u8]) -> Option<(usize, usize)> {
    let hashes = rest.strip_prefix(b"r")?.iter().take_while(|byte| **byte == b'#').count();
    let opening = 1 + hashes + 1;
    if rest.get(opening - 1) != Some(&b'"') {
        return None;
    }
    let closing = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let inside = rest[opening..].windows(closing.len()).position(|window| window == closing);
    Some((opening, inside.map_or(rest.len(), |length| opening + length + closing.len())))
}

/// The length of a literal between two `quote`s, in which a backslash escapes.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime and everything else.
fn character(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'\'', b'\\', ..] => Some(quoted(rest, b'\'')),
        [b'\'', first, ..] => {
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blanked(text: &str) -> String {
        RustSource::new(text).code
    }

    #[test]
    fn comments_are_blanked_and_lines_stay() {
        assert_eq!(blanked("a // b\nc"), "a     \nc");
        assert_eq!(blanked("a /* x /* y */\n z */ b"), "a             \n      b");
    }

    #[test]
    fn strings_keep_only_their_quotes() {
        assert_eq!(blanked(r#"f("a\"b", x)"#), r#"f("    ", x)"#);
        assert_eq!(blanked("r#\"a\"b\"# + 1"), "r#\"    # + 1");
        assert_eq!(blanked("br\"a\\\" + 1"), "br\"  \" + 1");
        assert_eq!(blanked("\"ä\""), "\"  \"");
    }

    #[test]
    fn characters_are_blanked_and_lifetimes_are_not() {
        assert_eq!(blanked("'{' '\\'' '\"' 'ä' '\\u{7d}'"), "' ' '  ' ' ' '  ' '      '");
        assert_eq!(blanked("fn f<'a, 'b>(x: &'a str)"), "fn f<'a, 'b>(x: &'a str)");
    }

    #[test]
    fn unfinished_literals_end_with_the_text() {
        for text in ["\"abc", "\"abc\\", "/* abc", "r#\"abc\"", "'\\", "'", "r#"] {
            assert_eq!(blanked(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn words_are_found_whole() {
        let source = RustSource::new("unsafe_code; unsafe {} x.unwrap(); my_unwrap()");
        assert_eq!(source.find("unsafe").collect::<Vec<_>>(), [13]);
        assert_eq!(source.find(".unwrap()").count(), 1);
    }

    #[test]
    fn offsets_have_lines() {
        let source = RustSource::new("a\nb\n");
        assert_eq!([0, 1, 2, 3, 4].map(|offset| source.line_of(offset)), [1, 1, 2, 2, 3]);
    }
}
