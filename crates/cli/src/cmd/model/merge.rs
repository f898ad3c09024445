//! `rhumb model merge`.

use std::path::PathBuf;

use rhumb_io::adapter::AdapterFiles;
use serde::Serialize;
use serde_json::json;

use super::{is_free, same};
use crate::exit::Failure;
use crate::lm::{LanguageModel, from_io};
use crate::output::Output;

/// Arguments of `model merge`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Merge {
    /// Folder or GGUF file of the model that the adapter was trained on.
    model: PathBuf,
    /// Folder in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The folder to write, new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write over what stands there.
    #[arg(long)]
    force: bool,
}

/// Writes the model with `W + (alpha / rank) B A` in place of `W`.
pub(super) fn run(args: &Merge) -> Result<Output, Failure> {
    if same(&args.model, &args.out) {
        return Err(Failure::usage("--out is the model itself: choose another folder"));
    }
    is_free(&args.out, args.force)?;
    let adapter = AdapterFiles::load(&args.adapter).map_err(from_io)?;
    let lm = LanguageModel::open(&args.model)?;
    let merged = lm.merged(&adapter, &args.adapter)?;
    let change = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let moved = merged.iter().zip(&lm.params).map(change).sum::<f64>();
    let size = lm.params.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
    let relative = (moved / size.max(f64::MIN_POSITIVE)).sqrt();
    lm.save(&merged, &args.out)?;
    let factors = adapter.tensors.len();
    let text = format!(
        "{}: {} with rank {} in {} projections; the weights moved by {relative:.2e} of their length\n",
        args.out.display(),
        args.model.display(),
        adapter.lora.rank,
        factors / 2
    );
    let json = json!({
        "out": args.out, "rank": adapter.lora.rank, "alpha": adapter.lora.alpha, "projections": factors / 2,
        "relative_change": relative,
    });
    Ok(Output::new(text, json))
}
