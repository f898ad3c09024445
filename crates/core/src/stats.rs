//! The few statistics that verdicts rest on.

use rhumb_linalg::rng::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A mean with a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The estimate.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Mean and sample standard deviation (divisor `n - 1`; zero for one value). `None` without values.
pub fn mean_sd(values: &[f64]) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let ss: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let sd = if values.len() > 1 { (ss / (n - 1.0)).sqrt() } else { 0.0 };
    Some((mean, sd))
}

/// Percentile bootstrap interval of the mean of `values`.
///
/// # Reference
/// Efron, Tibshirani 1993, chapter 13.
///
/// # Cost
/// `resamples * values.len()` additions; `None` when a length, the level or a value makes no sense.
pub fn bootstrap_mean(values: &[f64], resamples: usize, level: f64, seed: u64) -> Option<Interval> {
    let (mean, _) = mean_sd(values)?;
    if resamples == 0 || !(level > 0.0 && level < 1.0) || !values.iter().all(|v| v.is_finite()) {
        return None;
    }
    let mut rng = Rng::named(seed, "bootstrap");
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            (0..values.len()).map(|_| values[rng.below(values.len())]).sum::<f64>() / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Some(Interval { mean, low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) })
}

/// 97.5 % quantiles of Student's t for 1 to 8 degrees of freedom.
const T_975: [f64; 8] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306];

const RESAMPLES: usize = 10_000;

/// 95 % interval of the mean of few values: Student's t up to nine, where the bootstrap is too narrow (of two values
/// it is no more than their range), the percentile bootstrap from ten on. `None` for fewer than two.
///
/// # Equation
/// `mean +- t sd / sqrt(n)`, with the 97.5 % quantile `t` for `n - 1` degrees of freedom.
pub fn mean_interval(values: &[f64], seed: u64) -> Option<Interval> {
    let (mean, sd) = mean_sd(values)?;
    let Some(t) = T_975.get(values.len().checked_sub(2)?) else {
        return bootstrap_mean(values, RESAMPLES, 0.95, seed);
    };
    if !sd.is_finite() {
        return None;
    }
    let half = t * sd / (values.len() as f64).sqrt();
    Some(Interval { mean, low: mean - half, high: mean + half })
}

/// 95 % interval of `sum a / sum b` over pairs, such as errors and tokens of documents: documents, not tokens, are
/// drawn again. Student's t up to nine pairs, the percentile bootstrap from ten on, as in [`mean_interval`], which it
/// equals where every `b` is one. `None` for fewer than two pairs, lengths that differ, a `b` that is not positive.
///
/// # Equation
/// Few pairs: `r +- t sqrt(n / (n - 1) sum (a_i - r b_i)^2) / sum b`, the linearised ratio.
///
/// # Reference
/// Cochran, "Sampling Techniques", 1977, section 6.
pub fn ratio_interval(a: &[f64], b: &[f64], seed: u64) -> Option<Interval> {
    let n = a.len();
    let good = a.iter().all(|x| x.is_finite()) && b.iter().all(|x| x.is_finite() && *x > 0.0);
    if n < 2 || n != b.len() || !good {
        return None;
    }
    let whole: f64 = b.iter().sum();
    let mean = a.iter().sum::<f64>() / whole;
    if let Some(t) = T_975.get(n - 2) {
        let rest: f64 = a.iter().zip(b).map(|(a, b)| (a - mean * b).powi(2)).sum();
        let half = t * (rest * n as f64 / (n - 1) as f64).sqrt() / whole;
        return Some(Interval { mean, low: mean - half, high: mean + half });
    }
    let mut rng = Rng::named(seed, "bootstrap");
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let add = |(x, y), i: usize| (x + a[i], y + b[i]);
            let (x, y) = (0..n).map(|_| rng.below(n)).fold((0.0, 0.0), add);
            x / y
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    Some(Interval { mean, low: quantile(&ratios, 0.025), high: quantile(&ratios, 0.975) })
}

/// Wilson's 95 % interval of a share `p` of `n` questions: inside `[0, 1]`, and with a width also where `p` is 0 or 1.
/// `None` for no question or a share outside `[0, 1]`.
///
/// # Equation
/// `(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)`, `z = 1.96`.
///
/// # Reference
/// Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
pub fn wilson(p: f64, n: usize) -> Option<Interval> {
    if n == 0 || !(0.0..=1.0).contains(&p) {
        return None;
    }
    let (n, z2) = (n as f64, 1.959_963_985_f64.powi(2));
    let half = (z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))).sqrt();
    let end = |half: f64| (p + z2 / (2.0 * n) + half) / (1.0 + z2 / n);
    let low = if p > 0.0 { end(-half) } else { 0.0 };
    let high = if p < 1.0 { end(half) } else { 1.0 };
    Some(Interval { mean: p, low, high })
}

/// 95 % interval of the share `sum a / sum b` of counts `0 <= a_i <= b_i` of questions, as of right answers or of
/// followed instructions: the percentile bootstrap over questions, as in [`ratio_interval`], and [`wilson`] up to nine
/// questions and where all have the same share, for which the bootstrap has no width. Wilson's counts each question
/// once, however large its `b_i`: wide enough, for no share of a question varies more than one of 0 or 1 does.
///
/// `None` without questions, for lengths that differ, a `b_i` that is not positive, an `a_i` outside `[0, b_i]`.
pub fn share_interval(a: &[f64], b: &[f64], seed: u64) -> Option<Interval> {
    let good = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| *b > 0.0 && (0.0..=*b).contains(a));
    if a.is_empty() || !good {
        return None;
    }
    let first = a[0] / b[0];
    if a.len() < 10 || a.iter().zip(b).all(|(a, b)| (a / b - first).abs() < 1e-12) {
        return wilson((a.iter().sum::<f64>() / b.iter().sum::<f64>()).clamp(0.0, 1.0), a.len());
    }
    ratio_interval(a, b, seed)
}

/// The quantile of sorted values, interpolated between neighbours (type 7 of Hyndman and Fan 1996).
/// Zero without values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let i = (at.floor() as usize).min(last);
    let j = (i + 1).min(last);
    sorted[i] + (at - i as f64) * (sorted[j] - sorted[i])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn few_values_have_the_interval_of_student_and_many_that_of_the_bootstrap() {
        assert!(mean_interval(&[], 0).is_none() && mean_interval(&[1.0], 0).is_none());
        assert!(mean_interval(&[1.0, f64::NAN], 0).is_none());
        let two = mean_interval(&[1.0, 3.0], 0).unwrap();
        assert!((two.mean - 2.0).abs() < 1e-12 && (two.high - 2.0 - 12.706).abs() < 1e-9, "{two:?}");
        let nine: Vec<f64> = (0..9).map(f64::from).collect();
        // sd = sqrt(7.5), over sqrt(9).
        assert!((mean_interval(&nine, 0).unwrap().low - (4.0 - 2.306 * 7.5_f64.sqrt() / 3.0)).abs() < 1e-9);
        let ten: Vec<f64> = (0..10).map(f64::from).collect();
        assert_eq!(mean_interval(&ten, 5), bootstrap_mean(&ten, 10_000, 0.95, 5));
    }

    #[test]
    fn a_ratio_to_ones_has_the_interval_of_the_mean_and_a_constant_one_has_no_width() {
        for n in [2, 5, 9, 10, 40] {
            let a: Vec<f64> = (0..n).map(|i| f64::from(i * i % 7)).collect();
            let (got, want) =
                (ratio_interval(&a, &vec![1.0; a.len()], 3).unwrap(), mean_interval(&a, 3).unwrap());
            for (got, want) in [(got.mean, want.mean), (got.low, want.low), (got.high, want.high)] {
                assert!((got - want).abs() < 1e-12, "{n}: {got} {want}");
            }
            let b: Vec<f64> = (1..=n).map(f64::from).collect();
            let half: Vec<f64> = b.iter().map(|b| b / 2.0).collect();
            let i = ratio_interval(&half, &b, 3).unwrap();
            assert!((i.low - 0.5).abs() < 1e-12 && (i.high - 0.5).abs() < 1e-12, "{i:?}");
        }
        // r = 4/4 and the rests are 1 and -1: t sqrt(2/1 * 2) / 4.
        let two = ratio_interval(&[2.0, 2.0], &[1.0, 3.0], 0).unwrap();
        assert!((two.mean - 1.0).abs() < 1e-12 && (two.high - 1.0 - 12.706 / 2.0).abs() < 1e-9, "{two:?}");
        let pairs: [(&[f64], &[f64]); 4] = [
            (&[1.0], &[1.0]),
            (&[1.0, 2.0], &[1.0]),
            (&[1.0, 2.0], &[1.0, 0.0]),
            (&[1.0, f64::NAN], &[1.0, 1.0]),
        ];
        assert!(pairs.iter().all(|(a, b)| ratio_interval(a, b, 0).is_none()));
    }

    #[test]
    fn a_share_has_an_interval_of_some_width_inside_zero_and_one() {
        // The table of Brown, Cai, DasGupta 2001 and the closed forms at the ends: z^2 / (n + z^2).
        let z2 = 1.959_963_985_f64.powi(2);
        let none = wilson(0.0, 20).unwrap();
        assert!(none.low == 0.0 && (none.high - z2 / (20.0 + z2)).abs() < 1e-12, "{none:?}");
        let all = wilson(1.0, 20).unwrap();
        assert!((all.low - 20.0 / (20.0 + z2)).abs() < 1e-12 && (all.high - 1.0).abs() < 1e-12, "{all:?}");
        let some = wilson(0.3, 10).unwrap();
        assert!((some.low - 0.107_791).abs() < 1e-6 && (some.high - 0.603_222).abs() < 1e-6, "{some:?}");
        assert!(wilson(0.5, 0).is_none() && wilson(1.1, 4).is_none() && wilson(f64::NAN, 4).is_none());

        let ones = [1.0; 20];
        assert_eq!(share_interval(&[0.0; 20], &ones, 1), Some(none));
        assert_eq!(share_interval(&[1.0, 0.0], &ones[..2], 1), wilson(0.5, 2));
        assert_eq!(share_interval(&[2.0, 1.0], &[4.0, 1.0], 1), wilson(0.6, 2));
        let mixed: Vec<f64> = (0..20).map(|i| f64::from(i % 4) / 3.0).collect();
        assert_eq!(share_interval(&mixed, &ones, 1), ratio_interval(&mixed, &ones, 1));
        assert!(share_interval(&[], &[], 1).is_none() && share_interval(&[2.0], &[1.0], 1).is_none());
        assert!(share_interval(&[0.0], &[0.0], 1).is_none() && share_interval(&[0.0], &[], 1).is_none());
    }

    #[test]
    fn mean_and_deviation_of_five_numbers_are_exact() {
        let (m, s) = mean_sd(&[2.0, 4.0, 4.0, 4.0, 6.0]).unwrap();
        assert!((m - 4.0).abs() < 1e-15 && (s - 2f64.sqrt()).abs() < 1e-15);
        assert_eq!(mean_sd(&[3.0]), Some((3.0, 0.0)));
        assert_eq!(mean_sd(&[]), None);
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        let v = [1.0, 2.0, 3.0, 4.0];
        assert!((quantile(&v, 0.5) - 2.5).abs() < 1e-15);
        assert!((quantile(&v, 0.25) - 1.75).abs() < 1e-15);
        assert!((quantile(&v, 1.0) - 4.0).abs() < 1e-15);
    }

    #[test]
    fn a_constant_difference_has_an_interval_of_width_zero() {
        let i = bootstrap_mean(&[2.0; 3], 200, 0.95, 1).unwrap();
        assert_eq!((i.mean, i.low, i.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn the_interval_is_near_the_normal_one_and_follows_the_seed() {
        let mut r = Rng::new(3);
        let v: Vec<f64> = (0..400).map(|_| 1.0 + r.normal()).collect();
        let (m, s) = mean_sd(&v).unwrap();
        let i = bootstrap_mean(&v, 2000, 0.95, 7).unwrap();
        let half = 1.96 * s / 20.0;
        assert!((i.low - (m - half)).abs() < 0.02 && (i.high - (m + half)).abs() < 0.02, "{i:?}");
        assert_eq!(Some(i), bootstrap_mean(&v, 2000, 0.95, 7));
        assert_ne!(Some(i), bootstrap_mean(&v, 2000, 0.95, 8));
    }

    #[test]
    fn nonsense_gives_no_interval() {
        assert!(bootstrap_mean(&[1.0, f64::NAN], 10, 0.9, 0).is_none());
        assert!(bootstrap_mean(&[1.0], 10, 1.0, 0).is_none());
        assert!(bootstrap_mean(&[1.0], 0, 0.9, 0).is_none());
    }
}
