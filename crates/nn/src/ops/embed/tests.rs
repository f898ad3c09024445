use super::*;
use crate::op::Data;
use crate::tape::Pool;

const WIDTH: usize = 48;

/// What a lookup in a table of zeros gives: the noise itself.
fn noise(alpha: f64, seed: Option<u64>, positions: &[u32]) -> Vec<f64> {
    let (rows, scratch) = (positions.len(), Pool::new());
    let ids = vec![0; rows];
    let data = Data { ids: &ids, positions, ..Data::default() };
    let cx = Cx { data, scratch: &scratch, seed, cache: None, weight: 1.0 };
    let mut y = vec![f64::NAN; rows * WIDTH];
    Embed { rows, width: WIDTH, positions: false, noise: alpha }.forward(
        &cx,
        &[&[0.0; WIDTH]],
        &mut y,
        &mut [],
    );
    y
}

fn documents(lengths: &[u32]) -> Vec<u32> {
    lengths.iter().flat_map(|n| 0..*n).collect()
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

#[test]
fn every_document_of_a_row_is_shaken_by_its_own_length() {
    let y = noise(5.0, Some(3), &documents(&[3, 50, 1, 20]));
    let mut at = 0;
    for n in [3, 50, 1, 20] {
        let document = &y[at * WIDTH..][..n * WIDTH];
        let bound = 5.0 / ((n * WIDTH) as f64).sqrt();
        let most = largest(document);
        assert!(most <= bound && most > 0.9 * bound, "{n} tokens: {most} of {bound}");
        at += n;
    }
}

#[test]
fn the_noise_is_uniform_with_mean_zero() {
    let y = noise(2.0, Some(8), &documents(&[2000]));
    let bound = 2.0 / (y.len() as f64).sqrt();
    let n = y.len() as f64;
    let (mean, square) = (y.iter().sum::<f64>() / n, y.iter().map(|y| y * y).sum::<f64>() / n);
    // Standard errors of the mean and of the mean square of a uniform variable, times four.
    assert!(mean.abs() < 4.0 * bound / (3.0 * n).sqrt(), "{mean}");
    assert!((square / (bound * bound) - 1.0 / 3.0).abs() < 4.0 * (4.0 / 45.0 / n).sqrt(), "{square}");
    let low = y.iter().filter(|y| **y < -0.5 * bound).count() as f64;
    assert!((low / n - 0.25).abs() < 4.0 * (0.1875 / n).sqrt(), "{low} of {n}");
}

#[test]
fn there_is_none_without_a_seed_or_without_a_size() {
    let positions = documents(&[4, 5]);
    assert!(largest(&noise(5.0, None, &positions)) == 0.0);
    assert!(largest(&noise(0.0, Some(3), &positions)) == 0.0);
}

#[test]
fn a_seed_gives_its_noise_again_and_another_seed_other_noise() {
    let positions = documents(&[6, 7]);
    assert_eq!(noise(5.0, Some(3), &positions), noise(5.0, Some(3), &positions));
    let (a, b) = (noise(5.0, Some(3), &positions), noise(5.0, Some(1 << 40), &positions));
    assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() != b.to_bits()));
}

#[test]
fn a_batch_goes_on_with_the_noise_where_the_one_before_ends() {
    let whole = noise(5.0, Some(u64::MAX - 100), &documents(&[4, 2, 6]));
    let seed = (u64::MAX - 100).wrapping_add(6 * WIDTH as u64);
    assert_eq!(whole[6 * WIDTH..], noise(5.0, Some(seed), &documents(&[6])));
}
