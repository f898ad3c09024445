//! `rhumb model`.

mod info;
mod merge;
mod new;

pub(crate) use new::ffn;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhumb_io::TensorMap;
use rhumb_io::gguf::GgmlType;
use rhumb_io::hub::{self, HubError, HubOptions, PullProgress};
use rhumb_io::model_dir::ModelFiles;
use serde::Serialize;
use serde_json::json;

use crate::exit::{Code, Failure};
use crate::lm::{decoder, from_io, open_files, weights};
use crate::output::{Global, Output};
use crate::table::{bytes, number};

/// Commands on models.
#[derive(Debug, Subcommand, Serialize)]
pub(crate) enum Command {
    /// Read a GGUF file or a Hugging Face folder and write Rhumb's folder.
    Import {
        /// `X.gguf`, or a folder with `config.json` and safetensors.
        from: PathBuf,
        /// The folder to write, new or empty.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Write over what stands there.
        #[arg(long)]
        force: bool,
    },
    /// Make a model with fresh weights, to be trained from nothing.
    New(new::New),
    /// Parameters, types, blocks, and the memory that training needs with each optimizer.
    Info {
        /// Folder or GGUF file of the model.
        model: PathBuf,
        /// Tokens of a batch row, for the memory estimate.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
        tokens: u32,
        /// Rows of a batch, for the memory estimate.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
        batch: u32,
    },
    /// Write a model for other programs.
    Export {
        /// Folder or GGUF file of the model.
        model: PathBuf,
        /// The format.
        #[arg(long, value_enum)]
        format: Format,
        /// Type of the weights in the file.
        #[arg(long, value_enum, default_value = "f32")]
        dtype: Dtype,
        /// A folder for `hf`, new or empty; a new file for `gguf`.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// Write over what stands there.
        #[arg(long)]
        force: bool,
    },
    /// Put low-rank adapters into the weights of their model.
    Merge(merge::Merge),
    /// Download a model. The only command that opens a connection.
    Pull {
        /// `ORG/NAME` on the hub.
        name: String,
        /// Where to put it; the cache folder otherwise (see `rhumb doctor`).
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// File formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// A folder with `config.json`, tokenizer and safetensors.
    Hf,
    /// One GGUF file.
    Gguf,
}

/// Types of exported weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dtype {
    /// 32 bits; re-imported bit for bit.
    F32,
    /// 16 bits, IEEE.
    F16,
    /// 16 bits with the range of 32; Hugging Face folders only.
    Bf16,
    /// 8 bits with a scale per 32 weights; GGUF only.
    #[value(name = "q8_0")]
    #[serde(rename = "q8_0")]
    Q8_0,
}

/// Imports, inspects, exports or downloads.
pub(crate) fn run(command: &Command, global: Global) -> Result<Output, Failure> {
    match command {
        Command::Import { from, out, force } => import(from, out, *force),
        Command::New(args) => new::run(args),
        Command::Info { model, tokens, batch } => info::run(model, *tokens, *batch),
        Command::Export { model, format, dtype, out, force } => export(model, (*format, *dtype), out, *force),
        Command::Merge(args) => merge::run(args),
        Command::Pull { name, out } => pull(name, out.as_deref(), global),
    }
}

/// Whether `a` and `b` are one place.
fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Refuses to write over a file or into a folder that holds something, unless asked to.
fn is_free(out: &Path, force: bool) -> Result<(), Failure> {
    let taken = out.is_file() || std::fs::read_dir(out).is_ok_and(|mut d| d.next().is_some());
    if taken && !force {
        let what = if out.is_file() { "exists" } else { "is not empty" };
        return Err(Failure::usage(format!(
            "{} {what}: choose another --out, or write over it with --force",
            out.display()
        )));
    }
    Ok(())
}

fn import(from: &Path, out: &Path, force: bool) -> Result<Output, Failure> {
    if same(from, out) {
        return Err(Failure::usage("--out is the model itself: choose another folder"));
    }
    is_free(out, force)?;
    let files = open_files(from)?;
    fits(from, &files)?;
    files.save(out).map_err(from_io)?;
    let parameters = files.parameters();
    let (tensors, tokenizer) = (files.tensors.len(), files.tokenizer.is_some());
    let chat = files.tokenizer_config.as_ref().is_some_and(|c| c.get("chat_template").is_some());
    let word = |there: bool| if there { "yes" } else { "no" };
    let text = format!(
        "{}: {tensors} tensors, {parameters} parameters as F32; tokenizer {}, chat template {}\n",
        out.display(),
        word(tokenizer),
        word(chat)
    );
    let json = json!({
        "out": out, "tensors": tensors, "parameters": parameters, "tokenizer": tokenizer, "chat_template": chat,
    });
    Ok(Output::new(text, json))
}

/// Whether the tensors are those of the configuration.
fn fits(path: &Path, files: &ModelFiles) -> Result<(), Failure> {
    weights(path, &decoder(path, files)?, &files.tensors).map(drop)
}

fn export(
    model: &Path,
    (format, dtype): (Format, Dtype),
    out: &Path,
    force: bool,
) -> Result<Output, Failure> {
    let stored = match (format, dtype) {
        (_, Dtype::F32) => GgmlType::F32,
        (_, Dtype::F16) => GgmlType::F16,
        (Format::Hf, Dtype::Bf16) => GgmlType::BF16,
        (Format::Gguf, Dtype::Q8_0) => GgmlType::Q8_0,
        (Format::Hf, Dtype::Q8_0) => {
            return Err(Failure::usage("hf folders hold f32, f16 or bf16: choose one, or --format gguf"));
        }
        (Format::Gguf, Dtype::Bf16) => {
            return Err(Failure::usage(
                "gguf files are written as f32, f16 or q8_0: choose one, or --format hf",
            ));
        }
    };
    if same(model, out) {
        return Err(Failure::usage("--out is the model itself: choose another place"));
    }
    is_free(out, force)?;
    let files = open_files(model)?;
    fits(model, &files)?;
    match format {
        Format::Hf => files.save_as(out, stored),
        Format::Gguf => files.to_gguf(out, stored),
    }
    .map_err(from_io)?;
    // What other programs will read is read again, so that a loss is known before it is shipped.
    let again = files.read_again(out).map_err(from_io)?;
    let difference = Difference::of(&files.tensors, &again.tensors);
    let size = match format {
        Format::Hf => (stored.block().1 * files.parameters()) as u64,
        Format::Gguf => std::fs::metadata(out).map_or(0, |m| m.len()),
    };
    let text = format!("{}: {}\nread again: {difference}\n", out.display(), bytes(size));
    let json = json!({ "out": out, "bytes": size, "difference": difference });
    Ok(Output::new(text, json))
}

/// How far the weights of a file are from those it was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Difference {
    /// Tensors that the file has or should have.
    tensors: usize,
    /// Those that are missing, of another shape or of other bits.
    changed: usize,
    /// Largest absolute difference of two weights.
    max_abs: f64,
    /// Root of the summed squares of the differences over that of the weights.
    relative: f64,
}

impl Difference {
    fn of(before: &TensorMap, after: &TensorMap) -> Self {
        let mut d = Difference { tensors: before.len(), ..Difference::default() };
        let (mut squares, mut total) = (0.0, 0.0);
        for (name, a) in before {
            let Some(b) = after.get(name).filter(|b| b.shape == a.shape) else {
                d.changed += 1;
                continue;
            };
            let same = a.data.iter().zip(&b.data).all(|(x, y)| x.to_bits() == y.to_bits());
            d.changed += usize::from(!same);
            for (x, y) in a.data.iter().zip(&b.data) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                d.max_abs = d.max_abs.max((x - y).abs());
                squares += (x - y).powi(2);
                total += x * x;
            }
        }
        d.relative = if total > 0.0 { (squares / total).sqrt() } else { 0.0 };
        d
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changed == 0 {
            return write!(f, "all {} tensors equal bit for bit", self.tensors);
        }
        let (max, relative) = (number(self.max_abs), number(self.relative));
        let Difference { changed, tensors, .. } = self;
        write!(
            f,
            "{changed} of {tensors} tensors rounded, largest difference {max}, relative (L2) {relative}"
        )
    }
}

fn pull(name: &str, out: Option<&Path>, global: Global) -> Result<Output, Failure> {
    let bar = ProgressBar::with_draw_target(
        None,
        if global.shows_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
    );
    // The template is a constant; a default style is better than no download.
    let style =
        ProgressStyle::with_template("{prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut show = |p: &PullProgress<'_>| {
        bar.set_prefix(p.file.to_owned());
        bar.set_length(p.total);
        bar.set_position(p.done);
    };
    let pulled = hub::pull(name, &HubOptions::default(), &mut show).map_err(|e| {
        let code = if matches!(e, HubError::Name { .. }) { Code::Usage } else { Code::Missing };
        Failure::new(code, e)
    })?;
    bar.finish_and_clear();
    let place = match out {
        None => pulled,
        Some(dir) => copy_into(&pulled, dir)?,
    };
    Ok(Output::new(format!("{}\n", place.display()), json!({ "name": name, "path": place })))
}

/// Copies a file, or the files of a folder, into a folder; returns what [`open_files`] takes.
fn copy_into(from: &Path, dir: &Path) -> Result<PathBuf, Failure> {
    let fail = |e: std::io::Error| {
        Failure::usage(format!("cannot copy the model to {}: {e}; choose another folder", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(fail)?;
    let copy = |file: &Path| -> Result<PathBuf, Failure> {
        let to = dir.join(file.file_name().unwrap_or_default());
        std::fs::copy(file, &to).map_err(fail)?;
        Ok(to)
    };
    if from.is_file() {
        return copy(from);
    }
    for entry in std::fs::read_dir(from).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_file() {
            copy(&path)?;
        }
    }
    Ok(dir.to_owned())
}
