//! Generated images in ten classes.

use rhumb_linalg::rng::{Rng, mix};

use super::net::HELD_OUT;

/// Ten smooth patterns, each shifted, scaled in brightness and covered with noise.
pub(super) struct Images {
    patterns: Vec<Vec<f32>>,
    seed: u64,
}

/// Blobs that make a pattern.
const BLOBS: usize = 5;
/// Standard deviation of the noise; patterns have about 1. With 0.8 every net learns all there is, and none can be told apart.
const NOISE: f64 = 3.0;

impl Images {
    pub(super) const SIDE: usize = 16;
    pub(super) const LEN: usize = Self::SIDE * Self::SIDE;
    pub(super) const CLASSES: usize = 10;

    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::named(seed, "images");
        let side = Self::SIDE as f64;
        let patterns = (0..Self::CLASSES)
            .map(|_| {
                let blobs: Vec<[f64; 4]> = (0..BLOBS)
                    .map(|_| {
                        let sign = if rng.uniform() < 0.5 { -1.0 } else { 1.0 };
                        [side * rng.uniform(), side * rng.uniform(), 1.0 + 2.0 * rng.uniform(), 2.0 * sign]
                    })
                    .collect();
                let value = |k: usize| {
                    let (y, x) = ((k / Self::SIDE) as f64, (k % Self::SIDE) as f64);
                    let blob = |b: &[f64; 4]| {
                        b[3] * (-((y - b[0]).powi(2) + (x - b[1]).powi(2)) / (2.0 * b[2] * b[2])).exp()
                    };
                    blobs.iter().map(blob).sum::<f64>() as f32
                };
                (0..Self::LEN).map(value).collect()
            })
            .collect();
        Images { patterns, seed }
    }

    /// `rows` images and their classes; batches below [`HELD_OUT`] are for training.
    pub(super) fn batch(&self, rows: usize, i: usize) -> (Vec<f32>, Vec<u32>) {
        let purpose = if i < HELD_OUT { "train" } else { "held out" };
        let mut rng = Rng::named(mix(self.seed ^ mix(i as u64)), purpose);
        let (mut images, mut labels) = (Vec::with_capacity(rows * Self::LEN), Vec::with_capacity(rows));
        for _ in 0..rows {
            let class = rng.below(Self::CLASSES);
            labels.push(class as u32);
            let (dy, dx) = (rng.below(5) as isize - 2, rng.below(5) as isize - 2);
            let bright = 0.7 + 0.6 * rng.uniform();
            for k in 0..Self::LEN {
                let (y, x) = ((k / Self::SIDE) as isize + dy, (k % Self::SIDE) as isize + dx);
                let inside = (0..Self::SIDE as isize).contains(&y) && (0..Self::SIDE as isize).contains(&x);
                let at = (y * Self::SIDE as isize + x) as usize;
                let p = if inside { f64::from(self.patterns[class][at]) } else { 0.0 };
                images.push((bright * p + NOISE * rng.normal()) as f32);
            }
        }
        (images, labels)
    }
}
