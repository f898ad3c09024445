//! `--partition measured`: Adam-mini's blocks from the curvature of the model that is about to be trained.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rhumb_core::{Curvature, Layout};
use rhumb_lm::sft::Sft;
use rhumb_optim::{Kind, Unit, UnitRule};
use rhumb_spectrum::{CurvatureOf, Cut, Reduction, Sample, Sharing, SpectrumError, Spread, sharing};
use serde::{Deserialize, Serialize};

use super::blocks::pattern;
use super::{PartitionBy, SftSettings};
use crate::cmd::spectrum::sampled;
use crate::exit::{Code, Failure};
use crate::output::{Global, warn};
use crate::table::{Table, counted, number};

/// In the run folder: what was measured, for people and for `--resume`.
pub(super) const FILE: &str = "partition.json";
/// Rows share a second moment where their curvatures vary by at most their mean: the cutoff of SlimAdam.
pub(crate) const LIMIT: f64 = 1.0;
/// Tokens that are measured on, about.
const TOKENS: u32 = 512;
/// Random vectors.
pub(crate) const PROBES: usize = 16;

/// What tensors of one name, but for the layer, are cut into.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decision {
    /// Their blocks.
    pub(crate) rule: UnitRule,
    /// The mean over the measured layers.
    pub(crate) mean: Sharing,
    /// The layers.
    pub(crate) layers: Vec<Sharing>,
}

/// Refuses settings under which there is nothing to measure.
pub(super) fn check(s: &SftSettings) -> Result<(), Failure> {
    if s.partition == PartitionBy::Preset {
        return Ok(());
    }
    let refused = if s.optimizer != Kind::AdamMini {
        format!("--partition measured belongs to --optimizer adam-mini, not to {}", s.optimizer.name())
    } else if s.lora.is_some() {
        "--partition measured: the curvature of fresh adapters is zero; leave it out, or train with --full"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::usage(refused))
}

/// The rules for a training that is about to begin, from the first rows of its first micro-batch; those of an earlier part of the run
/// where its folder holds them.
pub(super) fn units(
    sft: &mut Sft,
    s: &SftSettings,
    out: &Path,
    stop: &AtomicBool,
    global: Global,
) -> Result<Vec<Decision>, Failure> {
    let earlier = out.join(FILE);
    if earlier.is_file() {
        let text = std::fs::read_to_string(&earlier)
            .map_err(|e| Failure::missing(format!("cannot read {}: {e}", earlier.display())))?;
        return serde_json::from_str(&text).map_err(|e| {
            Failure::missing(format!("{} is damaged ({e}): begin again in another folder", earlier.display()))
        });
    }
    let numerical = |e: anyhow::Error| Failure::new(Code::Numerical, e.context("measuring the partition"));
    // Products with the first layers cost as much as steps; a few hundred tokens say what there is to say.
    let rows = (TOKENS / s.tokens).clamp(1, s.batch);
    let batch = sft.batch(0, rows as usize).map_err(|e| numerical(e.into()))?;
    let samples = [Sample { rows: batch.live(), batch }];
    let layout = sft.model().layout().clone();
    let (objective, at) = sft.objective();
    let mut of = CurvatureOf::new(objective, at, &samples, Curvature::GaussNewton, Reduction::Mean)
        .map_err(|e| numerical(e.into()))?;
    let names = sampled(&layout);
    let mut told = |p: usize| {
        if p.is_multiple_of(PROBES / 4) {
            let tensors = counted(names.len() as u64, "tensor");
            global.note(&format!("measuring the curvature of {tensors}: {p} of {PROBES} products"));
        }
        !stop.load(Ordering::Relaxed)
    };
    let found = sharing(&mut of, &layout, &names, (PROBES, s.seed), &mut told).map_err(|e| match e {
        SpectrumError::Stopped => Failure::new(
            Code::Interrupted,
            anyhow::anyhow!(
                "interrupted while the partition was measured, before the first step: begin again"
            ),
        ),
        e => numerical(e.into()),
    })?;
    let decided = decide(&layout, found);
    global.note(&table(&decided).render());
    warn(
        "blocks by measured curvature trained a decoder worse than the preset's (rhumb show hessian/measured-partition)",
    );
    Ok(decided)
}

/// One rule for the tensors of each name, from the layers that were measured.
pub(crate) fn decide(layout: &Layout, found: Vec<Sharing>) -> Vec<Decision> {
    let mut kinds: BTreeMap<String, Vec<Sharing>> = BTreeMap::new();
    for s in found {
        kinds.entry(pattern(&s.tensor)).or_default().push(s);
    }
    // In the model's order.
    let mut names: Vec<String> = Vec::new();
    for b in layout.blocks() {
        let name = pattern(&b.name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let of = |(names, layers): (String, Vec<Sharing>)| {
        let heads: Option<Vec<Spread>> = layers.iter().map(|s| s.heads).collect();
        let mean = Sharing {
            tensor: names.clone(),
            mean: layers.iter().map(|s| s.mean).sum::<f64>() / layers.len() as f64,
            whole: mean_of(&layers.iter().map(|s| s.whole).collect::<Vec<_>>()),
            heads: heads.map(|h| mean_of(&h)),
        };
        let unit = match mean.cut(LIMIT) {
            Cut::Full | Cut::Tensor => Unit::Tensor,
            Cut::Head => Unit::Head,
            Cut::Row => Unit::Row,
        };
        Decision { rule: UnitRule { names, unit }, mean, layers }
    };
    names.into_iter().filter_map(|n| kinds.remove_entry(&n)).map(of).collect()
}

fn mean_of(spreads: &[Spread]) -> Spread {
    let n = spreads.len() as f64;
    Spread {
        cv2: spreads.iter().map(|s| s.cv2).sum::<f64>() / n,
        error: spreads.iter().map(|s| s.error.powi(2)).sum::<f64>().sqrt() / n,
    }
}

fn table(decided: &[Decision]) -> Table {
    let mut table = Table::new(["tensors", "variation of rows, squared", "inside heads", "blocks"]);
    let told = |s: Spread| format!("{} ± {}", number(s.cv2), number(s.error));
    for d in decided {
        let unit = match d.rule.unit {
            Unit::Tensor => "tensor",
            Unit::Head => "heads",
            Unit::Row => "rows",
            Unit::Element => "elements",
        };
        table.row([
            d.rule.names.clone(),
            told(d.mean.whole),
            d.mean.heads.map(told).unwrap_or_default(),
            unit.to_owned(),
        ]);
    }
    table
}
