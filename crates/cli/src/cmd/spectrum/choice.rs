//! Which blocks are measured when nobody says.

use std::collections::BTreeSet;

use rhumb_core::{Block, Layout};
use rhumb_spectrum::{BlockAt, Cut, SpectrumError, blocks};

/// The blocks that were asked for; without patterns the matrices of the first, the middle and the last layer, and those
/// outside layers.
pub(super) fn chosen(layout: &Layout, cut: Cut, patterns: &[String]) -> Result<Vec<BlockAt>, SpectrumError> {
    if patterns.is_empty() { blocks(layout, cut, &sampled(layout)) } else { blocks(layout, cut, patterns) }
}

/// The matrices of the first, the middle and the last layer, and those outside layers.
pub(crate) fn sampled(layout: &Layout) -> Vec<String> {
    let layers: BTreeSet<usize> = layout.blocks().iter().filter_map(|b| layer(&b.name)).collect();
    let layers: Vec<usize> = layers.into_iter().collect();
    let sampled = [layers.first(), layers.get(layers.len() / 2), layers.last()];
    let taken = |b: &&Block| b.shape.len() > 1 && layer(&b.name).is_none_or(|l| sampled.contains(&Some(&l)));
    layout.blocks().iter().filter(taken).map(|b| b.name.clone()).collect()
}

/// The number of the layer in a tensor's name: its first part that is a number.
fn layer(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rhumb_core::Role;

    #[test]
    fn of_many_layers_three_are_sampled_and_vectors_are_left_out() {
        let mut l = Layout::new();
        l.push("embed.weight", &[5, 2], Role::Embed);
        for i in 0..6 {
            l.push(format!("layers.{i}.mlp.weight"), &[2, 2], Role::Mlp);
            l.push(format!("layers.{i}.norm.weight"), &[2], Role::Norm);
        }
        let names = |patterns: &[String]| -> Vec<String> {
            chosen(&l, Cut::Tensor, patterns).unwrap().into_iter().map(|b| b.name).collect()
        };
        assert_eq!(
            names(&[]),
            ["embed.weight", "layers.0.mlp.weight", "layers.3.mlp.weight", "layers.5.mlp.weight"]
        );
        assert_eq!(names(&["*.1.norm*".to_owned()]), ["layers.1.norm.weight"]);
    }
}
