//! The Hessian of the hidden weights, and how much of it lies inside blocks.

use rhumb_core::{EvalError, Objective, SecondOrder};
use rhumb_nn::model::{MlpBatch, MlpObjective};

/// The Hessian in the first weight matrix, `[n, n]` with the rows of neuron 0 first: one product with every unit vector.
pub(super) fn hidden_hessian(
    objective: &mut MlpObjective<f64>,
    params: &[f64],
    batch: &MlpBatch<f64>,
) -> Result<Vec<f64>, EvalError> {
    let range = objective.layout().blocks().first().map_or(0..0, |b| b.range.clone());
    let (mut unit, mut product) = (vec![0.0; params.len()], vec![0.0; params.len()]);
    let mut out = Vec::with_capacity(range.len() * range.len());
    for j in range.clone() {
        unit[j] = 1.0;
        objective.hvp(params, batch, &unit, &mut product)?;
        unit[j] = 0.0;
        out.extend_from_slice(&product[range.clone()]);
    }
    Ok(out)
}

/// Parts of the squared Frobenius norm of a symmetric matrix that is cut into `n / block` groups of as many rows and columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    /// Inside the diagonal blocks.
    pub(super) inside: f64,
    /// What groups of the same size hold on average when they are drawn at random.
    pub(super) random: f64,
    /// Inside the diagonal blocks, of everything beside the diagonal.
    pub(super) off_inside: f64,
}

impl Shares {
    /// # Equation
    /// `inside = sum_{g(i) = g(j)} H_ij^2 / sum H_ij^2`. The diagonal lies inside of any groups, and a pair of different
    /// rows falls into one random group with the chance `(block - 1) / (n - 1)`.
    pub(super) fn of(hessian: &[f64], n: usize, block: usize) -> Shares {
        let (mut diagonal, mut inside, mut all) = (0.0, 0.0, 0.0);
        for (at, h) in hessian.iter().enumerate() {
            let (i, j, square) = (at / n, at % n, h * h);
            all += square;
            if i == j {
                diagonal += square;
            } else if i / block == j / block {
                inside += square;
            }
        }
        let off = all - diagonal;
        let chance = (block as f64 - 1.0) / (n as f64 - 1.0);
        Shares {
            inside: (diagonal + inside) / all,
            random: (diagonal + chance * off) / all,
            off_inside: inside / off,
        }
    }
}
