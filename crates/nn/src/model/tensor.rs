use indexmap::IndexMap;

use super::weights::Tensors;

/// Weights by name, in the order of the file.
pub type TensorMap = IndexMap<String, TensorData>;

/// A weight: row-major values and their shape, slowest dimension first.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData {
    /// Slowest dimension first, as PyTorch prints it: `[out, in]` for a linear map.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

impl TensorData {
    /// A tensor of this shape; `None` when the number of values is another.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Option<Self> {
        (elements(&shape) == Some(data.len())).then_some(TensorData { shape, data })
    }

    /// The transpose of a matrix; other shapes come back as they are.
    pub fn transposed(self) -> Self {
        let [rows, cols] = self.shape[..] else { return self };
        let mut data = Vec::with_capacity(self.data.len());
        for c in 0..cols {
            data.extend((0..rows).map(|r| self.data[r * cols + c]));
        }
        TensorData { shape: vec![cols, rows], data }
    }
}

impl Tensors for TensorMap {
    fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.get(name).map(|t| (&t.shape[..], &t.data[..]))
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

/// The number of values of a shape, unless it overflows.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}
