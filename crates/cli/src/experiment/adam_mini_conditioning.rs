//! How well Adam's and Adam-mini's first step sizes condition random quadratics.

use rhumb_core::stats::quantile;
use rhumb_linalg::dense::{DenseError, haar_orthogonal, symmetric_eigenvalues};
use rhumb_linalg::rng::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Experiment, Metrics};
use crate::exit::Failure;
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `adam-mini-conditioning`.
///
/// # Equation
/// `H` is block-diagonal, block `b` is `Q_b diag(l_b) Q_b^T` with `Q_b` from the Haar distribution, `w0 ~ N(0, I)`,
/// `g0 = H w0`. Adam's first second moments precondition with `D = diag |g0|`, Adam-mini's with the root mean square
/// of `g0` over each block. Compared are the condition numbers of `D^-1/2 H D^-1/2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConditioningSettings {
    /// Random quadratics.
    pub(crate) trials: usize,
    /// Eigenvalues of each block: blocks of different scale.
    pub(crate) heterogeneous: Vec<Vec<f64>>,
    /// The same eigenvalues, dealt out so that all blocks span the same range: the control.
    pub(crate) homogeneous: Vec<Vec<f64>>,
}

impl Default for ConditioningSettings {
    fn default() -> Self {
        ConditioningSettings {
            trials: 1000,
            heterogeneous: vec![vec![1.0, 2.0, 3.0], vec![99.0, 100.0, 101.0], vec![4998.0, 4999.0, 5000.0]],
            homogeneous: vec![vec![1.0, 99.0, 4998.0], vec![2.0, 100.0, 4999.0], vec![3.0, 101.0, 5000.0]],
        }
    }
}

/// Condition numbers of many quadratics, sorted.
struct Conditions {
    adam: Vec<f64>,
    mini: Vec<f64>,
    /// Without any preconditioner, the same in every trial.
    plain: f64,
}

/// The largest over the smallest.
fn spread(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    values.iter().copied().fold(0.0, f64::max) / low
}

fn measure(blocks: &[Vec<f64>], trials: usize, rng: &mut Rng) -> Result<Conditions, DenseError> {
    let mut out = Conditions { adam: Vec::new(), mini: Vec::new(), plain: spread(&blocks.concat()) };
    for _ in 0..trials {
        let (mut adam, mut mini) = (Vec::new(), Vec::new());
        for values in blocks {
            let n = values.len();
            let q = haar_orthogonal(n, rng);
            let h = |i: usize, j: usize| (0..n).map(|k| q[i * n + k] * values[k] * q[j * n + k]).sum::<f64>();
            let w: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
            let g: Vec<f64> = (0..n).map(|i| (0..n).map(|j| h(i, j) * w[j]).sum()).collect();
            let scaled: Vec<f64> =
                (0..n * n).map(|at| h(at / n, at % n) / (g[at / n].abs() * g[at % n].abs()).sqrt()).collect();
            adam.extend(symmetric_eigenvalues(&scaled, n)?);
            let rms = (g.iter().map(|g| g * g).sum::<f64>() / n as f64).sqrt();
            mini.extend(values.iter().map(|v| v / rms));
        }
        out.adam.push(spread(&adam));
        out.mini.push(spread(&mini));
    }
    out.adam.sort_by(f64::total_cmp);
    out.mini.sort_by(f64::total_cmp);
    Ok(out)
}

/// Steps of gradient descent with the best constant rate until the slowest component has shrunk by 1e10. The rate of
/// a spectrum between `mu` and `L` is `(L - mu) / (L + mu)`.
fn steps_to_shrink(values: &[f64]) -> (f64, u64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    let rate = (high - low) / (high + low);
    let mut left = 1.0;
    let mut steps = 0;
    while left > 1e-10 {
        left *= rate;
        steps += 1;
    }
    (rate, steps)
}

impl ConditioningSettings {
    fn validate(&self) -> Result<(), String> {
        let good = |b: &[Vec<f64>]| {
            !b.is_empty() && b.iter().all(|v| !v.is_empty() && v.iter().all(|x| x.is_finite() && *x > 0.0))
        };
        if self.trials == 0 {
            return Err("algorithm.trials: give at least 1".to_owned());
        }
        if !good(&self.heterogeneous) || !good(&self.homogeneous) {
            return Err("algorithm.heterogeneous and algorithm.homogeneous: give blocks of positive numbers"
                .to_owned());
        }
        // Steps grow with the condition number; beyond this the count takes longer than anyone waits.
        if spread(&self.heterogeneous.concat()).max(spread(&self.homogeneous.concat())) > 1e8 {
            return Err("algorithm: eigenvalues further apart than a factor of 1e8".to_owned());
        }
        Ok(())
    }
}

impl Experiment for ConditioningSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.validate().map_err(Failure::usage)?;
        let mut rng = Rng::named(ctx.seed, "conditioning");
        let mut metrics = Metrics::default();
        let mut table = Table::new([
            "Hessian",
            "no preconditioner",
            "Adam: 25 %",
            "median",
            "75 %",
            "better than none",
            "Adam-mini: 25 %",
            "median",
            "75 %",
        ]);
        let singles: Vec<(String, Vec<Vec<f64>>)> = (self.heterogeneous.iter().enumerate())
            .map(|(i, b)| (format!("block-{}", i + 1), vec![b.clone()]))
            .collect();
        let whole = [
            ("heterogeneous".to_owned(), self.heterogeneous.clone()),
            ("homogeneous".to_owned(), self.homogeneous.clone()),
        ];
        for (name, blocks) in whole.into_iter().chain(singles) {
            let c = measure(&blocks, self.trials, &mut rng).map_err(|e| Failure::usage(e.to_string()))?;
            let better = c.adam.iter().filter(|k| **k < c.plain).count() as f64 / self.trials as f64;
            let quartiles = |v: &[f64]| [0.25, 0.5, 0.75].map(|q| quantile(v, q));
            let (adam, mini) = (quartiles(&c.adam), quartiles(&c.mini));
            metrics
                .put(format!("{name}/plain"), c.plain)
                .put(format!("{name}/adam_median"), adam[1])
                .put(format!("{name}/mini_median"), mini[1])
                .put(format!("{name}/adam_better"), better);
            let mut row = vec![name, number(c.plain)];
            row.extend(adam.map(number));
            row.push(number(better));
            row.extend(mini.map(number));
            table.row(row);
        }
        ctx.show(Section::Table("Condition numbers".to_owned(), table));

        let mut table = Table::new(["gradient descent with one rate", "rate", "steps to shrink by 1e10"]);
        let blocks = self.heterogeneous.iter().enumerate();
        let arms = std::iter::once(("for all blocks".to_owned(), self.heterogeneous.concat()))
            .chain(blocks.map(|(i, b)| (format!("for block {} alone", i + 1), b.clone())));
        for (i, (name, values)) in arms.enumerate() {
            let (rate, steps) = steps_to_shrink(&values);
            let key = if i == 0 { "one-rate/steps".to_owned() } else { format!("block-{i}/steps") };
            metrics.put(key, steps as f64);
            table.row([name, number(rate), steps.to_string()]);
        }
        ctx.show(Section::Table("Steps, exact".to_owned(), table));
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn gradient_descent_needs_the_steps_of_its_closed_form() {
        let s = ConditioningSettings::default();
        assert_eq!(steps_to_shrink(&s.heterogeneous.concat()).1, 57_565);
        let each: Vec<u64> = s.heterogeneous.iter().map(|b| steps_to_shrink(b).1).collect();
        assert_eq!(each, [34, 6, 3]);
        assert!((steps_to_shrink(&s.heterogeneous[0]).0 - 0.5).abs() < 1e-15);
    }

    /// Medians of an independent implementation with another generator: 22, 3.5; 8.0k to 9.4k, 14k to 15k; share .997.
    #[test]
    fn medians_are_those_of_an_independent_implementation_within_fifteen_percent() {
        let s = ConditioningSettings::default();
        let mut rng = Rng::new(1);
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.15, "{got} {want}");
        let c = measure(&s.heterogeneous, 1000, &mut rng).unwrap();
        near(quantile(&c.adam, 0.5), 22.0);
        near(quantile(&c.mini, 0.5), 3.5);
        assert!(c.adam.iter().filter(|k| **k < 5000.0).count() > 985);
        let c = measure(&s.homogeneous, 1000, &mut rng).unwrap();
        near(quantile(&c.adam, 0.5), 8700.0);
        near(quantile(&c.mini, 0.5), 14_500.0);
        let better = c.adam.iter().filter(|k| **k < 5000.0).count();
        assert!((240..350).contains(&better), "{better}");
        for (block, want) in s.heterogeneous.iter().zip([5.6, 4.3, 4.3]) {
            let c = measure(std::slice::from_ref(block), 1000, &mut rng).unwrap();
            near(quantile(&c.adam, 0.5), want);
            near(quantile(&c.mini, 0.5), block[2] / block[0]);
        }
    }

    #[test]
    fn settings_that_cannot_be_measured_are_refused() {
        let bad = |f: fn(&mut ConditioningSettings)| {
            let mut s = ConditioningSettings::default();
            f(&mut s);
            s.validate().unwrap_err()
        };
        assert!(bad(|s| s.trials = 0).contains("trials"));
        assert!(bad(|s| s.heterogeneous = vec![vec![]]).contains("positive"));
        assert!(bad(|s| s.homogeneous[0][0] = -1.0).contains("positive"));
        assert!(bad(|s| s.homogeneous[0][0] = 1e-9).contains("1e8"));
    }
}
