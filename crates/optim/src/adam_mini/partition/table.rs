//! The table that shows how a model is cut, before it is trained.

use rhumb_core::{Block, Layout, Role};
use serde::Serialize;

use super::{Cut, Finding, NameOptions, Partition, Preset};
use crate::OptimError;

/// One line of the table that shows how a model is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParamRow {
    /// Tensor.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What a block is, in words.
    pub class: String,
    /// Second moments.
    pub blocks: usize,
    /// Bytes of optimizer state in `f32`: 4 (elements + blocks).
    pub bytes: usize,
    /// Whether weight decay acts on it.
    pub decay: bool,
    /// What a strict run would refuse.
    pub warnings: Vec<String>,
}

/// How a preset cuts a layout, tensor by tensor. The bytes add up to 4 (P + blocks).
///
/// # Errors
/// As [`Partition::preset`].
pub fn param_table(layout: &Layout, preset: Preset) -> Result<Vec<ParamRow>, OptimError> {
    param_table_with(layout, preset, &NameOptions::default())
}

/// As [`param_table`], with options of one's own.
///
/// # Errors
/// As [`Partition::with`].
pub fn param_table_with(
    layout: &Layout,
    preset: Preset,
    options: &NameOptions,
) -> Result<Vec<ParamRow>, OptimError> {
    let partition = Partition::with(preset, options, layout)?;
    let findings = Partition::audit(preset, options, layout)?;
    Ok(param_table_of(layout, &partition, &findings))
}

/// The table of a partition of one's own, with what was found about its tensors.
pub fn param_table_of(layout: &Layout, partition: &Partition, findings: &[Finding]) -> Vec<ParamRow> {
    layout
        .blocks()
        .iter()
        .zip(partition.tensors())
        .map(|(b, plan)| ParamRow {
            name: b.name.clone(),
            shape: b.shape.clone(),
            class: words(b, &plan.cuts),
            blocks: plan.blocks(),
            bytes: 4 * (b.range.len() + plan.blocks()),
            decay: plan.decay,
            warnings: findings.iter().filter(|f| f.name == b.name).map(|f| f.what.clone()).collect(),
        })
        .collect()
}

fn words(b: &Block, cuts: &[Cut]) -> String {
    let mut out: Vec<String> = cuts.iter().map(|c| class(b, *c)).collect();
    let groups = out.len() / 2;
    // A fused tensor of many groups repeats the same pair.
    if groups > 1 && out.chunks(2).all(|c| c == &out[..2]) {
        out.truncate(2);
        return format!("{}, {groups} times", out.join(", then "));
    }
    out.join(", then ")
}

fn class(b: &Block, c: Cut) -> String {
    let width = b.range.len() / b.shape.first().copied().unwrap_or(1).max(1);
    if c.block == 1 {
        "per element".to_owned()
    } else if c.block == b.range.len() {
        "whole tensor".to_owned()
    } else if b.role == Role::Experts && Some(&c.block) == b.shape.last() {
        "per row of an expert".to_owned()
    } else if c.block == width {
        if b.role == Role::Conv { "per output channel" } else { "per row" }.to_owned()
    } else if c.block.is_multiple_of(width.max(1)) {
        format!("per {} rows", c.block / width.max(1))
    } else {
        format!("per {} elements, across rows", c.block)
    }
}
