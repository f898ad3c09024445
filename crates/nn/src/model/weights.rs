use rhumb_core::{Block, Layout, Role};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;

use super::config::ModelError;
use super::decoder::Decoder;

/// Named tensors as a checkpoint holds them: shape and row-major values.
pub trait Tensors {
    /// The tensor of that name.
    fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])>;
    /// All names.
    fn names(&self) -> Vec<&str>;
}

/// GPT-2's checkpoints store these weights as (in, out).
fn transposed(name: &str) -> bool {
    ["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"]
        .iter()
        .any(|s| name.starts_with("h.") && name.ends_with(s))
}

/// Tensors that checkpoints carry and no model reads.
fn is_buffer(name: &str) -> bool {
    name.ends_with(".attn.bias")
        || name.ends_with(".attn.masked_bias")
        || name.ends_with("rotary_emb.inv_freq")
}

/// Copies a checkpoint into the flat vector of the model's own tensors.
///
/// # Errors
/// A missing tensor, a wrong shape, a tensor that the model does not know, values that are not finite; a
/// tied head that differs from the embedding.
pub fn load<T: Real>(model: &Decoder, from: &dyn Tensors) -> Result<Vec<T>, ModelError> {
    let layout = model.base_layout();
    let bad = |name: &str, what: String| Err(ModelError::Tensor { name: name.into(), what });
    let spellings = |name: &str| [name.to_string(), format!("transformer.{name}")];
    let mut found = Vec::with_capacity(layout.blocks().len());
    for b in layout.blocks() {
        let Some((shape, data)) = spellings(&b.name).iter().find_map(|n| from.tensor(n)) else {
            return bad(&b.name, "missing from the checkpoint: is config.json of the same model?".into());
        };
        let flip = transposed(&b.name);
        let want = stored_shape(b);
        if shape != want || data.len() != b.range.len() {
            return bad(&b.name, format!("shape {shape:?}, the configuration asks for {want:?}"));
        }
        found.push((b, data, flip));
    }
    // Only now, because a configuration may ask for more than any memory holds.
    let mut out = vec![T::ZERO; layout.len()];
    for (b, data, flip) in found {
        if let Some(i) = data.iter().position(|v| !v.is_finite()) {
            return bad(
                &b.name,
                format!("value {} at place {i} is not finite: the file is damaged", data[i]),
            );
        }
        let to = &mut out[b.range.clone()];
        if flip {
            let (rows, cols) = (b.shape[0], b.shape[1]);
            for r in 0..rows {
                for c in 0..cols {
                    to[r * cols + c] = T::of(f64::from(data[c * rows + r]));
                }
            }
        } else {
            to.iter_mut().zip(data).for_each(|(t, d)| *t = T::of(f64::from(*d)));
        }
    }
    for name in from.names() {
        let plain = name.strip_prefix("transformer.").unwrap_or(name);
        if layout.find(plain).is_some() || is_buffer(name) {
            continue;
        }
        if plain == "lm_head.weight" && model.config().tied {
            let embed = &layout.blocks()[0].name;
            let same = spellings(embed).iter().find_map(|n| from.tensor(n)).map(|e| e.1)
                == from.tensor(name).map(|h| h.1);
            if same {
                continue;
            }
            return bad(name, "differs from the embedding although tie_word_embeddings is true".into());
        }
        return bad(name, "this model does not know it: is config.json of the same model?".into());
    }
    Ok(out)
}

/// The model's tensors under their checkpoint names, for a file.
pub fn store<T: Real>(model: &Decoder, params: &[T]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let one = |b: &Block| (b.name.clone(), stored_shape(b), stored(b, params));
    model.base_layout().blocks().iter().map(one).collect()
}

/// The shape of one of the model's own tensors in a checkpoint.
pub fn stored_shape(block: &Block) -> Vec<usize> {
    if transposed(&block.name) { block.shape.iter().rev().copied().collect() } else { block.shape.clone() }
}

/// The values of one of the model's own tensors as a checkpoint holds them.
pub fn stored<T: Real>(block: &Block, params: &[T]) -> Vec<f32> {
    let data = &params[block.range.clone()];
    if !transposed(&block.name) {
        return data.iter().map(|v| v.f64() as f32).collect();
    }
    let (rows, cols) = (block.shape[0], block.shape[1]);
    (0..rows * cols).map(|i| data[(i % rows) * cols + i / rows].f64() as f32).collect()
}

/// Fresh parameters.
///
/// # Equation
/// Matrices normal with standard deviation `std`, those that end in the residual stream (attention output,
/// feed-forward down) divided by `sqrt(2 layers)` (Radford et al. 2019); norms 1, biases 0; the `A` factor
/// of an adapter uniform in `+-1/sqrt(in)`, `B` zero, so that an adapter starts as nothing (Hu et al. 2021).
pub fn init<T: Real>(layout: &Layout, layers: usize, std: f64, seed: u64) -> Vec<T> {
    let mut out = vec![T::ZERO; layout.len()];
    for b in layout.blocks() {
        let mut rng = Rng::named(seed, &b.name);
        let to = &mut out[b.range.clone()];
        let into_residual = b.role == Role::AttnOut
            || b.name.ends_with("down_proj.weight")
            || b.name.ends_with("mlp.c_proj.weight");
        match b.role {
            Role::Norm => to.fill(T::ONE),
            Role::Bias | Role::LoraB => {}
            Role::LoraA => {
                let bound = 1.0 / (b.shape[1] as f64).sqrt();
                to.iter_mut().for_each(|v| *v = T::of((2.0 * rng.uniform() - 1.0) * bound));
            }
            _ => {
                let s = if into_residual { std / (2.0 * layers as f64).sqrt() } else { std };
                to.iter_mut().for_each(|v| *v = T::of(rng.normal() * s));
            }
        }
    }
    out
}
