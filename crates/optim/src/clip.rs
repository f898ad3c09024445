use rhumb_linalg::Real;
use rhumb_linalg::par::{ParSlice, ParSliceMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::setting;
use crate::kernel::{PARALLEL_FROM, TASK, sum_sq, vectorised};
use crate::{OptimError, plain};

/// Limits of a gradient; without any it is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClipConfig {
    /// Largest size of an entry. Applied first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Largest Euclidean norm of the whole gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<f64>,
}

impl ClipConfig {
    /// Checks the limits.
    ///
    /// # Errors
    /// [`OptimError::Setting`] for a limit that is not a finite number above zero.
    pub fn validate(&self) -> Result<(), OptimError> {
        for (key, limit) in [("clip.value", self.value), ("clip.norm", self.norm)] {
            if let Some(limit) = limit.filter(|l| !(*l > 0.0 && l.is_finite())) {
                return setting(key, limit, "a finite number > 0, or leave it out");
            }
        }
        Ok(())
    }

    /// Applies the limits; returns the norm before.
    pub fn apply<T: Real>(&self, grad: &mut [T]) -> f64 {
        let before = global_norm(grad);
        if let Some(limit) = self.value {
            clip_value(grad, limit);
        }
        if let Some(limit) = self.norm {
            clip_global_norm(grad, limit);
        }
        before
    }
}

/// Brings every entry into `[-limit, limit]`, as `torch.nn.utils.clip_grad_value_`. NaN stays NaN.
pub fn clip_value<T: Real>(grad: &mut [T], limit: f64) {
    let (low, high) = (T::of(-limit), T::of(limit));
    plain::pieces(grad, |part| {
        for g in part {
            *g = if *g > high {
                high
            } else if *g < low {
                low
            } else {
                *g
            };
        }
    });
}

/// Euclidean norm of the whole gradient, summed in a fixed order. NaN or infinite when an entry is.
pub fn global_norm<T: Real>(grad: &[T]) -> f64 {
    let parts: Vec<f64> = if grad.len() < PARALLEL_FROM {
        grad.chunks(TASK).map(|g| vectorised(|| sum_sq(g))).collect()
    } else {
        grad.par_chunks(TASK).map_collect(|g| vectorised(|| sum_sq(g)))
    };
    parts.iter().sum::<f64>().sqrt()
}

/// Scales the gradient so that its norm is at most `max_norm`; returns the norm before.
///
/// # Equation
/// g ← g · min(1, max / (‖g‖ + 10⁻⁶)), PyTorch's form of Pascanu, Mikolov, Bengio, ICML 2013.
///
/// A norm that is not finite changes nothing: the caller looks at the returned value.
pub fn clip_global_norm<T: Real>(grad: &mut [T], max_norm: f64) -> f64 {
    let norm = global_norm(grad);
    let factor = max_norm / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        let factor = T::of(factor);
        let scale = |part: &mut [T]| part.iter_mut().for_each(|g| *g *= factor);
        if grad.len() < PARALLEL_FROM {
            scale(grad);
        } else {
            grad.par_chunks_mut(TASK).for_each(scale);
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_four_is_five_and_is_scaled_to_one() {
        let mut g = [3.0, 0.0, 4.0];
        let norm = clip_global_norm(&mut g, 1.0);
        assert!((norm - 5.0).abs() < 1e-15);
        // torch.nn.utils.clip_grad_norm_ in float64
        assert!((g[0] - 0.599_999_880_000_024).abs() < 1e-15 && (g[2] - 0.799_999_840_000_032).abs() < 1e-15);
    }

    #[test]
    fn entries_are_brought_into_the_limits_and_nan_stays() {
        let mut g = [3.0, -0.5, -4.0, f64::NAN, f64::INFINITY];
        clip_value(&mut g, 1.0);
        assert_eq!(g.map(f64::to_bits), [1.0, -0.5, -1.0, f64::NAN, 1.0].map(f64::to_bits));
    }

    #[test]
    fn by_value_comes_before_by_norm_and_the_norm_before_both_is_returned() {
        let clip = ClipConfig { value: Some(3.0), norm: Some(1.0) };
        let mut g = [3.0, 0.0, 40.0, 0.0];
        assert!((clip.apply(&mut g) - 1609.0_f64.sqrt()).abs() < 1e-12);
        let half = 0.5_f64.sqrt();
        assert!((g[0] - half).abs() < 1e-6 && (g[2] - half).abs() < 1e-6, "{g:?}");
        for (clip, key) in [
            (ClipConfig { norm: Some(0.0), ..ClipConfig::default() }, "clip.norm = 0"),
            (ClipConfig { value: Some(f64::NAN), ..ClipConfig::default() }, "clip.value = NaN"),
        ] {
            assert!(clip.validate().is_err_and(|e| e.to_string().contains(key)));
        }
        assert!(serde_json::from_str::<ClipConfig>(r#"{"max_norm": 1.0}"#).is_err());
    }

    #[test]
    fn a_small_gradient_is_left_alone_and_nan_is_handed_back() {
        let mut g = [0.3_f32, 0.4];
        clip_global_norm(&mut g, 1.0);
        assert_eq!(g.map(f32::to_bits), [0.3_f32, 0.4].map(f32::to_bits));
        let mut g = [f64::NAN, 1.0];
        assert!(clip_global_norm(&mut g, 1.0).is_nan());
        assert_eq!(g[1].to_bits(), 1f64.to_bits());
    }
}
