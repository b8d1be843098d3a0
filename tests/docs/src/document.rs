//! The commands of a Markdown text.

/// What begins a command.
const PROMPT: &str = "$ ";

/// A command, and what the text says that it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Line of the command, from 1.
    pub line: usize,
    /// The command, its continuation lines included.
    pub command: String,
    /// The lines shown.
    pub shown: Vec<String>,
}

/// A command in a row of a table, whose last cell names the statuses that it is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Line of the row, from 1.
    pub line: usize,
    /// The command.
    pub command: String,
    /// The statuses; none when the cell names none.
    pub statuses: Vec<u16>,
}

/// A fenced block.
struct Block<'a> {
    line: usize,
    kind: &'a str,
    lines: Vec<&'a str>,
}

/// The commands of the `sh` blocks, in order.
pub fn steps(text: &str) -> Vec<Step> {
    let shell = blocks(text).into_iter().filter(|block| block.kind == "sh");
    shell.flat_map(|block| steps_of(&block)).collect()
}

/// The lines of fenced blocks that show no command of which the output could be compared: blocks of another kind than
/// `sh`, and what stands in those before the first command. Programs in C are compiled and run by `make c-test`.
pub fn unchecked_lines(text: &str) -> Vec<usize> {
    blocks(text)
        .iter()
        .filter(|block| block.kind != "c")
        .flat_map(|block| {
            let checked = |line: &&str| block.kind == "sh" && line.starts_with(PROMPT);
            let first = block.lines.iter().position(checked).unwrap_or(block.lines.len());
            block.line + 1..block.line + 1 + first
        })
        .collect()
}

/// The source files that prose names in code spans, with their lines: `table.rs`, `crates/memory/src/table.rs`.
pub fn named_sources(text: &str) -> Vec<(usize, String)> {
    let mut is_prose = true;
    let mut named = Vec::new();
    for (index, line) in text.lines().enumerate() {
        is_prose = is_prose != line.starts_with("```");
        let spans = if is_prose { code_spans(line) } else { Vec::new() };
        let sources = spans.into_iter().filter(|code| code.ends_with(".rs") && !code.contains(' '));
        named.extend(sources.map(|code| (index + 1, code)));
    }
    named
}

/// The commands that begin with `curl` in the rows of tables.
pub fn examples(text: &str) -> Vec<Example> {
    let rows = text.lines().enumerate().filter(|(_, line)| line.starts_with("| "));
    rows.flat_map(|(index, row)| {
        let cells = cells(row);
        let statuses = cells.last().map_or(Vec::new(), |cell| statuses(cell));
        let commands = cells.iter().flat_map(|cell| code_spans(cell)).filter(|code| runs_curl(code));
        let example = |command| Example { line: index + 1, command, statuses: statuses.clone() };
        commands.map(example).collect::<Vec<_>>()
    })
    .collect()
}

fn runs_curl(code: &str) -> bool {
    code.starts_with("curl ") || code.contains("| curl ")
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), is_open) {
            (Some(kind), false) => {
                blocks.push(Block { line: index + 1, kind: kind.trim(), lines: Vec::new() })
            }
            (None, true) => blocks.last_mut().into_iter().for_each(|block| block.lines.push(line)),
            (None, false) => continue,
            (Some(_), true) => {}
        }
        is_open = is_open != line.starts_with("```");
    }
    blocks
}

fn steps_of(block: &Block<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut continues = false;
    for (index, line) in block.lines.iter().enumerate() {
        let last = steps.last_mut();
        match (line.strip_prefix(PROMPT), last) {
            (_, Some(step)) if continues => {
                step.command.push('\n');
                step.command.push_str(line);
            }
            (Some(command), _) => {
                let line = block.line + 1 + index;
                steps.push(Step { line, command: command.to_owned(), shown: Vec::new() });
            }
            (None, Some(step)) => {
                step.shown.push((*line).to_owned());
                continue;
            }
            (None, None) => continue,
        }
        continues = line.ends_with('\\');
    }
    steps
}

/// The cells of a row. A bar behind a backslash is text.
fn cells(row: &str) -> Vec<String> {
    let hidden = row.trim().trim_matches('|').replace("\\|", "\0");
    hidden.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

fn code_spans(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn statuses(cell: &str) -> Vec<u16> {
    let spans = code_spans(cell);
    spans.iter().filter_map(|code| code.parse().ok()).filter(|status| (100..600).contains(status)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(line: usize, command: &str, shown: &[&str]) -> Step {
        Step { line, command: command.into(), shown: shown.iter().map(|&line| line.into()).collect() }
    }

    #[test]
    fn commands_carry_their_output_and_their_continuation() {
        let text =
            "# T\n```sh\n$ a \\\n    b\none\ntwo\n$ c\n```\n$ no\n```text\n$ no\n```\n```sh\n$ d\n```\n";
        assert_eq!(
            steps(text),
            [step(3, "a \\\n    b", &["one", "two"]), step(7, "c", &[]), step(14, "d", &[])]
        );
    }

    #[test]
    fn what_no_command_belongs_to_is_told() {
        assert_eq!(unchecked_lines("```sh\nstray\n$ a\nout\n```\n\n```\ncurl x\n```\n"), [2, 8]);
        assert_eq!(unchecked_lines("prose\n```sh\n$ a\n```\n"), [] as [usize; 0]);
    }

    #[test]
    fn sources_are_named_in_prose() {
        let text = "see `a/b.rs` and `c d.rs`\n```\n`e.rs`\n```\n`f.rs`\n";
        assert_eq!(named_sources(text), [(1, "a/b.rs".to_owned()), (5, "f.rs".to_owned())]);
    }

    #[test]
    fn rows_of_tables_give_examples() {
        let text = "| a | `tar c x \\| curl -T - u` | `201` new, `204` old |\n| b | `curl v`, `w` | `x` |\n`curl z`\n";
        let example = |line, command: &str, statuses: &[u16]| Example {
            line,
            command: command.into(),
            statuses: statuses.into(),
        };
        assert_eq!(
            examples(text),
            [example(1, "tar c x | curl -T - u", &[201, 204]), example(2, "curl v", &[])]
        );
    }
}
