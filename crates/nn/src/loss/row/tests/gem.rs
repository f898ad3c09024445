//! What is special to GEM.

use super::*;

/// Seed, rows, columns, scale and labels of a case, then per loss: mean, norm of the gradient of the mean, mean of
/// the scalar that is lowered.
type Accepted = (u64, usize, usize, f64, &'static [usize], &'static [(LossKind, f64, f64, f64)]);

const LINEAR_ONE: LossKind = LossKind::GemLinear { beta: 1.0 };
const NONE: usize = usize::MAX;

#[rustfmt::skip]
const ACCEPTED: [Accepted; 4] = [
    (1, 4, 8, 3.0, &[2, 0, 7, 5], &[
        (LINEAR, 1.487_688_892_396, 0.444_778_136_044, 2.216_074_030_526),
        (LOGSIGMOID, 0.760_290_833_131, 0.225_741_537_499, 2.216_074_030_526),
        (LINEAR_ONE, 1.194_346_177_729, 0.439_452_800_709, 2.585_222_230_133),
    ]),
    (2, 6, 32, 6.0, &[3, NONE, 31, 0, NONE, 17], &[
        (LINEAR, 4.511_687_405_340, 0.556_740_917_280, 5.690_785_413_420),
        (LOGSIGMOID, 2.317_508_769_766, 0.284_735_778_127, 5.690_785_413_420),
    ]),
    (3, 3, 1000, 12.0, &[999, 1, 500], &[
        (LINEAR, 17.795_777_698_885, 0.582_363_487_117, 20.829_041_698_519),
        (LOGSIGMOID, 9.755_844_021_774, 0.317_099_243_786, 20.829_041_698_519),
    ]),
    (4, 2, 16, 5000.0, &[3, 9], &[
        (LINEAR, 2_288.865_286_868_689, 1.0, 2_288.865_286_868_689),
        (LOGSIGMOID, 2_281.242_416_257_769, 0.973_951_527_133, 2_288.865_286_868_689),
    ]),
];

#[test]
fn the_values_that_were_derived_apart_from_the_reference_are_met() {
    for (seed, rows, vocab, scale, labels, losses) in ACCEPTED {
        let z = scores(seed, rows * vocab, scale);
        let live: Vec<usize> = (0..rows).filter(|&i| labels[i] != NONE).collect();
        let n = live.len() as f64;
        for &(kind, mean, norm, lowered) in losses {
            let of = |i: usize| (&z[i * vocab..][..vocab], labels[i]);
            let all: Vec<RowStats> = live.iter().map(|&i| stats(kind, of(i).0, of(i).1)).collect();
            close("mean", all.iter().map(|s| s.loss).sum::<f64>() / n, mean, 1e-14, 5e-13);
            close("lowered", all.iter().map(|s| s.surrogate).sum::<f64>() / n, lowered, 1e-14, 5e-13);
            let square: f64 =
                live.iter().flat_map(|&i| gradient(kind, of(i).0, of(i).1)).map(|g| (g / n).powi(2)).sum();
            close("norm", square.sqrt(), norm, 1e-14, 5e-13);
        }
    }
    let z = scores(1, 32, 3.0);
    let ce: f64 = [2, 0, 7, 5].iter().zip(z.chunks(8)).map(|(y, z)| stats(LossKind::Ce, z, *y).ce).sum();
    close("ce", ce / 4.0, 2.585_222_230_133, 1e-14, 5e-13);
    close("entropy", stats(LossKind::Ce, &z[..8], 2).entropy, 1.576_016_001_240, 1e-14, 5e-13);
}

#[test]
fn the_linear_gradient_is_beta_times_the_cross_entropy_gradient_at_temperature_beta() {
    for beta in [0.3, 0.7, 1.0, 1.5] {
        let z = scores(2, 64, 6.0);
        let g = gradient(LossKind::GemLinear { beta }, &z, 9);
        let cold: Vec<f64> = z.iter().map(|z| z / beta).collect();
        // The chain rule through z / beta divides by beta what the factor beta restores.
        let ce = gradient(LossKind::Ce, &cold, 9);
        for (g, c) in g.iter().zip(&ce) {
            close("gradient", *g, *c, 1e-13, 1e-14);
        }
        close(
            "surrogate",
            stats(LossKind::GemLinear { beta }, &z, 9).surrogate,
            beta * stats(LossKind::Ce, &cold, 9).ce,
            1e-13,
            0.0,
        );
    }
}

#[test]
fn at_beta_one_the_gradient_is_that_of_cross_entropy_and_the_value_is_less_by_the_entropy() {
    let z = scores(7, 50, 5.0);
    let one = LossKind::GemLinear { beta: 1.0 };
    let s = stats(one, &z, 11);
    close("value", s.loss, s.ce - s.entropy, 1e-13, 1e-13);
    for (a, b) in gradient(one, &z, 11).iter().zip(gradient(LossKind::Ce, &z, 11)) {
        close("gradient", *a, b, 1e-14, 1e-15);
    }
}

#[test]
fn micro_batches_weighted_by_live_tokens_add_up_to_the_batch_and_means_of_means_do_not() {
    let r = &reference()["accumulation"];
    let z = scores(9, 48, 4.0);
    let loss: Vec<f64> = (0..4).map(|i| stats(LINEAR, &z[12 * i..][..12], i + 1).loss).collect();
    let by_token = (loss[..3].iter().sum::<f64>() + loss[3]) / 4.0;
    close("by token", by_token, r["by_token"].as_f64().unwrap(), 1e-12, 0.0);
    close("by token", by_token, 3.169_042_527_998_938, 1e-12, 0.0);
    let means = f64::midpoint(loss[..3].iter().sum::<f64>() / 3.0, loss[3]);
    close("mean of means", means, r["mean_of_means"].as_f64().unwrap(), 1e-12, 0.0);
    assert!((means - by_token).abs() > 0.5);
}

#[test]
fn free_scores_descend_to_the_power_of_the_data_distribution() {
    let r = &reference()["fixed_point"];
    let (data, want) = (floats(&r["data"]), floats(&r["p"]));
    let mut z = vec![0.0; data.len()];
    for _ in 0..20_000 {
        let mut g = vec![0.0; z.len()];
        for (label, share) in data.iter().enumerate() {
            let mut one = z.clone();
            row(LINEAR, &mut one, label, Some(*share));
            g.iter_mut().zip(one).for_each(|(g, o)| *g += o);
        }
        z.iter_mut().zip(&g).for_each(|(z, g)| *z -= 0.5 * g);
    }
    for (k, want) in want.iter().enumerate() {
        close("p", (-stats(LossKind::Ce, &z, k).ce).exp(), *want, 0.0, 1e-9);
    }
    close("entropy", stats(LossKind::Ce, &z, 0).entropy, r["entropy_p"].as_f64().unwrap(), 0.0, 1e-9);
}
