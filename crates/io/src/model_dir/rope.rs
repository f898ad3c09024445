//! Llama 3's stretched rotary frequencies, which GGUF holds as a tensor of divisors.

use serde_json::{Value, json};

use crate::TensorData;
use rhumb_nn::model::RopeConfig;

/// The tensor's name.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
/// The metadata key, after the architecture, of a context that is not [`CONTEXT`].
pub(super) const ORIGINAL: &str = "rope.scaling.original_context_length";

/// The parameters that every published Llama 3 has; GGUF does not store the first two.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
pub(super) const CONTEXT: f64 = 8192.0;

fn divisors(rope: &RopeConfig, head_dim: usize) -> TensorData {
    let data: Vec<f32> = rope.divisors(head_dim).into_iter().map(|d| d as f32).collect();
    TensorData { shape: vec![data.len()], data }
}

/// The divisors of stretched frequencies, or why a file of them could not be read again.
pub(super) fn tensor(rope: &RopeConfig, head_dim: usize) -> Result<Option<TensorData>, String> {
    let Some([_, low, high, context]) = rope.llama3 else { return Ok(None) };
    if (low, high) != (LOW, HIGH) || context.fract() != 0.0 {
        return Err(format!(
            "has low_freq_factor {low}, high_freq_factor {high} and original_max_position_embeddings {context}: GGUF \
             holds only {LOW}, {HIGH} and a whole number; export as a folder instead"
        ));
    }
    Ok(Some(divisors(rope, head_dim)))
}

/// The `rope_scaling` that gives these divisors; `None` when no published Llama 3 has them.
pub(super) fn to_config(t: &TensorData, head_dim: usize, theta: f64, context: f64) -> Option<Value> {
    let factor = t.data.iter().copied().fold(1.0f32, f32::max);
    let llama3 = Some([factor.into(), LOW, HIGH, context]);
    let expected = divisors(&RopeConfig { theta, llama3 }, head_dim).data;
    let same = expected.len() == t.data.len()
        && expected.iter().zip(&t.data).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs());
    same.then(|| {
        json!({
            "rope_type": "llama3",
            "factor": f64::from(factor),
            "low_freq_factor": LOW,
            "high_freq_factor": HIGH,
            "original_max_position_embeddings": context as u64,
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
        let rope = RopeConfig { theta: 500_000.0, llama3: Some([32.0, LOW, HIGH, CONTEXT]) };
        let t = tensor(&rope, 64).unwrap().unwrap();
        assert_eq!((t.data[0], t.data[31]), (1.0, 32.0));
        assert_eq!(to_config(&t, 64, 500_000.0, CONTEXT), Some(scaling));
        assert_eq!(to_config(&t, 64, 10_000.0, CONTEXT), None);
        assert_eq!(to_config(&t, 64, 500_000.0, 4096.0), None);
    }

    #[test]
    fn parameters_that_gguf_cannot_hold_are_refused_with_their_values() {
        let rope = RopeConfig { theta: 1e4, llama3: Some([8.0, 2.0, 4.0, 8192.0]) };
        let e = tensor(&rope, 64).unwrap_err();
        assert!(e.contains("low_freq_factor 2"), "{e}");
        assert_eq!(tensor(&RopeConfig { theta: 1e4, llama3: None }, 64), Ok(None));
    }
}
