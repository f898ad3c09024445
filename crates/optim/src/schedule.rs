use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::OptimError;
use crate::config::{at_least_zero, setting};

/// The shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// A straight line down to `final_ratio`.
    Linear,
    /// Half a cosine down to `final_ratio`.
    #[default]
    Cosine,
    /// Stays at the peak, then a straight line down to `final_ratio` over the last `decay_fraction` of the steps.
    Wsd,
    /// `sqrt(w / k)` with the warm-up length `w` (at least 1), never below `final_ratio`.
    InverseSqrt,
}

/// Settings of a learning-rate schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The shape.
    pub kind: ScheduleKind,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Last learning rate divided by the peak.
    pub final_ratio: f64,
    /// Part of all steps in which `wsd` decays.
    pub decay_fraction: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        ScheduleConfig {
            kind: ScheduleKind::default(),
            warmup_steps: 0,
            final_ratio: 0.0,
            decay_fraction: 0.2,
        }
    }
}

impl ScheduleConfig {
    /// The schedule for a peak learning rate and a number of steps.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for a ratio outside `[0, 1]` or a warm-up longer than the run.
    pub fn build(&self, lr: f64, total_steps: u64) -> Result<Schedule, OptimError> {
        at_least_zero("lr", lr)?;
        if !(0.0..=1.0).contains(&self.final_ratio) {
            return setting("final_ratio", self.final_ratio, "a number from 0 to 1");
        }
        if !(0.0..=1.0).contains(&self.decay_fraction) {
            return setting("decay_fraction", self.decay_fraction, "a number from 0 to 1");
        }
        if self.warmup_steps > total_steps {
            return setting(
                "warmup_steps",
                self.warmup_steps as f64,
                "at most the number of steps of the run",
            );
        }
        Ok(Schedule { config: self.clone(), lr, total_steps })
    }
}

/// A learning rate for every step.
///
/// # Equation
/// With warm-up w, total T and k = 0 .. T-1: for k < w the rate is lr (k+1)/(w+1); afterwards
/// x = (k − w)/(T − w) and
/// linear 1 − x(1−r), cosine r + (1−r)(1 + cos πx)/2, where r is the final ratio that x = 1 would reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    lr: f64,
    total_steps: u64,
}

impl Schedule {
    /// The learning rate of step `k`, from 0. Beyond the last step it stays at the end of the curve.
    pub fn at(&self, k: u64) -> f64 {
        let (w, r) = (self.config.warmup_steps, self.config.final_ratio);
        if k < w {
            return self.lr * (k + 1) as f64 / (w + 1) as f64;
        }
        let span = self.total_steps.saturating_sub(w).max(1) as f64;
        let x = ((k - w) as f64 / span).min(1.0);
        self.lr
            * match self.config.kind {
                ScheduleKind::Constant => 1.0,
                ScheduleKind::Linear => 1.0 - x * (1.0 - r),
                ScheduleKind::Cosine => r + (1.0 - r) * 0.5 * (1.0 + (std::f64::consts::PI * x).cos()),
                ScheduleKind::Wsd => {
                    let decay = (self.config.decay_fraction * self.total_steps as f64).min(span);
                    let left = (self.total_steps.saturating_sub(k) as f64).min(decay);
                    if decay > 0.0 { r + (1.0 - r) * left / decay } else { 1.0 }
                }
                ScheduleKind::InverseSqrt => {
                    let w = w.max(1) as f64;
                    (w / (k as f64).max(w)).sqrt().max(r)
                }
            }
    }

    /// The peak.
    pub fn peak(&self) -> f64 {
        self.lr
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(kind: ScheduleKind, k: u64) -> f64 {
        let config = ScheduleConfig { kind, warmup_steps: 4, final_ratio: 0.1, decay_fraction: 0.4 };
        config.build(2.0, 24).unwrap().at(k)
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn warm_up_rises_in_equal_steps_and_never_starts_at_zero() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Cosine, ScheduleKind::Wsd] {
            for k in 0..4 {
                close(at(kind, k), 2.0 * (k + 1) as f64 / 5.0);
            }
            close(at(kind, 4), 2.0);
        }
    }

    #[test]
    fn each_shape_has_its_exact_values_in_the_middle_and_at_the_end() {
        close(at(ScheduleKind::Constant, 23), 2.0);
        close(at(ScheduleKind::Linear, 14), 2.0 * 0.55);
        close(at(ScheduleKind::Linear, 24), 0.2);
        close(at(ScheduleKind::Cosine, 14), 2.0 * 0.55);
        close(at(ScheduleKind::Cosine, 24), 0.2);
        close(at(ScheduleKind::Cosine, 1_000), 0.2);
        close(at(ScheduleKind::Wsd, 14), 2.0);
        close(at(ScheduleKind::Wsd, 24), 0.2);
        close(at(ScheduleKind::InverseSqrt, 16), 1.0);
        close(at(ScheduleKind::InverseSqrt, 4_000), 0.2);
    }

    #[test]
    fn settings_out_of_range_are_refused_with_their_key() {
        let bad = [
            ScheduleConfig { final_ratio: 1.5, ..ScheduleConfig::default() },
            ScheduleConfig { final_ratio: f64::NAN, ..ScheduleConfig::default() },
            ScheduleConfig { decay_fraction: -0.1, ..ScheduleConfig::default() },
            ScheduleConfig { warmup_steps: 11, ..ScheduleConfig::default() },
        ];
        for (c, key) in bad.iter().zip(["final_ratio", "final_ratio", "decay_fraction", "warmup_steps"]) {
            assert!(c.build(1.0, 10).unwrap_err().to_string().contains(key));
        }
        assert!(ScheduleConfig::default().build(-1.0, 10).is_err());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<ScheduleConfig>(r#"{"kind":"cosine","warmup":3}"#).is_err());
    }
}
