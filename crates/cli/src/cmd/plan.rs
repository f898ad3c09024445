//! `rhumb plan`.

mod family;
mod fit;

use std::path::{Path, PathBuf};

use rhumb_nn::model::Decoder;
use rhumb_optim::shard::{MemoryPlan, RankMemory, ShardKind, Stage, plan};
use rhumb_optim::{Kind, OptimizerConfig, Preset, StateFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::exit::{Code, Failure};
use crate::lm::{decoder, definition, open_files};
use crate::output::Output;
use crate::table::{Table, bytes, number};

/// Arguments of `plan`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Model folder or GGUF file; the weights of a folder are not read and may be absent.
    #[arg(long, value_name = "PATH", required_unless_present = "limits")]
    model: Option<PathBuf>,
    /// Ranks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    ranks: u16,
    /// adam-mini, adamw, sgd, lion, adafactor, muon or slim-adam.
    #[arg(long, default_value = "adam-mini", value_parser = spelled::<Kind>)]
    optimizer: Kind,
    /// How Adam-mini cuts the model: rhumb, 1.1.1, 1.1.0, 1.0.4 or v0.
    #[arg(long, default_value = "rhumb", value_parser = spelled::<Preset>)]
    preset: Preset,
    /// Storage of moments: f32, bf16 or 8bit.
    #[arg(long, default_value = "f32", value_parser = spelled::<StateFormat>)]
    state: StateFormat,
    /// How tensors are spread: replicated, row, column or flat.
    #[arg(long, default_value = "row", value_parser = spelled::<ShardKind>)]
    shard: ShardKind,
    /// What is spread: state (ZeRO-1), gradients too (ZeRO-2), or parameters too (ZeRO-3, FSDP).
    #[arg(long, default_value = "parameters", value_parser = spelled::<Stage>)]
    stage: Stage,
    #[command(flatten)]
    fit: fit::Fit,
}

/// A value as configurations write it; the message of a wrong one lists those that exist.
pub(crate) fn spelled<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|e| e.to_string())
}

/// Estimates memory and traffic of a sharded run, AdamW beside it.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let model = args.model.as_ref().map(|path| Ok::<_, Failure>((path, defined(path)?))).transpose()?;
    if args.fit.is_asked() {
        return args.fit.run(model.as_ref().map(|(path, decoder)| (*path, decoder)), args.preset);
    }
    let Some((path, decoder)) = model else { return Err(Failure::usage("name a --model")) };
    let layout = decoder.layout();
    let of = |kind, state| {
        // Momentum is what makes SGD's state a fair comparison.
        let momentum = if kind == Kind::Sgd { 0.9 } else { 0.0 };
        let config =
            OptimizerConfig { kind, preset: args.preset, state, momentum, ..OptimizerConfig::default() };
        plan(layout, args.ranks.into(), args.shard, args.stage, &config, 4)
            .map_err(|e| Failure::new(Code::Usage, e))
    };
    let ours = of(args.optimizer, args.state)?;
    let control = of(Kind::AdamW, StateFormat::Full)?;
    let mut table = Table::new(["per rank, bytes", ours.optimizer, "adamw, f32", "ratio"]);
    for (name, pick) in rows() {
        let (a, b) = (pick(&ours), pick(&control));
        let ratio = if b == 0 { String::new() } else { number(a as f64 / b as f64) };
        table.row([name.to_owned(), exact(a), exact(b), ratio]);
    }
    let text = format!(
        "{}: {} parameters on {} ranks, {:?} shards\n{}\nparameters and gradients in f32, without activations; the largest \
         rank counts. Traffic is what the optimizer adds to that of gradients and parameters, which is the same for all.\n",
        path.display(),
        ours.parameters,
        args.ranks,
        args.shard,
        table.render()
    );
    Ok(Output::new(text, json!({ "model": path, "plan": ours, "adamw": control })))
}

/// The definition of a model, its weights unread where its file tells without.
fn defined(path: &Path) -> Result<Decoder, Failure> {
    match definition(path)? {
        Some(d) => Ok(d),
        None => decoder(path, &open_files(path)?),
    }
}

/// A quantity by name.
type Row = (&'static str, fn(&MemoryPlan) -> u64);

fn rows() -> [Row; 8] {
    fn largest(p: &MemoryPlan, pick: fn(&RankMemory) -> u64) -> u64 {
        p.per_rank.iter().map(pick).max().unwrap_or(0)
    }
    [
        ("parameters", |p| largest(p, |r| r.parameters)),
        ("gradients", |p| largest(p, |r| r.gradients)),
        ("optimizer state", |p| largest(p, |r| r.state)),
        ("all three", |p| largest(p, RankMemory::total)),
        ("optimizer traffic of a step", |p| p.wire.payload),
        ("the same, sent in a ring", |p| p.wire.ring),
        ("state on the CPU: gradients down", |p| largest(p, |r| r.offload.down)),
        ("state on the CPU: parameters up", |p| largest(p, |r| r.offload.up)),
    ]
}

fn exact(n: u64) -> String {
    if n < 10_000 { n.to_string() } else { format!("{n} ({})", bytes(n)) }
}
