//! One optimizer of a comparison, and what of it is searched for.

use rhumb_core::{Layout, Role};
use rhumb_linalg::rng::Rng;
use rhumb_optim::{GroupConfig, Kind, OptimizerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::table::number;

/// An optimizer that takes part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arm {
    /// Name in tables, metrics and folders.
    pub(crate) name: String,
    /// Its settings; `lr` is set from the list.
    #[serde(default)]
    pub(crate) optimizer: OptimizerConfig,
    /// Learning rates to choose from; without them those of the experiment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lrs: Vec<f64>,
    /// Some matrices leave the optimizer and get one learning rate each run instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leave_out: Option<LeaveOut>,
}

/// Matrices that are updated by momentum and a single learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaveOut {
    /// How many; every seed draws its own, and a smaller draw is the beginning of a larger one.
    pub(crate) tensors: usize,
    /// Their learning rates to choose from, divided by the optimizer's. Every seed chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ratios: Vec<f64>,
    /// Momentum.
    #[serde(default = "momentum")]
    pub(crate) momentum: f64,
    /// They are not updated at all: what a rate of their own is worth.
    #[serde(default)]
    pub(crate) frozen: bool,
}

fn momentum() -> f64 {
    0.9
}

/// One setting of an arm.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Number among the candidates of its arm.
    pub(super) place: usize,
    pub(super) optimizer: OptimizerConfig,
    /// Learning rate of the matrices left out, divided by the optimizer's.
    pub(super) ratio: f64,
    /// Names of those matrices.
    pub(super) out: Vec<String>,
}

impl Candidate {
    /// The rates, as a part of a folder's name.
    pub(super) fn label(&self) -> String {
        let lr = number(self.optimizer.lr);
        if self.out.is_empty() { lr } else { format!("{lr}x{}", number(self.ratio)) }
    }
}

impl Arm {
    pub(super) fn check(&self, lrs: &[f64]) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return Err(
                "a name is made of letters, digits, -, _ and . and does not begin with one".to_owned()
            );
        }
        let lrs = if self.lrs.is_empty() { lrs } else { &self.lrs };
        let ratios = self.leave_out.as_ref().map_or(&[][..], |l| &l.ratios);
        if self.leave_out.as_ref().is_some_and(|l| l.frozen != l.ratios.is_empty()) {
            return Err("leave_out: give ratios, or frozen = true without them".to_owned());
        }
        if lrs.is_empty() {
            return Err("give at least one learning rate".to_owned());
        }
        match lrs.iter().chain(ratios).find(|v| !(v.is_finite() && **v > 0.0)) {
            Some(v) => Err(format!("{v} is no learning rate: it has to be a number above 0")),
            None => self.optimizer.validate().map_err(|e| e.to_string()),
        }
    }

    /// Whether every seed has an arm of its own.
    pub(super) fn is_drawn(&self) -> bool {
        self.leave_out.is_some()
    }

    /// Every setting that is tried.
    pub(super) fn candidates(&self, lrs: &[f64], layout: &Layout, seed: u64) -> Vec<Candidate> {
        let lrs = if self.lrs.is_empty() { lrs } else { &self.lrs };
        let out = self.leave_out.as_ref().map_or_else(Vec::new, |l| draw(layout, l.tensors, seed));
        let ratios = self.leave_out.as_ref().map_or(&[][..], |l| &l.ratios);
        let ratios = if ratios.is_empty() { &[1.0] } else { ratios };
        let pairs = lrs.iter().flat_map(|lr| ratios.iter().map(move |ratio| (*lr, *ratio)));
        pairs
            .enumerate()
            .map(|(place, (lr, ratio))| {
                let mut optimizer = OptimizerConfig { lr, ..self.optimizer.clone() };
                if let Some(l) = &self.leave_out {
                    let names = GroupConfig { names: out.clone(), ..GroupConfig::default() };
                    let group = if l.frozen {
                        GroupConfig { frozen: true, ..names }
                    } else {
                        let (kind, momentum) = (Some(Kind::Sgd), Some(l.momentum));
                        GroupConfig { kind, momentum, lr_ratio: ratio, ..names }
                    };
                    optimizer.groups.insert(0, group);
                }
                Candidate { place, optimizer, ratio, out: out.clone() }
            })
            .collect()
    }
}

/// Names of that many matrices of the layers, or of all of them.
fn draw(layout: &Layout, tensors: usize, seed: u64) -> Vec<String> {
    let outside = |role| matches!(role, Role::Embed | Role::Head | Role::Position | Role::Norm | Role::Bias);
    let mut names: Vec<String> =
        layout.blocks().iter().filter(|b| !outside(b.role)).map(|b| b.name.clone()).collect();
    Rng::named(seed, "leave-out").shuffle(&mut names);
    names.truncate(tensors);
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn layout() -> Layout {
        let mut l = Layout::new();
        l.push("embed", &[8, 4], Role::Embed);
        for i in 0..6 {
            l.push(format!("{i}.mlp"), &[4, 4], Role::Mlp);
        }
        l.push("norm", &[4], Role::Norm);
        l
    }

    fn arm(leave_out: Option<LeaveOut>) -> Arm {
        Arm { name: "a".into(), leave_out, ..Arm::default() }
    }

    #[test]
    fn rates_of_the_experiment_hold_where_the_arm_has_none() {
        let of = |a: &Arm| {
            a.candidates(&[0.1, 0.2], &layout(), 0).iter().map(|c| c.optimizer.lr).collect::<Vec<_>>()
        };
        assert_eq!(of(&arm(None)), [0.1, 0.2]);
        assert_eq!(of(&Arm { lrs: vec![3.0], ..arm(None) }), [3.0]);
    }

    #[test]
    fn matrices_that_are_left_out_are_those_of_the_seed_and_smaller_draws_are_parts_of_larger_ones() {
        let of = |tensors, seed| {
            let ratios = vec![1.0, 10.0];
            let a = arm(Some(LeaveOut { tensors, ratios, momentum: 0.9, frozen: false }));
            a.candidates(&[0.1], &layout(), seed)
        };
        let (two, three) = (of(2, 0), of(3, 0));
        assert_eq!(two.len(), 2);
        assert_eq!(three[0].out[..2], two[0].out[..]);
        assert!(three[0].out.iter().all(|n| n.ends_with("mlp")));
        assert!((1..20).any(|s| of(2, s)[0].out != two[0].out));
        assert!((two[1].optimizer.groups[0].lr_ratio - 10.0).abs() < 1e-12);
        assert_eq!(two[1].label(), "0.1x10");
        assert!(two[0].optimizer.build::<f32>(&layout()).is_ok());
        let frozen = LeaveOut { tensors: 2, ratios: vec![], momentum: 0.9, frozen: true };
        let frozen = arm(Some(frozen)).candidates(&[0.1], &layout(), 0);
        assert_eq!((frozen.len(), &frozen[0].out), (1, &two[0].out));
        assert!(frozen[0].optimizer.groups[0].frozen);
    }

    #[test]
    fn what_cannot_be_tried_is_refused() {
        assert!(arm(None).check(&[]).unwrap_err().contains("at least one learning rate"));
        assert!(arm(None).check(&[0.0]).unwrap_err().contains("0 is no learning rate"));
        assert!(
            Arm { name: "../a".into(), ..arm(None) }.check(&[1.0]).unwrap_err().contains("a name is made")
        );
        for (ratios, frozen) in [(vec![], false), (vec![1.0], true)] {
            let none = LeaveOut { tensors: 1, ratios, momentum: 0.9, frozen };
            assert!(arm(Some(none)).check(&[1.0]).unwrap_err().contains("give ratios"));
        }
        assert!(arm(None).check(&[1.0]).is_ok());
    }
}
