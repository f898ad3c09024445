//! `rhumb data tokenize`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhumb_io::tokens::{TokenWriter, fingerprint};
use rhumb_lm::data::{TextPieces, TextUnit};
use serde::Serialize;
use serde_json::json;

use crate::exit::{Code, Failure};
use crate::lm::{eos, from_io, open_files, text_side};
use crate::output::{Global, Output};
use crate::table::{bytes, number, seconds};

/// Arguments of `data tokenize`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Tokenize {
    /// Folder of the model, for the tokenizer.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Files of text.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What a document is; from the ending of each file otherwise (`.jsonl`: `json`, any other: `file`).
    #[arg(long, value_enum)]
    unit: Option<Unit>,
    /// Leave out the end token after each document.
    #[arg(long)]
    no_eos: bool,
    /// Tokens of a shard at most; that many are held in memory.
    #[arg(long, default_value_t = 1 << 26, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    shard_tokens: u32,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Unit {
    /// The whole file.
    File,
    /// Each line that is not blank.
    Line,
    /// The key `text` of each line of JSON.
    Json,
}

impl Unit {
    fn of(path: &Path) -> Self {
        match path.extension() {
            Some(e) if e.eq_ignore_ascii_case("jsonl") => Unit::Json,
            _ => Unit::File,
        }
    }
}

/// Writes token shards.
pub(super) fn run(args: &Tokenize, global: Global) -> Result<Output, Failure> {
    // All files are opened before the first is read, so that a wrong name costs no hour.
    let files = args.files.iter().map(|p| open(p)).collect::<Result<Vec<_>, _>>()?;
    let model = open_files(&args.model)?;
    let (tokenizer, _) = text_side(&args.model, &model)?;
    let end = if args.no_eos { None } else { eos(&tokenizer, &model).first().copied() };
    if end.is_none() && !args.no_eos {
        return Err(Failure::usage(
            "the tokenizer names no end token, so documents would run into each other: use --no-eos to accept that",
        ));
    }
    // The model may have more embeddings than its tokenizer has tokens, and the other way round is an error there.
    let vocab = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    let print = model.tokenizer.as_ref().map(fingerprint).unwrap_or_default();
    let per_shard = args.shard_tokens as usize;
    let mut writer = TokenWriter::create(&args.out, vocab, print, end, per_shard).map_err(from_io)?;

    let total = files.iter().map(|(_, size)| size).sum();
    let bar = bar(total, global);
    let began = Instant::now();
    let mut read = 0;
    for (path, (file, _)) in args.files.iter().zip(files) {
        let unit = match args.unit.unwrap_or_else(|| Unit::of(path)) {
            Unit::File => TextUnit::File,
            Unit::Line => TextUnit::Line,
            Unit::Json => TextUnit::Json,
        };
        let name = path.display().to_string();
        for piece in TextPieces::new(BufReader::new(file), name.clone(), unit) {
            let piece = piece.map_err(|e| Failure::new(Code::Usage, e))?;
            let ids = tokenizer
                .encode(&piece.text)
                .map_err(|e| Failure::new(Code::Usage, e).context(format!("tokenizing {name}")))?;
            writer.push(&ids).map_err(from_io)?;
            if piece.ends_document {
                writer.end_document().map_err(from_io)?;
            }
            read += piece.text.len() as u64;
            bar.set_position(read);
        }
    }
    bar.finish_and_clear();
    if writer.tokens() == 0 {
        return Err(Failure::usage("the files hold no text: nothing was written"));
    }
    let info = writer.finish().map_err(from_io)?;
    let (tokens, spent) = (info.tokens(), began.elapsed().as_secs_f64());
    let text = format!(
        "{}: {tokens} tokens of {} documents in {} shards; {} of text, {} bytes a token, {}\n",
        args.out.display(),
        info.documents,
        info.shards.len(),
        bytes(read),
        number(read as f64 / tokens as f64),
        seconds(spent)
    );
    let json = json!({
        "out": args.out, "tokens": tokens, "documents": info.documents, "shards": info.shards.len(),
        "text_bytes": read, "wall_s": spent, "vocab": info.vocab, "eos": info.eos,
    });
    Ok(Output::new(text, json))
}

fn open(path: &Path) -> Result<(File, u64), Failure> {
    let fail = |e: std::io::Error| {
        let code = if e.kind() == std::io::ErrorKind::NotFound { Code::Missing } else { Code::Usage };
        Failure::new(code, anyhow::anyhow!("cannot open {}: {e}; check the path", path.display()))
    };
    let file = File::open(path).map_err(fail)?;
    let about = file.metadata().map_err(fail)?;
    if about.is_dir() {
        return Err(Failure::usage(format!("{} is a folder: give files of text", path.display())));
    }
    Ok((file, about.len()))
}

fn bar(total: u64, global: Global) -> ProgressBar {
    let target =
        if global.shows_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style =
        ProgressStyle::with_template("tokenizing {bar:24} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}");
    // The template is a constant; a default style is better than no run.
    ProgressBar::with_draw_target(Some(total), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
