//! Curvature matrices of an objective over several batches, as operators.

use rhumb_core::{Curvature, Product, SecondOrder};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{dot, norm};
use rhumb_linalg::{LinearOp, OpError, Real};
use serde::{Deserialize, Serialize};

use crate::{BlockAt, SpectrumError};

/// How batches are put together. The loss of each batch is its mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// The mean over all rows, whatever the sizes of the batches.
    #[default]
    Mean,
    /// The sum of the batches' means: eigenvalues grow with the number of batches, as in the paper's code.
    Sum,
}

/// A batch and how many rows (labels) stand in it.
#[derive(Clone, Debug)]
pub struct Sample<B> {
    /// Its loss is the mean over its rows.
    pub batch: B,
    /// Rows.
    pub rows: usize,
}

/// What [`CurvatureOf::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// `|<u, Hv> - <v, Hu>| / (|u| |Hv|)`, the largest of the blocks.
    pub asymmetry: f64,
}

/// A curvature matrix at a point: `C = sum_b w_b C_b` over batches.
///
/// # Units
/// `w_b` is the share of the batch's rows with [`Reduction::Mean`] and 1 with [`Reduction::Sum`]. Several batches are
/// added up in `f64`.
pub struct CurvatureOf<'a, T: Real, P: SecondOrder<T>> {
    objective: &'a mut P,
    at: &'a [T],
    samples: &'a [Sample<P::Batch>],
    of: Curvature,
    weights: Vec<f64>,
    sums: Vec<Vec<f64>>,
}

impl<'a, T: Real, P: SecondOrder<T>> CurvatureOf<'a, T, P> {
    /// The matrix of `objective` at `at`.
    ///
    /// # Errors
    /// [`SpectrumError::Setting`] without batches or rows.
    pub fn new(
        objective: &'a mut P,
        at: &'a [T],
        samples: &'a [Sample<P::Batch>],
        of: Curvature,
        reduction: Reduction,
    ) -> Result<Self, SpectrumError> {
        let rows: usize = samples.iter().map(|s| s.rows).sum();
        if let Some(i) = samples.iter().position(|s| s.rows == 0) {
            return Err(SpectrumError::Setting(format!("batch {i} has no row that takes part in the loss")));
        }
        if rows == 0 {
            return Err(SpectrumError::Setting("there is no batch to measure curvature on".to_owned()));
        }
        let weight = |s: &Sample<P::Batch>| match reduction {
            Reduction::Mean => s.rows as f64 / rows as f64,
            Reduction::Sum => 1.0,
        };
        let weights = samples.iter().map(weight).collect();
        Ok(CurvatureOf { objective, at, samples, of, weights, sums: Vec::new() })
    }

    /// Products of diagonal blocks with a vector each; one pass over the batches for all of them.
    ///
    /// # Errors
    /// [`SpectrumError::Objective`] and [`SpectrumError::NonFinite`], with the batch and, where known, the block.
    ///
    /// # Panics
    /// When the three slices differ in length.
    pub fn products(
        &mut self,
        blocks: &[&BlockAt],
        vs: &[&[T]],
        outs: &mut [Vec<T>],
    ) -> Result<(), SpectrumError> {
        assert!(blocks.len() == vs.len() && vs.len() == outs.len(), "a vector and a place for every block");
        let several = self.samples.len() > 1;
        if several {
            self.sums.resize_with(blocks.len(), Vec::new);
            for (s, b) in self.sums.iter_mut().zip(blocks) {
                s.clear();
                s.resize(b.dim(), 0.0);
            }
        }
        outs.iter_mut().zip(blocks).for_each(|(o, b)| o.resize(b.dim(), T::ZERO));
        for batch in 0..self.samples.len() {
            self.one_batch(batch, blocks, vs, outs)?;
            let w = self.weights[batch];
            if several {
                for (s, o) in self.sums.iter_mut().zip(&*outs) {
                    s.iter_mut().zip(o).for_each(|(s, o)| *s += w * o.f64());
                }
            }
        }
        if several {
            for (s, o) in self.sums.iter().zip(outs) {
                o.iter_mut().zip(s).for_each(|(o, s)| *o = T::of(*s));
            }
        }
        Ok(())
    }

    fn one_batch(
        &mut self,
        batch: usize,
        blocks: &[&BlockAt],
        vs: &[&[T]],
        outs: &mut [Vec<T>],
    ) -> Result<(), SpectrumError> {
        let of = self.of;
        let mut requests: Vec<Product<'_, T>> = blocks
            .iter()
            .zip(vs)
            .zip(&mut *outs)
            .map(|((b, v), out)| Product { of, block: &b.pieces, v, out })
            .collect();
        let done = self.objective.products(self.at, &self.samples[batch].batch, &mut requests);
        done.map_err(|source| SpectrumError::Objective { block: None, batch, source })?;
        match outs.iter().position(|o| o.iter().any(|x| !x.is_finite())) {
            Some(i) => Err(SpectrumError::NonFinite { block: blocks[i].name.clone(), batch }),
            None => Ok(()),
        }
    }

    /// One block as an operator.
    pub fn block<'b>(&'b mut self, at: &'b BlockAt) -> BlockOp<'a, 'b, T, P> {
        BlockOp { of: self, at, out: vec![Vec::new()] }
    }

    /// Compares two products with the same vector bit by bit on every batch, and `<u, Cv>` with `<v, Cu>` over all.
    ///
    /// # Errors
    /// [`SpectrumError::Random`] when the two products differ; a failed product.
    ///
    /// # Cost
    /// Four products with each block.
    pub fn check(&mut self, blocks: &[&BlockAt], seed: u64) -> Result<SelfCheck, SpectrumError> {
        let draw = |name: &str| -> Vec<Vec<T>> {
            blocks.iter().map(|b| normal(b.dim(), seed, &format!("{name}/{}", b.name))).collect()
        };
        let (u, v) = (draw("check/u"), draw("check/v"));
        let mut outs = [vec![Vec::new(); blocks.len()], vec![Vec::new(); blocks.len()]];
        outs.iter_mut().flatten().zip(blocks.iter().cycle()).for_each(|(o, b)| o.resize(b.dim(), T::ZERO));
        for batch in 0..self.samples.len() {
            for out in &mut outs {
                self.one_batch(batch, blocks, &slices(&v), out)?;
            }
            for (i, (a, b)) in outs[0].iter().zip(&outs[1]).enumerate() {
                if a != b {
                    let off: Vec<T> = a.iter().zip(b).map(|(a, b)| *a - *b).collect();
                    let difference = norm(&off) / norm(a).max(f64::MIN_POSITIVE);
                    return Err(SpectrumError::Random { block: blocks[i].name.clone(), batch, difference });
                }
            }
        }
        let [mut hv, mut hu] = outs;
        self.products(blocks, &slices(&v), &mut hv)?;
        self.products(blocks, &slices(&u), &mut hu)?;
        let off = |i: usize| {
            let size = norm(&u[i]) * norm(&hv[i]);
            if size > 0.0 { (dot(&u[i], &hv[i]) - dot(&v[i], &hu[i])).abs() / size } else { 0.0 }
        };
        Ok(SelfCheck { asymmetry: (0..blocks.len()).map(off).fold(0.0, f64::max) })
    }
}

fn slices<T>(x: &[Vec<T>]) -> Vec<&[T]> {
    x.iter().map(Vec::as_slice).collect()
}

pub(crate) fn normal<T: Real>(n: usize, seed: u64, purpose: &str) -> Vec<T> {
    let mut rng = Rng::named(seed, purpose);
    (0..n).map(|_| T::of(rng.normal())).collect()
}

/// A diagonal block of a curvature matrix.
pub struct BlockOp<'a, 'b, T: Real, P: SecondOrder<T>> {
    of: &'b mut CurvatureOf<'a, T, P>,
    at: &'b BlockAt,
    out: Vec<Vec<T>>,
}

impl<T: Real, P: SecondOrder<T>> LinearOp<T> for BlockOp<'_, '_, T, P> {
    fn dim(&self) -> usize {
        self.at.dim()
    }

    fn apply(&mut self, v: &[T], out: &mut [T]) -> Result<(), OpError> {
        let done = self.of.products(&[self.at], &[v], &mut self.out);
        done.map_err(|e| OpError::Failed(Box::new(e)))?;
        out.copy_from_slice(&self.out[0]);
        Ok(())
    }
}
