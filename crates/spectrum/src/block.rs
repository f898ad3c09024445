//! Which parts of the parameter vector are looked at by themselves.

use std::ops::Range;

use rhumb_core::{Block, Layout, Role};
use serde::{Deserialize, Serialize};

use crate::SpectrumError;

/// A block of the curvature matrix: the same rows and columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAt {
    /// Name of the tensor, and of the part where it is one.
    pub name: String,
    /// Ascending, disjoint pieces of the parameter vector.
    pub pieces: Vec<Range<usize>>,
    /// What its tensor does.
    pub role: Role,
}

impl BlockAt {
    /// Parameters.
    pub fn dim(&self) -> usize {
        self.pieces.iter().map(Range::len).sum()
    }
}

/// How tensors are cut into blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// All chosen tensors together are one block.
    Full,
    /// A block for each tensor: the partition of the paper.
    #[default]
    Tensor,
    /// A block for each head of queries, keys and values; other tensors stay whole.
    Head,
    /// A block for each row of the first dimension: an output neuron, a token, a filter.
    Row,
}

/// All parameters as one block.
pub fn whole(layout: &Layout) -> BlockAt {
    let all = 0..layout.len();
    BlockAt { name: "all".to_owned(), pieces: vec![all], role: Role::Other }
}

/// The blocks of the tensors whose names match one of the patterns, in the order of the layout; without patterns, of
/// all tensors. A `*` stands for any text.
///
/// # Errors
/// [`SpectrumError::Pattern`] for a pattern that no tensor matches.
pub fn blocks(layout: &Layout, cut: Cut, patterns: &[String]) -> Result<Vec<BlockAt>, SpectrumError> {
    named(layout, patterns)?;
    let chosen = |b: &&Block| patterns.is_empty() || patterns.iter().any(|p| matches(p, &b.name));
    let tensors = layout.blocks().iter().filter(|b| !b.range.is_empty()).filter(chosen);
    Ok(match cut {
        Cut::Full => {
            let pieces = joined(tensors.map(|b| b.range.clone()));
            let name = if patterns.is_empty() { "all".to_owned() } else { patterns.join(",") };
            vec![BlockAt { name, pieces, role: Role::Other }]
        }
        Cut::Tensor => tensors.map(tensor).collect(),
        Cut::Head => tensors.flat_map(|b| rows_of(b, "head", head_rows(b))).collect(),
        Cut::Row => tensors.flat_map(|b| rows_of(b, "row", (b.shape.len() > 1).then_some(1))).collect(),
    })
}

/// One block of all tensors whose names match one of the patterns.
///
/// # Errors
/// [`SpectrumError::Pattern`] for a pattern that no tensor matches; [`SpectrumError::Setting`] without patterns.
pub fn group(layout: &Layout, name: &str, patterns: &[String]) -> Result<BlockAt, SpectrumError> {
    if patterns.is_empty() {
        return Err(SpectrumError::Setting(format!("group {name} has no pattern: name tensors")));
    }
    let mut all = blocks(layout, Cut::Full, patterns)?.remove(0);
    name.clone_into(&mut all.name);
    Ok(all)
}

/// Every pattern names a tensor.
fn named(layout: &Layout, patterns: &[String]) -> Result<(), SpectrumError> {
    for p in patterns {
        if !layout.blocks().iter().any(|b| matches(p, &b.name)) {
            let names: Vec<&str> = layout.blocks().iter().take(4).map(|b| b.name.as_str()).collect();
            let rest = layout.blocks().len().saturating_sub(names.len());
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            return Err(SpectrumError::Pattern { pattern: p.clone(), some: names.join(", ") + &more });
        }
    }
    Ok(())
}

fn tensor(b: &Block) -> BlockAt {
    BlockAt { name: b.name.clone(), pieces: vec![b.range.clone()], role: b.role }
}

fn head_rows(b: &Block) -> Option<usize> {
    match b.role {
        Role::Query { head_dim } | Role::Key { head_dim } | Role::Value { head_dim } => Some(head_dim),
        _ => None,
    }
}

/// A block for every `rows` rows; the whole tensor without a number.
fn rows_of(b: &Block, what: &str, rows: Option<usize>) -> Vec<BlockAt> {
    let (Some(rows), Some(&n)) = (rows, b.shape.first()) else { return vec![tensor(b)] };
    let len = b.range.len() / n.max(1) * rows;
    if len == 0 || !b.range.len().is_multiple_of(len) {
        return vec![tensor(b)];
    }
    (0..b.range.len() / len)
        .map(|i| {
            let start = b.range.start + i * len;
            let piece = start..start + len;
            BlockAt { name: format!("{}[{what} {i}]", b.name), pieces: vec![piece], role: b.role }
        })
        .collect()
}

/// Neighbours as one piece.
fn joined(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for r in ranges {
        match out.last_mut() {
            Some(last) if last.end == r.start => last.end = r.end,
            _ => out.push(r),
        }
    }
    out
}

/// Whether a name is the pattern, `*` standing for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    (0..=rest.len()).any(|i| rest.is_char_boundary(i) && matches(tail, &rest[i..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn layout() -> Layout {
        let mut l = Layout::new();
        l.push("0.q_proj.weight", &[4, 3], Role::Query { head_dim: 2 });
        l.push("0.mlp.weight", &[2, 3], Role::Mlp);
        l.push("0.norm.weight", &[3], Role::Norm);
        l
    }

    fn names(cut: Cut, patterns: &[&str]) -> Vec<(String, Vec<Range<usize>>)> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        blocks(&layout(), cut, &patterns).unwrap().into_iter().map(|b| (b.name, b.pieces)).collect()
    }

    #[test]
    fn tensors_are_cut_as_asked() {
        let one = |n: &str, r: Range<usize>| (n.to_owned(), vec![r]);
        assert_eq!(names(Cut::Full, &[]), [one("all", 0..21)]);
        assert_eq!(
            names(Cut::Full, &["*q_proj*", "*norm*"]),
            [("*q_proj*,*norm*".to_owned(), vec![0..12, 18..21])]
        );
        assert_eq!(
            names(Cut::Head, &[]),
            [
                one("0.q_proj.weight[head 0]", 0..6),
                one("0.q_proj.weight[head 1]", 6..12),
                one("0.mlp.weight", 12..18),
                one("0.norm.weight", 18..21),
            ]
        );
        assert_eq!(
            names(Cut::Row, &["0.m*", "0.norm.weight"]),
            [
                one("0.mlp.weight[row 0]", 12..15),
                one("0.mlp.weight[row 1]", 15..18),
                one("0.norm.weight", 18..21),
            ]
        );
        assert_eq!(names(Cut::Tensor, &["*.weight"]).len(), 3);
        let pair = ["*norm*".to_owned(), "*q_proj*".to_owned()];
        let group = group(&layout(), "mine", &pair).unwrap();
        assert_eq!((group.name.as_str(), group.pieces), ("mine", vec![0..12, 18..21]));
        assert!(super::group(&layout(), "none", &[]).is_err());
    }

    #[test]
    fn a_pattern_without_a_tensor_is_refused_with_names() {
        let e = blocks(&layout(), Cut::Tensor, &["*k_proj*".to_owned()]).unwrap_err().to_string();
        assert!(e.contains("*k_proj*") && e.contains("0.q_proj.weight"), "{e}");
    }

    #[test]
    fn a_star_is_any_text_and_nothing_else_is_special() {
        for (p, n, want) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*", "", true),
            ("a.c", "abc", false),
            ("*b*b*", "abcb", true),
            ("*ö", "xö", true),
        ] {
            assert_eq!(matches(p, n), want, "{p} {n}");
        }
    }
}
