use std::sync::Mutex;

use rhumb_linalg::Real;

/// Keys and values of the tokens that one sequence has seen, per layer, and of the branches that go on from it.
///
/// # Shapes
/// Per layer `keys, values [capacity, kv_heads head_dim]`, keys already rotated; with branches, per layer
/// `[branches, room, kv_heads head_dim]` more. The common beginning is held once.
#[derive(Debug)]
pub struct KvCache<T> {
    layers: Mutex<Vec<Layer<T>>>,
    past: usize,
    capacity: usize,
    width: usize,
    branches: Option<Grown>,
}

#[derive(Debug)]
struct Layer<T> {
    keys: Vec<T>,
    values: Vec<T>,
    own_keys: Vec<T>,
    own_values: Vec<T>,
}

/// Size of the branches.
#[derive(Clone, Copy, Debug)]
struct Grown {
    rows: usize,
    room: usize,
    tokens: usize,
}

/// One layer of a cache.
pub(crate) struct LayerCache<'a, T> {
    /// Tokens of the common beginning.
    pub(crate) past: usize,
    pub(crate) keys: &'a mut [T],
    pub(crate) values: &'a mut [T],
    /// Present while branches grow.
    pub(crate) own: Option<Own<'a, T>>,
}

/// What the branches have beyond the common beginning.
pub(crate) struct Own<'a, T> {
    /// Tokens that fit in a branch.
    pub(crate) room: usize,
    /// Tokens that every branch has.
    pub(crate) tokens: usize,
    pub(crate) keys: &'a mut [T],
    pub(crate) values: &'a mut [T],
}

impl<T: Real> KvCache<T> {
    /// An empty cache for `capacity` tokens; `width` is `kv_heads * head_dim`.
    pub fn new(layers: usize, capacity: usize, width: usize) -> Self {
        let layer = || Layer {
            keys: vec![T::ZERO; capacity * width],
            values: vec![T::ZERO; capacity * width],
            own_keys: Vec::new(),
            own_values: Vec::new(),
        };
        let layers = Mutex::new((0..layers).map(|_| layer()).collect());
        KvCache { layers, past: 0, capacity, width, branches: None }
    }

    /// Tokens held, those of a branch included.
    pub fn past(&self) -> usize {
        self.past + self.branches.map_or(0, |b| b.tokens)
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Declares that the sweep which just ran appended `n` tokens, to every branch where there are branches.
    pub fn advance(&mut self, n: usize) {
        match &mut self.branches {
            Some(b) => b.tokens += n,
            None => self.past += n,
        }
    }

    /// Forgets the branches and all but the first `n` tokens, to reuse a prompt for another answer.
    pub fn truncate(&mut self, n: usize) {
        self.join();
        self.past = self.past.min(n);
    }

    /// Lets `rows` branches of at most `room` tokens go on from here.
    pub(crate) fn branch(&mut self, rows: usize, room: usize) {
        let room = room.min(self.capacity - self.past);
        self.branches = Some(Grown { rows, room, tokens: 0 });
        let n = rows * room * self.width;
        self.each_layer(|l| {
            l.own_keys.resize(n, T::ZERO);
            l.own_values.resize(n, T::ZERO);
        });
    }

    /// Whether the branches have no room for another token.
    pub(crate) fn is_full(&self) -> bool {
        self.branches.is_some_and(|b| b.tokens == b.room)
    }

    /// Drops all branches but those, in ascending order.
    pub(crate) fn keep(&mut self, rows: &[usize]) {
        let Some(b) = &mut self.branches else { return };
        b.rows = rows.len();
        let (len, used) = (b.room * self.width, b.tokens * self.width);
        self.each_layer(|l| {
            for (to, &from) in rows.iter().enumerate() {
                l.own_keys.copy_within(from * len..from * len + used, to * len);
                l.own_values.copy_within(from * len..from * len + used, to * len);
            }
        });
    }

    /// Forgets the branches.
    pub(crate) fn join(&mut self) {
        self.branches = None;
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let numbers = |l: &Layer<T>| 2 * (l.keys.len() + l.own_keys.len());
        layers.iter().map(numbers).sum::<usize>() * T::BYTES
    }

    fn each_layer(&mut self, f: impl FnMut(&mut Layer<T>)) {
        self.layers.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).iter_mut().for_each(f);
    }

    pub(crate) fn with_layer(&self, layer: usize, f: impl FnOnce(LayerCache<'_, T>)) {
        let mut layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(Layer { keys, values, own_keys, own_values }) = layers.get_mut(layer) {
            let own = self.branches.map(|b| Own {
                room: b.room,
                tokens: b.tokens,
                keys: own_keys,
                values: own_values,
            });
            f(LayerCache { past: self.past, keys, values, own });
        }
    }
}
