use rhumb_core::EvalError;
use rhumb_linalg::rng::Rng;
use rhumb_nn::model::TokenBatch;

use crate::data::{DataError, Examples, PackedBatch, PackedRow};

/// Where the batches of a training come from.
///
/// A batch is a function of the settings and the step, so that a resumed run sees what an undisturbed one sees.
pub trait Source: Send {
    /// Rows `first .. first + rows` of an endless sequence of passes over the data.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn batch(&mut self, first: u64, rows: usize) -> Result<TokenBatch, EvalError>;

    /// Rows of one pass.
    fn rows(&self) -> usize;
}

/// The order of the rows, drawn anew for every pass.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    rows: usize,
    seed: u64,
    pass: u64,
    places: Vec<usize>,
}

impl Order {
    pub(crate) fn new(rows: usize, seed: u64) -> Self {
        Order { rows, seed, pass: u64::MAX, places: Vec::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The row at a place of the endless sequence.
    pub(crate) fn at(&mut self, i: u64) -> usize {
        let n = self.rows as u64;
        if i / n != self.pass {
            self.pass = i / n;
            self.places.clear();
            self.places.extend(0..self.rows);
            Rng::named(self.seed, &format!("order/{}", self.pass)).shuffle(&mut self.places);
        }
        self.places[(i % n) as usize]
    }
}

/// Packed conversations.
pub(super) struct Conversations {
    examples: Examples,
    rows: Vec<PackedRow>,
    len: usize,
    order: Order,
}

impl Conversations {
    pub(super) fn new(examples: Examples, len: usize, seed: u64) -> Result<Self, DataError> {
        let rows = examples.pack(len)?;
        let order = Order::new(rows.len(), seed);
        Ok(Conversations { examples, rows, len, order })
    }
}

impl Source for Conversations {
    fn batch(&mut self, first: u64, rows: usize) -> Result<TokenBatch, EvalError> {
        let (mut documents, mut picked) = (Vec::new(), Vec::with_capacity(rows));
        for i in first..first + rows as u64 {
            let row = &self.rows[self.order.at(i)];
            let from = documents.len();
            for &d in &row.examples {
                documents.push(self.examples.get(d).map_err(|e| EvalError::Unsupported(e.to_string()))?);
            }
            picked.push(PackedRow { examples: (from..documents.len()).collect(), used: row.used });
        }
        Ok(PackedBatch::new(&documents, &picked, self.len).into())
    }

    fn rows(&self) -> usize {
        self.order.rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_has_every_row_once_in_an_order_of_its_own() {
        let mut order = Order::new(50, 7);
        let passes: Vec<Vec<usize>> =
            (0..3).map(|p| (p * 50..(p + 1) * 50).map(|i| order.at(i)).collect()).collect();
        for pass in &passes {
            let mut sorted = pass.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        }
        assert_ne!(passes[0], passes[1]);
        assert_ne!(passes[1], passes[2]);
        let backwards: Vec<usize> = (0..150).rev().map(|i| Order::new(50, 7).at(i)).collect();
        assert_eq!(backwards.into_iter().rev().collect::<Vec<_>>(), passes.concat());
    }
}
