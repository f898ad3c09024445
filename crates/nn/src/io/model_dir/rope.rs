//! Llama 3's stretched rotary frequencies, which GGUF holds as a tensor of divisors.

use serde_json::{Value, json};

use crate::io::TensorData;

/// The tensor's name.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// The parameters that every published Llama 3 has; GGUF does not store them.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const CONTEXT: f64 = 8192.0;

/// Divisors of the `head_dim / 2` rotary frequencies.
///
/// # Equation
/// With wavelength w = 2 pi theta^(2i/hd) and s = clamp((C/w - low) / (high - low), 0, 1), the divisor is
/// 1 / ((1 - s) / factor + s).
pub(super) fn divisors(head_dim: usize, theta: f64, [factor, low, high, context]: [f64; 4]) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|i| {
            let wave = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / head_dim as f64);
            let s = ((context / wave - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - s) / factor + s)) as f32
        })
        .collect()
}

/// The divisors that `rope_scaling` of a `config.json` asks for, or why they cannot be made.
pub(super) fn from_config(scaling: &Value, head_dim: usize, theta: f64) -> Result<TensorData, String> {
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
    if kind != Some("llama3") {
        return Err(format!("{kind:?} cannot be exported: only \"llama3\" can; remove it if it is not used"));
    }
    let real = |key: &str, default| scaling.get(key).and_then(Value::as_f64).unwrap_or(default);
    let p = [
        real("factor", 8.0),
        real("low_freq_factor", LOW),
        real("high_freq_factor", HIGH),
        real("original_max_position_embeddings", CONTEXT),
    ];
    let data = divisors(head_dim, theta, p);
    Ok(TensorData { shape: vec![data.len()], data })
}

/// The `rope_scaling` that gives these divisors; `None` when no published Llama 3 has them.
pub(super) fn to_config(t: &TensorData, head_dim: usize, theta: f64) -> Option<Value> {
    let factor = t.data.iter().copied().fold(1.0f32, f32::max);
    let expected = divisors(head_dim, theta, [factor.into(), LOW, HIGH, CONTEXT]);
    let same = expected.len() == t.data.len()
        && expected.iter().zip(&t.data).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs());
    same.then(|| {
        json!({
            "rope_type": "llama3",
            "factor": f64::from(factor),
            "low_freq_factor": LOW,
            "high_freq_factor": HIGH,
            "original_max_position_embeddings": CONTEXT as u64,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3_divisors_go_there_and_back() {
        let scaling = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let t = from_config(&scaling, 64, 500_000.0).unwrap();
        assert_eq!((t.data[0], t.data[31]), (1.0, 32.0));
        assert_eq!(to_config(&t, 64, 500_000.0), Some(scaling));
        assert_eq!(to_config(&t, 64, 10_000.0), None);
    }

    #[test]
    fn another_scaling_is_refused_by_name() {
        let e = from_config(&json!({"type": "yarn", "factor": 4.0}), 64, 1e4).unwrap_err();
        assert!(e.contains("yarn"), "{e}");
    }
}
