//! One random quadratic, and the steps that each method takes on it.

use rhumb_core::{Layout, Role};
use rhumb_linalg::dense::{DenseError, haar_orthogonal, symmetric_eigenvalues};
use rhumb_linalg::rng::Rng;
use rhumb_optim::{OptimError, OptimizerConfig};

struct Block {
    /// Eigenvalues.
    values: Vec<f64>,
    /// `[n, n]`, eigenvectors in its columns.
    #[cfg(test)]
    vectors: Vec<f64>,
    /// `[n, n]`.
    hessian: Vec<f64>,
    start: Vec<f64>,
    /// The start in the basis of eigenvectors.
    along: Vec<f64>,
}

/// `w -> w^T H w / 2`, `H` block-diagonal with random eigenvectors, and a start `w0 ~ N(0, I)`.
pub(super) struct Instance {
    blocks: Vec<Block>,
}

/// When a descent counts as done.
#[derive(Clone, Copy)]
pub(super) struct Goal {
    /// The part of the first loss that may be left.
    pub(super) gap: f64,
    /// Steps after which nobody waits any longer.
    pub(super) limit: u64,
}

impl Instance {
    pub(super) fn draw(spectra: &[Vec<f64>], rng: &mut Rng) -> Self {
        let block = |values: &Vec<f64>| {
            let n = values.len();
            let q = haar_orthogonal(n, rng);
            let start: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
            let h = |i: usize, j: usize| (0..n).map(|k| q[i * n + k] * values[k] * q[j * n + k]).sum();
            let hessian = (0..n * n).map(|at| h(at / n, at % n)).collect();
            let along = (0..n).map(|k| (0..n).map(|i| q[i * n + k] * start[i]).sum()).collect();
            Block {
                values: values.clone(),
                hessian,
                start,
                along,
                #[cfg(test)]
                vectors: q,
            }
        };
        Instance { blocks: spectra.iter().map(block).collect() }
    }

    pub(super) fn start(&self) -> Vec<f64> {
        self.blocks.iter().flat_map(|b| b.start.iter().copied()).collect()
    }

    /// `H x` into `out`; returns the loss.
    pub(super) fn gradient(&self, x: &[f64], out: &mut [f64]) -> f64 {
        let (mut at, mut loss) = (0, 0.0);
        for b in &self.blocks {
            let n = b.values.len();
            let x = &x[at..at + n];
            for (i, row) in b.hessian.chunks_exact(n).enumerate() {
                let g: f64 = row.iter().zip(x).map(|(h, x)| h * x).sum();
                out[at + i] = g;
                loss += 0.5 * g * x[i];
            }
            at += n;
        }
        loss
    }

    /// The diagonal of Adam's first step: the sizes of the first gradient.
    pub(super) fn first_sizes(&self) -> Vec<f64> {
        let x = self.start();
        let mut g = vec![0.0; x.len()];
        self.gradient(&x, &mut g);
        g.iter().map(|g| g.abs()).collect()
    }

    /// Smallest and largest eigenvalue of `D^-1/2 H D^-1/2`.
    pub(super) fn extremes(&self, diagonal: &[f64]) -> Result<(f64, f64), DenseError> {
        let (mut at, mut low, mut high) = (0, f64::INFINITY, 0.0_f64);
        for b in &self.blocks {
            let n = b.values.len();
            let d = &diagonal[at..at + n];
            let scaled: Vec<f64> = (0..n * n).map(|i| b.hessian[i] / (d[i / n] * d[i % n]).sqrt()).collect();
            let values = symmetric_eigenvalues(&scaled, n)?;
            low = values.iter().copied().fold(low, f64::min);
            high = values.iter().copied().fold(high, f64::max);
            at += n;
        }
        Ok((low, high))
    }

    /// Steps of `w <- w - rate H w`, by the closed form of its loss, `sum_i l_i c_i^2 (1 - rate l_i)^2k / 2`, which falls
    /// for rates up to `2 / L`.
    pub(super) fn gradient_descent(&self, rate: f64, goal: Goal) -> u64 {
        let terms = || self.blocks.iter().flat_map(|b| b.values.iter().zip(&b.along));
        let loss = |k: u64| -> f64 {
            terms().map(|(l, c)| l * c * c * ((1.0 - rate * l) * (1.0 - rate * l)).powf(k as f64)).sum()
        };
        let enough = goal.gap * loss(0);
        if loss(goal.limit) > enough {
            return goal.limit;
        }
        let (mut low, mut high) = (0, goal.limit);
        while low < high {
            let middle = low + (high - low) / 2;
            if loss(middle) <= enough {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// Steps of `w <- w - rate D^-1 H w`.
    pub(super) fn descent(&self, diagonal: &[f64], rate: f64, goal: Goal) -> u64 {
        let mut x = self.start();
        let mut g = vec![0.0; x.len()];
        let rates: Vec<f64> = diagonal.iter().map(|d| rate / d).collect();
        let mut enough = None;
        for k in 0..goal.limit {
            let loss = self.gradient(&x, &mut g);
            if loss <= *enough.get_or_insert(goal.gap * loss) {
                return k;
            }
            for ((x, g), r) in x.iter_mut().zip(&g).zip(&rates) {
                *x -= r * g;
            }
        }
        goal.limit
    }

    /// Steps of an optimizer as people run it: those of the shortest schedule, a rate on a straight line to zero, that ends
    /// at the goal with one of the settings. Lengths grow by the square root of 2.
    pub(super) fn scheduled(&self, settings: &[OptimizerConfig], goal: Goal) -> Result<u64, OptimError> {
        let n = self.start().len();
        let mut layout = Layout::new();
        layout.push("w", &[n], Role::Other);
        let mut steps = 16;
        while steps < goal.limit {
            for config in settings {
                let mut optimizer = config.build(&layout)?;
                let mut x = self.start();
                let mut g = vec![0.0; n];
                let first = self.gradient(&x, &mut g);
                let mut last = first;
                for k in 0..steps {
                    optimizer.step(config.lr * (1.0 - k as f64 / steps as f64), &mut x, &g);
                    last = self.gradient(&x, &mut g);
                }
                if last <= goal.gap * first {
                    return Ok(steps);
                }
            }
            steps = (steps as f64 * std::f64::consts::SQRT_2).ceil() as u64;
        }
        Ok(goal.limit)
    }

    /// The same quadratic from a start given in the basis of eigenvectors.
    #[cfg(test)]
    pub(super) fn starting_along(mut self, along: &[Vec<f64>]) -> Self {
        for (b, along) in self.blocks.iter_mut().zip(along) {
            let n = along.len();
            b.start = (0..n).map(|i| (0..n).map(|k| b.vectors[i * n + k] * along[k]).sum()).collect();
            b.along.clone_from(along);
        }
        self
    }
}

/// The fewest steps over multiples of a rate, those that take longer than the best so far being cut off.
pub(super) fn fewest(multiples: &[f64], limit: u64, mut steps: impl FnMut(f64, u64) -> u64) -> u64 {
    multiples.iter().fold(limit, |best, m| best.min(steps(*m, best)))
}
