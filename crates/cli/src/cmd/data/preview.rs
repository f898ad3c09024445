//! `rhumb data preview`.

use std::io::IsTerminal;
use std::path::PathBuf;

use rhumb_io::model_dir::ModelFiles;
use rhumb_lm::data::{ChatFormat, Conversation, DataError, Message, Piece, Tokenizing, preview};
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::{Code, Failure};
use crate::lm::{eos, open_files, override_template, text_side};
use crate::output::Output;
use crate::rows::{self, Format};

/// Arguments of `data preview`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Preview {
    /// Folder of the model, for tokenizer and chat template.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// JSON lines, or Parquet by the ending: messages, ShareGPT, Alpaca, prompt and completion, or text.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// How rows are read.
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// A chat template in Jinja instead of the model's own.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Conversations to show.
    #[arg(short = 'n', default_value_t = 3, allow_negative_numbers = true)]
    n: usize,
    /// The first one to show, from 0.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    skip: usize,
}

/// Shows data as the trainer sees it.
pub(super) fn run(args: &Preview) -> Result<Output, Failure> {
    let &Preview { n, skip, .. } = args;
    let mut files = open_files(&args.model)?;
    override_template(&mut files, args.template.as_deref())?;
    let (tokenizer, template) = text_side(&args.model, &files)?;
    let eos = eos(&tokenizer, &files);
    let special = special_tokens(&files);
    let name = args.data.display().to_string();
    let conversations = rows::open(&args.data, args.format)?;
    let unit = rows::unit(&name);
    let tokenizing = Tokenizing {
        encoder: &tokenizer,
        format: template.as_ref().map(|t| t as &dyn ChatFormat),
        eos: eos.first().copied(),
        max_len: usize::MAX,
    };
    let fail = |e: DataError| Failure::new(Code::Usage, e);
    let paint = Paint::here();
    let (mut text, mut json, mut rows) = (String::new(), Vec::new(), 0);
    let (mut usable, mut unusable) = (false, None);
    for row in conversations.take(skip.saturating_add(n)) {
        let row = row.map_err(fail)?;
        rows += 1;
        if rows <= skip {
            continue;
        }
        let example = match tokenizing.example(&row, &name) {
            Ok(example) => example,
            Err(e) => {
                let reason = e.to_string();
                text += &format!("{unit} {}: not used: {reason}\n\n", row.line);
                json.push(json!({ "line": row.line, "unusable": reason }));
                unusable = unusable.or(Some(e));
                continue;
            }
        };
        usable = true;
        let decode = |ids: &[u32]| tokenizer.decode(ids, false).map_err(|e| e.to_string());
        let pieces = preview(&example, decode).map_err(fail)?;
        let (tokens, trained) = (example.ids.len(), example.targets());
        let warning = if trained == 0 { " (this conversation trains nothing)" } else { "" };
        let inside = special_inside(&row.conversation, &special);
        text += &format!("{unit} {}: {trained} of {tokens} tokens trained{warning}\n", example.line);
        for p in &pieces {
            text += &paint.piece(p);
        }
        text += if text.ends_with('\n') { "" } else { "\n" };
        if !inside.is_empty() {
            text += &format!(
                "note: the content itself contains {}, which become special tokens and so real turns\n",
                inside.join(", ")
            );
        }
        text.push('\n');
        let mask: Vec<u8> = example.mask().into_iter().map(u8::from).collect();
        json.push(json!({
            "line": example.line, "tokens": tokens, "trained": trained, "pieces": pieces,
            "special_in_content": inside, "ids": example.ids, "mask": mask,
        }));
    }
    if let Some(e) = unusable.filter(|_| !usable) {
        return Err(fail(e));
    }
    if json.is_empty() && n > 0 {
        let what = format!("{name} has {rows} conversations, none of them after the first {skip}");
        return Err(Failure::usage(format!("{what}: choose a smaller --skip or another file")));
    }
    text += paint.legend();
    Ok(Output::new(text, Value::Array(json)))
}

/// The texts that the tokenizer turns into special tokens.
fn special_tokens(files: &ModelFiles) -> Vec<String> {
    let added = files.tokenizer.as_ref().and_then(|t| t.get("added_tokens")?.as_array());
    let special = added.into_iter().flatten().filter(|t| t["special"] == true);
    special.filter_map(|t| t["content"].as_str()).filter(|c| !c.is_empty()).map(str::to_owned).collect()
}

/// Those that stand in what people said.
fn special_inside<'a>(conversation: &Conversation, special: &'a [String]) -> Vec<&'a str> {
    let texts: Vec<&str> = match conversation {
        Conversation::Messages(messages) => messages.iter().map(Message::text).collect(),
        Conversation::Pair { prompt, completion } => vec![prompt, completion],
        Conversation::Text(text) => vec![text],
    };
    special.iter().map(String::as_str).filter(|s| texts.iter().any(|t| t.contains(s))).collect()
}

/// How trained text is told from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    /// Green on a terminal.
    Colour,
    /// Double brackets where there is no colour.
    Brackets,
}

impl Paint {
    fn here() -> Self {
        // By the convention of no-color.org an empty value counts as unset.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        if std::io::stdout().is_terminal() && !refused { Paint::Colour } else { Paint::Brackets }
    }

    fn piece(self, p: &Piece) -> String {
        // A control character from a data file must not steer the terminal.
        let plain: String = p
            .text
            .chars()
            .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        match (self, p.trained) {
            (Paint::Colour, true) => format!("\x1b[1;32m{plain}\x1b[0m"),
            (Paint::Colour, false) => format!("\x1b[2m{plain}\x1b[0m"),
            (Paint::Brackets, true) => format!("[[{plain}]]"),
            (Paint::Brackets, false) => plain,
        }
    }

    fn legend(self) -> &'static str {
        match self {
            Paint::Colour => "\x1b[1;32mgreen\x1b[0m is trained\n",
            Paint::Brackets => "[[ ]] is trained\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trained_text_is_marked_and_control_characters_are_defused() {
        let piece = |text: &str, trained| Piece { text: text.into(), trained, tokens: 1 };
        assert_eq!(Paint::Brackets.piece(&piece("a\n", true)), "[[a\n]]");
        assert_eq!(Paint::Brackets.piece(&piece("a\x1b[2Jb", false)), "a\u{fffd}[2Jb");
        assert_eq!(Paint::Colour.piece(&piece("a", true)), "\x1b[1;32ma\x1b[0m");
        assert_eq!(Paint::Colour.piece(&piece("a", false)), "\x1b[2ma\x1b[0m");
    }
}
