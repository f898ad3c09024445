use std::sync::Mutex;

use rhumb_linalg::Real;

/// Keys and values of the tokens that one sequence has seen, per layer.
///
/// # Shapes
/// Per layer `keys, values [capacity, kv_heads head_dim]`, keys already rotated.
#[derive(Debug)]
pub struct KvCache<T> {
    layers: Mutex<Vec<(Vec<T>, Vec<T>)>>,
    past: usize,
    capacity: usize,
}

impl<T: Real> KvCache<T> {
    /// An empty cache for `capacity` tokens; `width` is `kv_heads * head_dim`.
    pub fn new(layers: usize, capacity: usize, width: usize) -> Self {
        let layer = || (vec![T::ZERO; capacity * width], vec![T::ZERO; capacity * width]);
        KvCache { layers: Mutex::new((0..layers).map(|_| layer()).collect()), past: 0, capacity }
    }

    /// Tokens held.
    pub fn past(&self) -> usize {
        self.past
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Declares that the sweep which just ran appended `n` tokens.
    pub fn advance(&mut self, n: usize) {
        self.past += n;
    }

    /// Forgets all but the first `n` tokens, to reuse a prompt for another answer.
    pub fn truncate(&mut self, n: usize) {
        self.past = self.past.min(n);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        layers.iter().map(|(k, v)| (k.len() + v.len()) * T::BYTES).sum()
    }

    pub(crate) fn with_layer(&self, layer: usize, f: impl FnOnce(usize, &mut [T], &mut [T])) {
        let mut layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((k, v)) = layers.get_mut(layer) {
            f(self.past, k, v);
        }
    }
}
