//! `rhumb model info`.

use std::collections::BTreeMap;
use std::path::Path;

use rhumb_core::Role;
use rhumb_io::gguf::GgufFile;
use rhumb_io::model_dir::ModelFiles;
use rhumb_io::safetensors;
use rhumb_nn::model::Decoder;
use rhumb_optim::{Kind, OptimizerConfig, Preset, param_table};
use serde::Serialize;
use serde_json::json;

use crate::cmd::train::memory::{Estimate, Shape};
use crate::exit::{Code, Failure};
use crate::lm::{adapters, decoder, from_io, open_files, text_side, weights};
use crate::output::Output;
use crate::table::{Table, bytes};

/// Tensors with the same task.
#[derive(Debug, Default, Serialize)]
struct Group {
    role: &'static str,
    tensors: usize,
    parameters: usize,
    /// Second moments of Adam-mini.
    blocks: usize,
    /// What one of them covers.
    block: String,
}

/// Memory of training with one optimizer.
#[derive(Debug, Serialize)]
struct Need {
    optimizer: String,
    /// Bytes of its state.
    optimizer_bytes: u64,
    #[serde(flatten)]
    estimate: Estimate,
    total: u64,
}

pub(super) fn run(path: &Path, tokens: u32, batch: u32) -> Result<Output, Failure> {
    let files = open_files(path)?;
    let model = decoder(path, &files)?;
    drop(weights(path, &model, &files.tensors)?);
    let stored = stored_types(path).map_err(|e| e.context(path.display().to_string()))?;
    let groups = groups(&model)?;
    let needs = needs(&model, files, path, u64::from(tokens), u64::from(batch))?;
    let c = model.config();
    let n = model.base_layout().len();
    let kind = format!("{:?}", c.family).to_lowercase();
    let mut text = format!(
        "{}\n{n} parameters, {} layers, width {}, {} query and {} key-value heads of {}, feed-forward {}, \
         vocabulary {}, context {}, {} head\nstored as {}\n\n",
        path.display(),
        c.layers,
        c.width,
        c.heads,
        c.kv_heads,
        c.head_dim,
        c.ffn,
        c.vocab,
        c.positions,
        if c.tied { "tied" } else { "separate" },
        stored.iter().map(|(t, k)| format!("{k} x {t}")).collect::<Vec<_>>().join(", ")
    );
    let mut table = Table::new(["blocks", "tensors", "parameters", "Adam-mini blocks", "one block"]);
    for g in &groups {
        let cells = [g.tensors, g.parameters, g.blocks].map(|n| n.to_string());
        let [tensors, parameters, blocks] = cells;
        table.row([g.role.to_owned(), tensors, parameters, blocks, g.block.clone()]);
    }
    text += &table.render();
    text += &format!("\nmemory of train sft in f32, estimated for {batch} x {tokens} tokens\n");
    let header = ["optimizer", "parameters", "gradients", "state", "activations", "rest", "saving", "total"];
    let mut table = Table::new(header);
    for need in &needs {
        let m = &need.estimate.training;
        let saving = need.estimate.saving;
        let cells = [m.parameters, m.gradients, m.optimizer, m.activations, m.scratch, saving, need.total];
        table.row(std::iter::once(need.optimizer.clone()).chain(cells.map(bytes)));
    }
    text += &table.render();
    text += "parameters: the current and the best weights; rest: program, tokenizer, data, scores; saving: what writing the \
             model\nneeds for a moment; total: the larger one of training and saving\n";
    let json = json!({
        "path": path,
        "family": kind,
        "parameters": n,
        "layers": c.layers,
        "width": c.width,
        "heads": c.heads,
        "kv_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "ffn": c.ffn,
        "vocab": c.vocab,
        "context": c.positions,
        "tied": c.tied,
        "stored": stored,
        "blocks": groups,
        "tokens": tokens,
        "batch": batch,
        "memory": needs,
    });
    Ok(Output::new(text, json))
}

/// How many tensors the files hold in which type.
fn stored_types(path: &Path) -> Result<BTreeMap<String, usize>, Failure> {
    let names: Vec<String> = if path.is_file() {
        let file = GgufFile::open(path).map_err(from_io)?;
        file.tensors().values().map(|t| t.dtype.name()).collect()
    } else {
        safetensors::stored_types(path).map_err(from_io)?.into_values().collect()
    };
    let mut out = BTreeMap::new();
    for name in names {
        *out.entry(name).or_default() += 1;
    }
    Ok(out)
}

fn groups(model: &Decoder) -> Result<Vec<Group>, Failure> {
    let layout = model.base_layout();
    let rows = param_table(layout, Preset::Rhumb).map_err(|e| Failure::new(Code::Usage, e))?;
    let mut out: Vec<Group> = Vec::new();
    for (b, row) in layout.blocks().iter().zip(rows) {
        let role = role(b.role);
        let at = out.iter().position(|g| g.role == role).unwrap_or_else(|| {
            out.push(Group { role, block: row.class.clone(), ..Group::default() });
            out.len() - 1
        });
        let g = &mut out[at];
        g.tensors += 1;
        g.parameters += b.range.len();
        g.blocks += row.blocks;
    }
    Ok(out)
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Embed => "embedding",
        Role::Head => "output head",
        Role::Position => "positions",
        Role::Query { .. } => "query",
        Role::Key { .. } => "key",
        Role::Value { .. } => "value",
        Role::Qkv { .. } | Role::QkvGrouped { .. } => "query, key, value",
        Role::AttnOut => "attention output",
        Role::Mlp => "feed-forward",
        Role::Experts => "experts",
        Role::Conv => "convolutions",
        Role::Norm => "norms",
        Role::Bias => "biases",
        Role::LoraA | Role::LoraB => "adapters",
        Role::Other => "other",
    }
}

fn needs(
    model: &Decoder,
    files: ModelFiles,
    path: &Path,
    tokens: u64,
    batch: u64,
) -> Result<Vec<Need>, Failure> {
    // A tokenizer that does not load is found here and not after an hour of training.
    if files.tokenizer.is_some() {
        text_side(path, &files)?;
    }
    drop(files);
    let rank = 8;
    let lora = adapters(model.config(), rank, 16.0);
    let adapted =
        Decoder::with_lora(model.config().clone(), &lora).map_err(|e| Failure::new(Code::Usage, e)).ok();
    let full = |kind, momentum| (model, kind, momentum);
    let mut rows = vec![
        ("adam-mini".to_owned(), full(Kind::AdamMini, 0.0)),
        ("adamw".to_owned(), full(Kind::AdamW, 0.0)),
        ("sgd".to_owned(), full(Kind::Sgd, 0.0)),
        ("sgd, momentum".to_owned(), full(Kind::Sgd, 0.9)),
    ];
    if let Some(a) = &adapted {
        rows.push((format!("adam-mini, adapters of rank {rank}"), (a, Kind::AdamMini, 0.0)));
    }
    rows.into_iter()
        .map(|(optimizer, (m, kind, momentum))| {
            let config = OptimizerConfig { kind, momentum, ..OptimizerConfig::default() };
            let estimate = Estimate::of(&Shape {
                decoder: m,
                optimizer: &config,
                batch,
                accumulate: 1,
                tokens,
                recompute: false,
                streamed: false,
            })?;
            let optimizer_bytes = estimate.training.optimizer;
            Ok(Need { optimizer, optimizer_bytes, total: estimate.peak(), estimate })
        })
        .collect()
}
