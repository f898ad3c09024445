//! The code in what a model wrote.

use super::{Problem, STOPS};

/// A continuation of the prompt, up to the first of [`STOPS`]: what a plain model writes.
pub fn continuation(text: &str) -> &str {
    let end = STOPS.iter().filter_map(|s| text.find(s)).min().unwrap_or(text.len());
    &text[..end]
}

/// The completion in an answer: what follows [`Problem::prompt`] so that the answer's code is tested.
///
/// 1. The first fenced block that defines the function; without one, the first block that is marked as Python or not
///    marked; without one, the first block. A block that is never closed ends with the text.
/// 2. Without a block: from the first line that begins like code to the last, if the function is defined there.
/// 3. Without either: the text as a [`continuation`].
///
/// A function that is defined anew replaces the one of the prompt, whose imports and helpers stay. Code without the
/// function is its body; where its first line is not indented, all of it is, by four spaces. Calls and assertions of
/// the model's own that stand in the block are run with it.
pub fn answer(problem: &Problem, text: &str) -> String {
    let name = &problem.entry_point;
    let blocks = blocks(text);
    let plain = |b: &&Block| matches!(b.info.as_str(), "" | "python" | "py" | "python3");
    let block = blocks
        .iter()
        .find(|b| defines(&b.code, name))
        .or_else(|| blocks.iter().find(plain))
        .or_else(|| blocks.first());
    let code = match block {
        Some(block) => block.code.clone(),
        None if defines(text, name) => loose(text),
        None => return continuation(text).to_owned(),
    };
    if defines(&code, name) {
        return format!("\n\n{code}");
    }
    match code.lines().find(|l| !l.trim().is_empty()) {
        Some(first) if first.starts_with([' ', '\t']) => code,
        _ => code.lines().map(|l| if l.is_empty() { "\n".into() } else { format!("    {l}\n") }).collect(),
    }
}

struct Block {
    /// First word after the fence, in small letters.
    info: String,
    code: String,
}

/// Fenced blocks, each without the indentation of its fence.
fn blocks(text: &str) -> Vec<Block> {
    let mut lines = text.lines();
    let mut all = Vec::new();
    while let Some(line) = lines.next() {
        let inner = line.trim_start();
        let Some(fence) = fence(inner) else { continue };
        let indent = line.len() - inner.len();
        let info = inner[fence.len()..].split_whitespace().next().unwrap_or_default().to_lowercase();
        let mut code = String::new();
        for line in lines.by_ref() {
            let bare = line.trim();
            // A closing fence is at least as long as the opening one, and nothing follows it.
            if bare.starts_with(fence) && bare.chars().all(|c| fence.starts_with(c)) {
                break;
            }
            let blank = line.len() - line.trim_start().len();
            code.push_str(&line[blank.min(indent)..]);
            code.push('\n');
        }
        all.push(Block { info, code });
    }
    all
}

/// The run of three or more backticks or tildes that opens a block.
fn fence(line: &str) -> Option<&str> {
    let sign = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let end = line.find(|c| c != sign).unwrap_or(line.len());
    // Backticks after the fence belong to code within a line.
    (end >= 3 && !line[end..].contains('`')).then(|| &line[..end])
}

/// Whether a line without indentation begins to define the function.
fn defines(code: &str, name: &str) -> bool {
    code.lines().any(|line| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let rest = line.strip_prefix("def ").and_then(|l| l.trim_start().strip_prefix(name));
        rest.is_some_and(|r| r.trim_start().starts_with('('))
    })
}

/// From the first line that begins like code, until a line without indentation that does not.
fn loose(text: &str) -> String {
    const STARTS: [&str; 9] =
        ["def ", "async def ", "class ", "import ", "from ", "@", "#", "if __name__", "    "];
    let assigns = |l: &str| {
        l.split_once('=').is_some_and(|(to, _)| {
            !to.is_empty() && to.trim().chars().all(|c| c.is_alphanumeric() || "_,.[]".contains(c))
        })
    };
    let code = |l: &&str| STARTS.iter().any(|s| l.starts_with(s)) || assigns(l);
    let goes_on = |l: &&str| code(l) || l.trim().is_empty() || l.starts_with([' ', '\t', ')', ']', '}']);
    let begins = |l: &&str| code(l) && !l.starts_with([' ', '\t']);
    text.lines().skip_while(|l| !begins(l)).take_while(goes_on).map(|l| format!("{l}\n")).collect()
}
