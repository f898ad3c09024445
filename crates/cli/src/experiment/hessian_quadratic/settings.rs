//! What a recipe of kind `hessian-quadratic` says.

use rhumb_linalg::rng::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of `hessian-quadratic`. A step of the budget is one random quadratic of every case.
///
/// # Equation
/// `L(w) = w^T H w / 2`, block `b` of `H` is `Q_b diag(l_b) Q_b^T` with `Q_b` from the Haar distribution, `w0 ~ N(0, I)`.
/// Gradient descent has the rate `2 / (L + mu)`, or the best of its multiples. Adam as in the theory has `beta1 = 0` and
/// `beta2 = 1`, hence the fixed preconditioner `D = diag |H w0|`, and the best multiple of the rate that is optimal for
/// `D^-1 H`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CasesSettings {
    /// Block spectra to compare.
    pub(crate) cases: Vec<Case>,
    /// The part of the first loss that may be left.
    pub(crate) gap: f64,
    /// Multiples of the rate `2 / (L + mu)` to try, for gradient descent and for Adam as in the theory.
    pub(crate) multiples: Vec<f64>,
    /// Steps after which a descent is cut off; it then counts as that many.
    pub(crate) limit: u64,
    /// Condition number to which the spectra of a case are brought.
    pub(crate) kappa: f64,
    /// Eigenvalues drawn from each spectrum of a case.
    pub(crate) rows: usize,
    /// Adam and SGD as people run them.
    pub(crate) run: AsRun,
}

/// One Hessian; `blocks` or `spectra` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Its name in the results.
    pub(crate) name: String,
    /// Eigenvalues of each block, taken as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocks: Vec<Vec<f64>>,
    /// Eigenvalues of each block as measured on a model: `rows` of each are drawn, every block is shifted to a smallest
    /// eigenvalue of 1, and one factor for all brings the condition number to `kappa`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) spectra: Vec<Vec<f64>>,
}

/// Adam with decaying averages, and SGD with momentum; a rate that falls to zero on a straight line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AsRun {
    /// Quadratics of each case that they run on, the first ones.
    pub(crate) trials: u64,
    /// First learning rates of Adam; the best one counts.
    pub(crate) lrs: Vec<f64>,
    /// First learning rates of SGD, as parts of `2 (1 + beta1) / L`, beyond which it diverges; the best one counts.
    pub(crate) sgd: Vec<f64>,
    /// Decay of Adam's first moment, and the momentum of SGD.
    pub(crate) beta1: f64,
    /// Decay of the second moment.
    pub(crate) beta2: f64,
    /// Steps of the longest schedule; a run that needs more counts as that many.
    pub(crate) limit: u64,
}

impl Default for AsRun {
    fn default() -> Self {
        AsRun {
            trials: 20,
            lrs: vec![1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0],
            sgd: vec![1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.03],
            beta1: 0.9,
            beta2: 0.999,
            limit: 50_000,
        }
    }
}

impl Default for CasesSettings {
    fn default() -> Self {
        let case = |name: &str, blocks: [[f64; 3]; 3]| Case {
            name: name.to_owned(),
            blocks: blocks.map(|b| b.to_vec()).to_vec(),
            spectra: Vec::new(),
        };
        CasesSettings {
            cases: vec![
                case("case-3", [[1.0, 2.0, 3.0], [99.0, 100.0, 101.0], [4998.0, 4999.0, 5000.0]]),
                case("case-4", [[1.0, 99.0, 4998.0], [2.0, 100.0, 4999.0], [3.0, 101.0, 5000.0]]),
            ],
            gap: 1e-10,
            multiples: vec![1.0, 0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1],
            limit: 1_000_000,
            kappa: 5000.0,
            rows: 30,
            run: AsRun::default(),
        }
    }
}

/// Smallest and largest value.
pub(super) fn extremes(blocks: &[Vec<f64>]) -> (f64, f64) {
    let all = || blocks.iter().flatten().copied();
    (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max))
}

impl Case {
    /// The eigenvalues of every block.
    ///
    /// # Equation
    /// Of spectra: `1 + s (l - min_b l)`, with one `s` for which the largest value of all blocks is `kappa`.
    pub(super) fn eigenvalues(&self, rows: usize, kappa: f64, rng: &mut Rng) -> Vec<Vec<f64>> {
        if self.spectra.is_empty() {
            return self.blocks.clone();
        }
        let mut drawn: Vec<Vec<f64>> = Vec::new();
        for spectrum in &self.spectra {
            let mut values = spectrum.clone();
            rng.shuffle(&mut values);
            values.truncate(rows);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            drawn.push(values.iter().map(|v| v - low).collect());
        }
        let factor = (kappa - 1.0) / extremes(&drawn).1;
        drawn.iter().map(|b| b.iter().map(|v| 1.0 + factor * v).collect()).collect()
    }

    fn check(&self) -> Result<(), String> {
        let place = format!("algorithm.cases, {}", self.name);
        let whole = |b: &[Vec<f64>]| b.iter().all(|v| !v.is_empty() && v.iter().all(|x| x.is_finite()));
        match (self.blocks.is_empty(), self.spectra.is_empty()) {
            (true, true) => Err(format!("{place}: give `blocks`, or `spectra` that were measured")),
            (false, false) => Err(format!("{place}: `blocks` and `spectra` are both given; keep one")),
            (false, true) => {
                let (low, high) = extremes(&self.blocks);
                // Steps grow with the condition number; beyond this they take longer than anyone waits.
                if whole(&self.blocks) && low > 0.0 && high / low <= 1e8 {
                    return Ok(());
                }
                Err(format!("{place}: give blocks of positive numbers, no more than a factor of 1e8 apart"))
            }
            (true, false) => {
                let varies = |v: &Vec<f64>| v.iter().any(|x| (x - v[0]).abs() > 0.0);
                if whole(&self.spectra) && self.spectra.iter().any(varies) {
                    return Ok(());
                }
                Err(format!("{place}: give spectra of finite numbers, one with two different ones at least"))
            }
        }
    }
}

impl CasesSettings {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.cases.is_empty() {
            return Err("algorithm.cases: give at least one".to_owned());
        }
        for (i, case) in self.cases.iter().enumerate() {
            if self.cases[..i].iter().any(|c| c.name == case.name) {
                return Err(format!("algorithm.cases: {} is given twice", case.name));
            }
            case.check()?;
        }
        if !(self.gap > 0.0 && self.gap < 1.0) {
            return Err(format!(
                "algorithm.gap: {} is no part of the first loss; give one above 0 and below 1",
                self.gap
            ));
        }
        if self.multiples.is_empty() || !self.multiples.iter().all(|m| *m > 0.0 && *m <= 1.0) {
            return Err("algorithm.multiples: give numbers above 0, at most 1".to_owned());
        }
        if !(self.kappa > 1.0 && self.kappa <= 1e8) || self.rows < 2 {
            return Err(
                "algorithm.kappa and algorithm.rows: give a kappa above 1, at most 1e8, and 2 rows or more"
                    .to_owned(),
            );
        }
        let run = &self.run;
        if self.limit == 0 || run.limit == 0 || run.trials == 0 {
            return Err("algorithm: limit, run.limit and run.trials have to be above 0".to_owned());
        }
        let rates = |r: &[f64]| !r.is_empty() && r.iter().all(|r| *r > 0.0 && r.is_finite());
        if !rates(&run.lrs) || !rates(&run.sgd) {
            return Err("algorithm.run: lrs and sgd have to be numbers above 0".to_owned());
        }
        Ok(())
    }
}
