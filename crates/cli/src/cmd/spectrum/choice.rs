//! Which blocks are measured when nobody says.

use std::collections::BTreeSet;

use rhumb_core::{Block, Layout};
use rhumb_spectrum::{BlockAt, Cut, SpectrumError, blocks, group};
use serde::Serialize;

/// The blocks that were asked for; without patterns the matrices of the first, the middle and the last layer, and those
/// outside layers.
pub(super) fn chosen(
    layout: &Layout,
    cut: Cut,
    patterns: &[String],
    groups: &[Group],
) -> Result<Vec<BlockAt>, SpectrumError> {
    let mut all = match (patterns, groups) {
        ([], []) => blocks(layout, cut, &sampled(layout))?,
        ([], _) => Vec::new(),
        _ => blocks(layout, cut, patterns)?,
    };
    for g in groups {
        if all.iter().any(|b| b.name == g.name) {
            return Err(SpectrumError::Setting(format!(
                "two blocks are called {}: rename the group",
                g.name
            )));
        }
        all.push(group(layout, &g.name, &g.patterns)?);
    }
    Ok(all)
}

/// Tensors that are one block together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    name: String,
    patterns: Vec<String>,
}

/// `NAME=PATTERN,..`
pub(super) fn as_group(text: &str) -> Result<Group, String> {
    let wrong = || "write it as NAME=PATTERN, further patterns behind commas".to_owned();
    let (name, patterns) = text.split_once('=').ok_or_else(wrong)?;
    let patterns: Vec<String> = patterns.split(',').map(|p| p.trim().to_owned()).collect();
    if name.trim().is_empty() || patterns.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(Group { name: name.trim().to_owned(), patterns })
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
            chosen(&l, Cut::Tensor, patterns, &[]).unwrap().into_iter().map(|b| b.name).collect()
        };
        assert_eq!(
            names(&[]),
            ["embed.weight", "layers.0.mlp.weight", "layers.3.mlp.weight", "layers.5.mlp.weight"]
        );
        assert_eq!(names(&["*.1.norm*".to_owned()]), ["layers.1.norm.weight"]);
        let norms = as_group("norms = *.0.norm*, *.5.norm*").unwrap();
        let found = chosen(&l, Cut::Tensor, &[], std::slice::from_ref(&norms)).unwrap();
        assert_eq!((found.len(), found[0].name.as_str(), found[0].dim()), (1, "norms", 4));
        assert_eq!(
            chosen(&l, Cut::Tensor, &["embed*".to_owned()], std::slice::from_ref(&norms)).unwrap().len(),
            2
        );
        assert!(
            chosen(&l, Cut::Tensor, &[], &[norms.clone(), norms]).unwrap_err().to_string().contains("norms")
        );
        for wrong in ["norms", "=*", "a=", "a=b,,c"] {
            assert!(as_group(wrong).is_err(), "{wrong}");
        }
    }
}
