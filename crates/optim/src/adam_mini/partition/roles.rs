//! The preset `rhumb`: blocks by what a tensor does.

use rhumb_core::{Block, Role};

use super::{Cut, equal, refuse, whole};
use crate::OptimError;

pub(super) fn by_role(b: &Block) -> Result<Vec<Cut>, OptimError> {
    match b.role {
        Role::Bias => Ok(equal(b, 1)),
        Role::Query { head_dim } | Role::Key { head_dim } => rows(b, head_dim),
        Role::Qkv { head_dim, heads, kv_heads } => {
            let width = fused_width(b, head_dim, heads + 2 * kv_heads)?;
            Ok(fused(head_dim, width, &[(heads + kv_heads, kv_heads)]))
        }
        Role::QkvGrouped { head_dim, groups, queries } => {
            let width = fused_width(b, head_dim, groups * (queries + 2))?;
            Ok(fused(head_dim, width, &vec![(queries + 1, 1); groups]))
        }
        // One row of one expert is one output neuron.
        Role::Experts if b.shape.len() >= 3 => Ok(equal(b, b.shape.last().copied().unwrap_or(1))),
        Role::Embed
        | Role::Head
        | Role::Position
        | Role::Value { .. }
        | Role::AttnOut
        | Role::Mlp
        | Role::Experts
        | Role::Conv
        | Role::LoraA
        | Role::LoraB
            if b.shape.len() >= 2 =>
        {
            rows(b, 1)
        }
        _ => Ok(whole(b)),
    }
}

/// Elements of a row, if the tensor has `parts` times `head_dim` rows.
fn fused_width(b: &Block, head_dim: usize, parts: usize) -> Result<usize, OptimError> {
    let want = parts * head_dim;
    if b.shape.first() != Some(&want) || want == 0 {
        return Err(refuse(
            b,
            format!(
                "{parts} query, key and value heads of {head_dim} rows need {want} rows: correct its role"
            ),
        ));
    }
    Ok(b.range.len() / want)
}

/// Runs of heads, then of rows, for each pair of (query and key heads, value heads).
fn fused(head_dim: usize, width: usize, runs: &[(usize, usize)]) -> Vec<Cut> {
    let head = head_dim * width;
    runs.iter()
        .flat_map(|(heads, values)| {
            [Cut { elements: heads * head, block: head }, Cut { elements: values * head, block: width }]
        })
        .filter(|c| c.elements > 0)
        .collect()
}

pub(super) fn rows(b: &Block, per_block: usize) -> Result<Vec<Cut>, OptimError> {
    let rows = b.shape.first().copied().unwrap_or(0);
    if b.range.is_empty() {
        return Ok(Vec::new());
    }
    if per_block == 0 || rows % per_block != 0 {
        return Err(refuse(b, format!("its {rows} rows do not divide into heads of {per_block} rows")));
    }
    Ok(equal(b, b.range.len() / rows * per_block))
}
