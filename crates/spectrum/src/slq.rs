//! Spectra of many blocks at once: a Lanczos run for each, one pass over the batches for every step.

use rhumb_core::{SecondOrder, StateReader, StateWriter};
use rhumb_krylov::slq::{Quadrature, SlqOptions, Spectrum};
use rhumb_krylov::{Lanczos, LanczosState, Orthogonality};
use rhumb_linalg::{LinearOp, OpError, Real};
use serde::{Deserialize, Serialize};

use crate::operator::normal;
use crate::{BlockAt, CurvatureOf, SpectrumError};

/// An approximate eigenvalue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RitzPair {
    /// The value.
    pub value: f64,
    /// `|C x - value x|` for the unit Ritz vector `x`: an eigenvalue lies within it. With the plain recurrence it is the
    /// recurrence's own estimate.
    pub residual: f64,
}

/// What is known of one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockSpectrum {
    /// The block.
    pub block: BlockAt,
    /// Nodes of every start vector, ascending.
    pub nodes: Vec<Vec<f64>>,
    /// Their weights, which sum to 1.
    pub weights: Vec<Vec<f64>>,
    /// The largest eigenvalue over the start vectors.
    pub top: RitzPair,
    /// The smallest.
    pub bottom: RitzPair,
}

impl BlockSpectrum {
    /// As a spectrum that can be smoothed.
    pub fn spectrum(&self) -> Spectrum {
        let rule = |(n, w): (&Vec<f64>, &Vec<f64>)| Quadrature { nodes: n.clone(), weights: w.clone() };
        Spectrum { runs: self.nodes.iter().zip(&self.weights).map(rule).collect() }
    }

    /// The trace, `n tr` of the mean of the rules, and its standard error from two start vectors on.
    pub fn trace(&self) -> (f64, Option<f64>) {
        let n = self.block.dim() as f64;
        let (mean, error) = self.spectrum().moment(1);
        (n * mean, error.map(|e| n * e))
    }

    /// The Frobenius norm, from the second moments.
    pub fn frobenius(&self) -> f64 {
        (self.block.dim() as f64 * self.spectrum().moment(2).0).max(0.0).sqrt()
    }

    /// The magnitude of the node that is `k`-th by magnitude (from 1) in the mean over the start vectors; the smallest
    /// one where a run has fewer.
    pub fn magnitude(&self, k: usize) -> f64 {
        let of = |nodes: &Vec<f64>| {
            let mut m: Vec<f64> = nodes.iter().map(|x| x.abs()).collect();
            m.sort_by(|a, b| b.total_cmp(a));
            m.get(k.max(1) - 1).or(m.last()).copied().unwrap_or(0.0)
        };
        self.nodes.iter().map(of).sum::<f64>() / self.nodes.len().max(1) as f64
    }
}

/// Where a run stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The start vector, from 0.
    pub start: usize,
    /// Steps taken from it.
    pub step: usize,
    /// All start vectors are done.
    pub done: bool,
}

/// Stochastic Lanczos quadrature of several blocks in lock-step.
///
/// # Reference
/// Zhang et al., NeurIPS 2024, appendix on the implementation, and its published code. **Deviations**: full
/// orthogonality and an end at a breakdown by default, where the code goes on with a vector that is not normalised; the
/// mean over batches by default ([`crate::Reduction`]).
///
/// # Cost
/// `starts * steps` passes over the batches; `steps + 1` vectors of each block with full orthogonality.
pub struct SlqRun<T: Real> {
    options: SlqOptions,
    found: Vec<BlockSpectrum>,
    /// The start vector under way.
    start: usize,
    lanczos: Vec<Lanczos<T>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    options: (usize, usize, u64, String),
    found: Vec<BlockSpectrum>,
    start: usize,
    runs: Vec<SavedRun>,
}

#[derive(Serialize, Deserialize)]
struct SavedRun {
    alpha: Vec<f64>,
    beta: Vec<f64>,
    vectors: usize,
    open: bool,
    rng: u64,
    breakdown: f64,
}

impl<T: Real> SlqRun<T> {
    /// A run before its first step.
    ///
    /// # Errors
    /// [`SpectrumError::Steps`] for a block with fewer parameters than steps; [`SpectrumError::Setting`] without blocks,
    /// steps or start vectors.
    pub fn new(blocks: Vec<BlockAt>, options: SlqOptions) -> Result<Self, SpectrumError> {
        let wrong = |what: &str| Err(SpectrumError::Setting(format!("a spectrum needs at least one {what}")));
        if blocks.is_empty() {
            return wrong("block");
        }
        if options.steps == 0 {
            return wrong("Lanczos step");
        }
        if options.starts == 0 {
            return wrong("start vector");
        }
        if let Some(b) = blocks.iter().find(|b| b.dim() < options.steps) {
            return Err(SpectrumError::Steps { block: b.name.clone(), steps: options.steps, dim: b.dim() });
        }
        let empty = |block| {
            // JSON has no infinity.
            let none = |value| RitzPair { value, residual: f64::MAX };
            let (nodes, weights) = (Vec::new(), Vec::new());
            BlockSpectrum { block, nodes, weights, top: none(f64::MIN), bottom: none(f64::MAX) }
        };
        let mut run =
            SlqRun { options, found: blocks.into_iter().map(empty).collect(), start: 0, lanczos: Vec::new() };
        run.begin()?;
        Ok(run)
    }

    /// Opens the next start vector: normal numbers, a stream for each block and start.
    fn begin(&mut self) -> Result<(), SpectrumError> {
        self.lanczos.clear();
        for f in &self.found {
            let v = normal::<T>(
                f.block.dim(),
                self.options.seed,
                &format!("slq/{}/{}", self.start, f.block.name),
            );
            let run = Lanczos::new(&v, self.options.orthogonality, self.options.seed);
            self.lanczos.push(run.map_err(|e| SpectrumError::krylov(&f.block.name, e))?);
        }
        Ok(())
    }

    /// Start vectors and steps that were asked for.
    pub fn options(&self) -> &SlqOptions {
        &self.options
    }

    /// The blocks, with what the finished start vectors found.
    pub fn found(&self) -> &[BlockSpectrum] {
        &self.found
    }

    /// Bytes of basis vectors when all steps are done.
    pub fn basis_bytes(&self) -> usize {
        let kept = if self.options.orthogonality == Orthogonality::Full { self.options.steps + 1 } else { 2 };
        self.found.iter().map(|f| f.block.dim() * kept * T::BYTES).sum()
    }

    /// Where the run stands.
    pub fn place(&self) -> Step {
        let step = self.lanczos.iter().map(Lanczos::steps).max().unwrap_or(0);
        Step { start: self.start, step, done: self.start == self.options.starts }
    }

    /// One Lanczos step of every block that has one left. After an error each block stands before or after its step, and
    /// the run may go on.
    ///
    /// # Errors
    /// A failed product, naming batch and block.
    pub fn step<P: SecondOrder<T>>(&mut self, of: &mut CurvatureOf<'_, T, P>) -> Result<Step, SpectrumError> {
        if self.start == self.options.starts {
            return Ok(self.place());
        }
        let steps = self.options.steps;
        let open: Vec<usize> = (0..self.found.len())
            .filter(|i| !self.lanczos[*i].is_invariant() && self.lanczos[*i].steps() < steps)
            .collect();
        let blocks: Vec<&BlockAt> = open.iter().map(|i| &self.found[*i].block).collect();
        let vs: Vec<&[T]> = open.iter().map(|i| last(&self.lanczos[*i])).collect();
        let mut outs = vec![Vec::new(); open.len()];
        if !open.is_empty() {
            of.products(&blocks, &vs, &mut outs)?;
        }
        for (i, out) in open.iter().zip(outs) {
            let done = self.lanczos[*i].step(&mut Given(out));
            done.map_err(|e| SpectrumError::krylov(&self.found[*i].block.name, e))?;
        }
        let finished = |l: &Lanczos<T>| l.is_invariant() || l.steps() == steps;
        if self.lanczos.iter().all(finished) {
            self.close(of)?;
        }
        Ok(self.place())
    }

    /// Reads off what the start vector found and opens the next one.
    fn close<P: SecondOrder<T>>(&mut self, of: &mut CurvatureOf<'_, T, P>) -> Result<(), SpectrumError> {
        let mut ends = self.ends()?;
        if self.options.orthogonality == Orthogonality::Full {
            self.residuals(of, &mut ends)?;
        }
        for ((f, run), [bottom, top]) in self.found.iter_mut().zip(&self.lanczos).zip(ends) {
            let rule = Quadrature::of(run).map_err(|e| SpectrumError::krylov(&f.block.name, e))?;
            if top.value > f.top.value {
                f.top = top;
            }
            if bottom.value < f.bottom.value {
                f.bottom = bottom;
            }
            f.nodes.push(rule.nodes);
            f.weights.push(rule.weights);
        }
        self.start += 1;
        if self.start < self.options.starts { self.begin() } else { Ok(()) }
    }

    /// The extreme Ritz values of every block, with Lanczos' bounds.
    fn ends(&self) -> Result<Vec<[RitzPair; 2]>, SpectrumError> {
        let ends = |(f, run): (&BlockSpectrum, &Lanczos<T>)| {
            let ritz = run.ritz().map_err(|e| SpectrumError::krylov(&f.block.name, e))?;
            let pair = |k: usize| RitzPair { value: ritz.values()[k], residual: ritz.bounds()[k] };
            Ok([pair(0), pair(ritz.values().len() - 1)])
        };
        self.found.iter().zip(&self.lanczos).map(ends).collect()
    }

    /// Computes the residuals in place of the bounds: those leave out what rounding does to products.
    fn residuals<P: SecondOrder<T>>(
        &self,
        of: &mut CurvatureOf<'_, T, P>,
        ends: &mut [[RitzPair; 2]],
    ) -> Result<(), SpectrumError> {
        let mut xs: Vec<Vec<T>> = Vec::with_capacity(2 * ends.len());
        for (f, run) in self.found.iter().zip(&self.lanczos) {
            let wrong = |e| SpectrumError::krylov(&f.block.name, e);
            let ritz = run.ritz().map_err(wrong)?;
            for k in [0, ritz.values().len() - 1] {
                xs.push(run.ritz_vector(&ritz, k).map_err(wrong)?);
            }
        }
        let blocks: Vec<&BlockAt> = self.found.iter().flat_map(|f| [&f.block; 2]).collect();
        let vs: Vec<&[T]> = xs.iter().map(Vec::as_slice).collect();
        let mut outs = vec![Vec::new(); xs.len()];
        of.products(&blocks, &vs, &mut outs)?;
        for (pair, (x, cx)) in ends.iter_mut().flatten().zip(xs.iter().zip(&outs)) {
            let off = cx.iter().zip(x).map(|(c, x)| (c.f64() - pair.value * x.f64()).powi(2));
            pair.residual = off.sum::<f64>().sqrt();
        }
        Ok(())
    }

    /// Saves everything that [`SlqRun::load`] needs.
    ///
    /// # Errors
    /// [`SpectrumError::Checkpoint`].
    pub fn save(&self, out: &mut StateWriter<'_>) -> Result<(), SpectrumError> {
        let states: Vec<LanczosState<T>> = self.lanczos.iter().map(Lanczos::state).collect();
        let of = |s: &LanczosState<T>| SavedRun {
            alpha: s.alpha.clone(),
            beta: s.beta.clone(),
            vectors: s.vectors.len(),
            open: s.open,
            rng: s.rng,
            breakdown: s.breakdown,
        };
        let runs = states.iter().map(of).collect();
        out.put_json(
            "slq",
            &Saved { options: self.told(), found: self.found.clone(), start: self.start, runs },
        )?;
        for (i, s) in states.iter().enumerate() {
            out.put_reals(&format!("basis.{i}"), &s.vectors)?;
        }
        Ok(())
    }

    fn told(&self) -> (usize, usize, u64, String) {
        let o = &self.options;
        (o.steps, o.starts, o.seed, format!("{:?}", o.orthogonality))
    }

    /// Goes on from a saved run of the same blocks and options.
    ///
    /// # Errors
    /// [`SpectrumError::Setting`] for a state of other blocks; [`SpectrumError::Checkpoint`].
    pub fn load(&mut self, from: &mut StateReader) -> Result<(), SpectrumError> {
        let saved: Saved = from.json("slq")?;
        let same = saved.found.len() == self.found.len()
            && (saved.runs.len() == self.found.len() || saved.start == self.options.starts)
            && saved.found.iter().zip(&self.found).all(|(a, b)| a.block == b.block);
        if !same {
            return Err(SpectrumError::Setting("the saved spectrum is one of other blocks".to_owned()));
        }
        if saved.options != self.told() {
            return Err(SpectrumError::Setting(format!(
                "the saved spectrum has other options: {:?} (steps, start vectors, seed, orthogonality), not {:?}",
                saved.options,
                self.told()
            )));
        }
        let mut lanczos = Vec::new();
        for (i, (r, f)) in saved.runs.into_iter().zip(&self.found).enumerate() {
            let mut vectors = vec![T::ZERO; r.vectors];
            from.reals(&format!("basis.{i}"), &mut vectors)?;
            let state = LanczosState {
                dim: f.block.dim(),
                alpha: r.alpha,
                beta: r.beta,
                vectors,
                open: r.open,
                restarts: Vec::new(),
                rng: r.rng,
                orthogonality: self.options.orthogonality,
                breakdown: r.breakdown,
            };
            lanczos.push(Lanczos::from_state(state).map_err(|e| SpectrumError::krylov(&f.block.name, e))?);
        }
        (self.found, self.start, self.lanczos) = (saved.found, saved.start, lanczos);
        Ok(())
    }
}

fn last<T: Real>(run: &Lanczos<T>) -> &[T] {
    run.basis().vector(run.basis().len() - 1)
}

/// A product that was computed beforehand.
struct Given<T>(Vec<T>);

impl<T: Real> LinearOp<T> for Given<T> {
    fn dim(&self) -> usize {
        self.0.len()
    }
    fn apply(&mut self, _: &[T], out: &mut [T]) -> Result<(), OpError> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

/// The unit Ritz vector of the largest eigenvalue of one block, from the first start vector of these options.
///
/// # Errors
/// As [`SlqRun::new`] and [`SlqRun::step`]; [`SpectrumError::Krylov`] without the basis.
///
/// # Cost
/// `steps` products.
pub fn top_vector<T: Real, P: SecondOrder<T>>(
    of: &mut CurvatureOf<'_, T, P>,
    block: &BlockAt,
    options: &SlqOptions,
) -> Result<Vec<T>, SpectrumError> {
    let wrong = |e| SpectrumError::krylov(&block.name, e);
    let v = start_vector::<T>(block, options.seed, 0);
    let mut run = Lanczos::new(&v, options.orthogonality, options.seed).map_err(wrong)?;
    run.run(&mut of.block(block), options.steps).map_err(wrong)?;
    let ritz = run.ritz().map_err(wrong)?;
    run.ritz_vector(&ritz, ritz.values().len() - 1).map_err(wrong)
}

/// Normal numbers, a stream for each block and start.
fn start_vector<T: Real>(block: &BlockAt, seed: u64, start: usize) -> Vec<T> {
    normal(block.dim(), seed, &format!("slq/{start}/{}", block.name))
}
