//! From files of conversations to what is trained on and what is held out.

use std::path::{Path, PathBuf};

use rhumb_lm::data::{
    DataError, Drop, Dropped, Example, Examples, ExamplesWriter, Intake, Lengths, Tokenizing,
};
use serde_json::json;

use super::setup::named;
use crate::cmd::report::folder::SPILL;
use crate::cmd::train::SftSettings;
use crate::exit::{Code, Failure};
use crate::lm::LanguageModel;
use crate::machine;
use crate::rows;
use crate::table::counted;

/// Tokens may take this part of the memory of the process before they move to a file.
const SHARE: u64 = 8;
/// Lines of dropped rows that are told on the screen.
const TOLD: usize = 10;

/// What the data became.
pub(crate) struct Data {
    /// Conversations to train on.
    pub(crate) train: Examples,
    /// Conversations to judge by.
    pub(crate) held_out: Vec<Example>,
    /// What happened to the rows of each file.
    pub(crate) files: Vec<FileIntake>,
    /// What a user should know about them.
    pub(crate) notes: Vec<String>,
    /// What changes the meaning of the result.
    pub(crate) warnings: Vec<String>,
}

/// What happened to the rows of a file.
pub(crate) struct FileIntake {
    /// Its name.
    pub(crate) file: String,
    /// Counts, and the rows that were cut or left out.
    pub(crate) intake: Intake,
}

/// The word for a reason, in files and JSON.
pub(crate) fn word(why: &Drop) -> &'static str {
    match why {
        Drop::NothingLive => "no-answer",
        Drop::CutAway => "cut-before-answer",
        Drop::Unusable(_) => "unusable",
    }
}

/// The reason as a sentence.
pub(crate) fn reason(why: &Drop) -> String {
    match why {
        Drop::NothingLive => "it has no answer: no token of it would be trained".into(),
        Drop::CutAway => "it is cut before the answer begins: allow longer rows with --tokens".into(),
        Drop::Unusable(reason) => reason.clone(),
    }
}

/// The tokenizer and the template as they are used for training.
pub(crate) fn tokenizing<'a>(s: &SftSettings, model: &'a LanguageModel) -> Tokenizing<'a> {
    Tokenizing {
        encoder: &model.tokenizer,
        format: model.template.as_ref().map(|t| t as _),
        eos: model.eos.first().copied(),
        max_len: s.tokens as usize,
    }
}

/// Where tokens go: to memory, and past a share of it to a file of the folder.
pub(crate) fn writer(folder: Option<&Path>) -> ExamplesWriter {
    let limit = machine::memory_for_process().map_or(u64::MAX, |m| m / SHARE);
    match folder {
        Some(dir) => {
            let spill = dir.join(SPILL);
            // A killed run leaves its own, and the one that goes on may need none.
            let _ = std::fs::remove_file(&spill);
            ExamplesWriter::new(limit, spill)
        }
        None => ExamplesWriter::new(u64::MAX, PathBuf::new()),
    }
}

/// Reads and tokenizes what is trained on and what is held out. Tokens that outgrow their share of memory stand in a
/// file of `folder` as long as the data live.
pub(crate) fn read(s: &SftSettings, model: &LanguageModel, folder: Option<&Path>) -> Result<Data, Failure> {
    let tokenizing = tokenizing(s, model);
    let mut files = Vec::new();
    let data_error = |e: DataError| Failure::new(Code::Usage, e);
    let mut writer = writer(folder);
    files.push(read_file(s, named(s)?.1, &tokenizing, |e| writer.push(&e))?);
    let all = writer.finish().map_err(data_error)?;
    let mut data = Data { train: all, held_out: Vec::new(), files, notes: Vec::new(), warnings: Vec::new() };
    match &s.eval_data {
        Some(path) => data.hold_out_file(s, path, &tokenizing)?,
        None => data.hold_out_share(s).map_err(data_error)?,
    }
    for f in &data.files {
        data.warnings.extend(f.warnings(s.tokens));
    }
    data.notes.push(data.told());
    if let Some(file) = data.train.file() {
        data.notes.push(format!("the tokens stand in {} until the end", file.display()));
    }
    Ok(data)
}

/// Reads a file row by row; the first broken row ends it.
fn read_file(
    s: &SftSettings,
    path: &Path,
    tokenizing: &Tokenizing<'_>,
    take: impl FnMut(Example) -> Result<(), DataError>,
) -> Result<FileIntake, Failure> {
    let file = path.display().to_string();
    let rows = rows::open(path, s.format)?;
    let intake = tokenizing
        .each(rows, &file, take)
        .and_then(|intake| intake.judge(&file, tokenizing.max_len).map(|()| intake))
        .map_err(|e| Failure::new(Code::Usage, e))?;
    Ok(FileIntake { file, intake })
}

impl Data {
    fn hold_out_file(
        &mut self,
        s: &SftSettings,
        path: &Path,
        tokenizing: &Tokenizing<'_>,
    ) -> Result<(), Failure> {
        let held_out = &mut self.held_out;
        self.files.push(read_file(s, path, tokenizing, |e| {
            held_out.push(e);
            Ok(())
        })?);
        let same = self.train.repeated(&self.held_out).map_err(|e| Failure::new(Code::Usage, e))?;
        if same > 0 {
            self.warnings.push(format!(
                "{same} of {} held-out conversations are trained too: what is said about them is partly memory",
                self.held_out.len()
            ));
        }
        Ok(())
    }

    fn hold_out_share(&mut self, s: &SftSettings) -> Result<(), DataError> {
        let parts = self.train.clone().split(s.held_out, s.seed)?;
        if parts.twins > 0 {
            self.notes.push(format!("{} repetitions of held-out conversations left out", parts.twins));
        }
        (self.train, self.held_out) = (parts.train, parts.held_out);
        Ok(())
    }

    fn told(&self) -> String {
        let l = self.train.lengths();
        format!(
            "{} to train on, {} held out; tokens {}",
            counted(l.documents as u64, "conversation"),
            self.held_out.len(),
            lengths(&l)
        )
    }

    /// The rows that were left out or cut, one JSON object a line; `None` when there are none.
    pub(crate) fn dropped(&self) -> Option<String> {
        let mut out = String::new();
        for f in &self.files {
            for Dropped { line, why } in &f.intake.dropped {
                let row = json!({ "file": f.file, "line": line, "why": word(why), "reason": reason(why) });
                out += &format!("{row}\n");
            }
            for line in &f.intake.truncated {
                out += &format!("{}\n", json!({ "file": f.file, "line": line, "why": "cut" }));
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

/// Lengths for people.
pub(crate) fn lengths(l: &Lengths) -> String {
    format!(
        "shortest {}, median {}, 90 % {}, 99 % {}, longest {}; {} of {} tokens trained ({:.1} %)",
        l.min,
        l.median,
        l.p90,
        l.p99,
        l.max,
        l.live,
        l.tokens,
        100.0 * l.trained_share()
    )
}

impl FileIntake {
    /// What was cut or left out, with the first lines.
    pub(crate) fn warnings(&self, tokens: u32) -> Vec<String> {
        let (name, intake) = (&self.file, &self.intake);
        let mut out = Vec::new();
        let mut tell = |lines: &[usize], text: &str| {
            if !lines.is_empty() {
                let n = counted(lines.len() as u64, "conversation");
                out.push(format!("{name}: {n} {text} ({}s {})", rows::unit(name), shown(lines)));
            }
        };
        tell(&intake.truncated, &format!("cut at {tokens} tokens"));
        let of = |word_: &str| -> Vec<usize> {
            intake.dropped.iter().filter(|d| word(&d.why) == word_).map(|d| d.line).collect()
        };
        tell(&of("no-answer"), "without an answer dropped");
        tell(&of("cut-before-answer"), "cut before the answer dropped");
        tell(&of("unusable"), "that cannot be used dropped");
        let first = intake.dropped.iter().find_map(|d| match &d.why {
            Drop::Unusable(reason) => Some(reason),
            _ => None,
        });
        if let (Some(reason), Some(last)) = (first, out.last_mut()) {
            *last += &format!("; the first: {reason}");
        }
        out
    }
}

/// The first numbers of a list.
pub(crate) fn shown(lines: &[usize]) -> String {
    let first: Vec<String> = lines.iter().take(TOLD).map(usize::to_string).collect();
    format!("{}{}", first.join(", "), if lines.len() > TOLD { ", ..." } else { "" })
}
