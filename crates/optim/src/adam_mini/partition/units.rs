//! Blocks of one's own choice, by name.

use rhumb_core::{Layout, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{Partition, equal, refuse, roles, whole};
use crate::OptimError;

/// What shares a second moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// The whole tensor.
    Tensor,
    /// A head, of queries, keys and values.
    Head,
    /// A row: an output neuron, a token, a filter.
    Row,
    /// Nothing: every scalar has its own.
    Element,
}

/// A unit for some tensors, in place of what the preset gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitRule {
    /// Whole names; `*` stands for any characters, `?` for one.
    pub names: String,
    /// Their blocks.
    pub unit: Unit,
}

impl Partition {
    /// Cuts the tensors that a rule names as it says; the first rule that names a tensor counts.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for a rule that names no tensor; [`OptimError::Partition`] for heads of a tensor without any.
    pub fn with_units(mut self, rules: &[UnitRule], layout: &Layout) -> Result<Self, OptimError> {
        let mut used = vec![false; rules.len()];
        for (plan, b) in self.tensors.iter_mut().zip(layout.blocks()) {
            let Some(i) = rules.iter().position(|r| WildMatch::new(&r.names).matches(&b.name)) else {
                continue;
            };
            used[i] = true;
            plan.cuts = match (rules[i].unit, b.role) {
                (Unit::Tensor, _) => whole(b),
                (Unit::Element, _) => equal(b, 1),
                (
                    Unit::Head,
                    Role::Query { head_dim } | Role::Key { head_dim } | Role::Value { head_dim },
                ) => roles::rows(b, head_dim)?,
                (Unit::Head, _) => {
                    return Err(refuse(b, "it has no heads to be cut by: take rows".to_owned()));
                }
                (Unit::Row, Role::Experts) if b.shape.len() >= 3 => {
                    equal(b, b.shape.last().copied().unwrap_or(1))
                }
                (Unit::Row, _) if b.shape.len() > 1 => roles::rows(b, 1)?,
                (Unit::Row, _) => return Err(refuse(b, "a vector has no rows: take element".to_owned())),
            };
        }
        if let Some(i) = used.iter().position(|u| !u) {
            return Err(OptimError::Setting {
                key: "units",
                value: format!("names = {:?}", rules[i].names),
                want: "no tensor is left for this rule: check the spelling, and put it before wider rules",
            });
        }
        if !rules.is_empty() {
            self.tag += " with own units";
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::Preset;

    fn layout() -> Layout {
        let mut l = Layout::new();
        l.push("0.q.weight", &[4, 3], Role::Query { head_dim: 2 });
        l.push("0.up.weight", &[5, 3], Role::Mlp);
        l.push("1.up.weight", &[5, 3], Role::Mlp);
        l.push("norm.weight", &[3], Role::Norm);
        l
    }

    fn cut(rules: &[(&str, Unit)]) -> Result<Vec<usize>, OptimError> {
        let rules: Vec<UnitRule> =
            rules.iter().map(|(n, unit)| UnitRule { names: (*n).to_owned(), unit: *unit }).collect();
        let partition = Partition::preset(Preset::Rhumb, &layout())?.with_units(&rules, &layout())?;
        Ok(partition.tensors().iter().map(super::super::TensorPlan::blocks).collect())
    }

    #[test]
    fn the_first_rule_that_names_a_tensor_cuts_it_and_the_rest_is_the_preset() {
        assert_eq!(cut(&[]).unwrap(), [2, 5, 5, 1]);
        assert_eq!(
            cut(&[("1.up.*", Unit::Element), ("*up*", Unit::Tensor), ("*q*", Unit::Row)]).unwrap(),
            [4, 1, 15, 1]
        );
        assert_eq!(cut(&[("*q*", Unit::Head), ("norm*", Unit::Element)]).unwrap(), [2, 5, 5, 3]);
    }

    #[test]
    fn rules_that_cannot_hold_are_errors_that_name_them() {
        for (names, unit, want) in [
            ("*up*", Unit::Head, "0.up.weight"),
            ("norm*", Unit::Row, "norm.weight"),
            ("down", Unit::Row, "down"),
        ] {
            let e = cut(&[(names, unit)]).unwrap_err().to_string();
            assert!(e.contains(want), "{e}");
        }
    }
}
