use super::Spectrum;
use crate::KrylovError;

/// The most points of a grid: 32 MiB of `f64`.
const POINTS: usize = 1 << 22;

/// Points at equal distances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The first point.
    pub start: f64,
    /// Distance between points.
    pub step: f64,
    /// Number of points.
    pub points: usize,
}

impl Grid {
    /// `points` points from `start` to `end`.
    ///
    /// # Errors
    /// [`KrylovError::Setting`] for fewer than two points, more than 2^22, or an end that does not lie after the start.
    pub fn new(start: f64, end: f64, points: usize) -> Result<Self, KrylovError> {
        if !(2..=POINTS).contains(&points) {
            return Err(KrylovError::setting(
                "the number of points",
                points as f64,
                format!("2 to {POINTS}"),
            ));
        }
        let length = end - start;
        if !(length > 0.0 && length.is_finite()) {
            return Err(KrylovError::setting("the length of the grid", length, "positive"));
        }
        Ok(Grid { start, step: length / (points - 1) as f64, points })
    }

    /// A grid for smoothing by `sigma`: a quarter of it between points, six times of it beyond both ends.
    ///
    /// # Errors
    /// [`KrylovError::Setting`] for a width that is not positive, or so small beside the range that the grid would have
    /// more than 2^22 points.
    pub fn covering(low: f64, high: f64, sigma: f64) -> Result<Self, KrylovError> {
        positive(sigma)?;
        let (start, end) = (low - 6.0 * sigma, high + 6.0 * sigma);
        let points = ((end - start) / (0.25 * sigma)).ceil() + 1.0;
        if points.is_nan() || points > POINTS as f64 {
            let least = (high - low) * 4.0 / (POINTS - 64) as f64;
            let allowed = format!("{least:.3e} or more for eigenvalues from {low:.3e} to {high:.3e}");
            return Err(KrylovError::setting("the smoothing width", sigma, allowed));
        }
        Grid::new(start, end, points as usize)
    }

    /// Point `i`.
    pub fn at(&self, i: usize) -> f64 {
        self.start + i as f64 * self.step
    }
}

fn positive(sigma: f64) -> Result<(), KrylovError> {
    if sigma > 0.0 && sigma.is_finite() {
        Ok(())
    } else {
        Err(KrylovError::setting("the smoothing width", sigma, "positive"))
    }
}

/// A density on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Density {
    /// Where.
    pub grid: Grid,
    /// Values at the points.
    pub values: Vec<f64>,
}

impl Density {
    /// Riemann's sum over the grid.
    pub fn integral(&self) -> f64 {
        self.values.iter().sum::<f64>() * self.grid.step
    }

    /// Divided by its [`integral`](Density::integral).
    #[must_use]
    pub fn normalised(mut self) -> Self {
        let total = self.integral();
        if total > 0.0 {
            self.values.iter_mut().for_each(|v| *v /= total);
        }
        self
    }

    /// `int |p - q|`: zero for equal densities, 2 for disjoint ones.
    ///
    /// # Errors
    /// [`KrylovError::Grid`] when the grids differ.
    pub fn l1(&self, other: &Density) -> Result<f64, KrylovError> {
        if self.grid != other.grid || self.values.len() != other.values.len() {
            return Err(KrylovError::Grid);
        }
        let sum: f64 = self.values.iter().zip(&other.values).map(|(p, q)| (p - q).abs()).sum();
        Ok(sum * self.grid.step)
    }
}

/// Gauss curves of width `sigma` around the images of the nodes, weighted and averaged over the runs.
pub(super) fn smooth(
    spectrum: &Spectrum,
    grid: &Grid,
    sigma: f64,
    place: impl Fn(f64) -> f64,
) -> Result<Density, KrylovError> {
    positive(sigma)?;
    if spectrum.runs.is_empty() {
        return Err(KrylovError::setting("the number of runs", 0.0, "1 or more"));
    }
    if !(grid.step > 0.0 && grid.step <= 0.5 * sigma * (1.0 + 1e-12)) {
        // Peaks would fall between the points.
        let allowed = format!("at most {:.3e}, half of the smoothing width", 0.5 * sigma);
        return Err(KrylovError::setting("the step of the grid", grid.step, allowed));
    }
    let mut values = vec![0.0; grid.points];
    let height = 1.0 / (sigma * (2.0 * std::f64::consts::PI).sqrt() * spectrum.runs.len() as f64);
    // Beyond nine widths a Gauss curve is below 3e-18 of its peak.
    let reach = (9.0 * sigma / grid.step).ceil();
    for run in &spectrum.runs {
        for (&node, &weight) in run.nodes.iter().zip(&run.weights) {
            let t = place(node);
            let middle = ((t - grid.start) / grid.step).round();
            let first = (middle - reach).max(0.0) as usize;
            let end = ((middle + reach + 1.0).max(0.0) as usize).min(grid.points);
            for i in first..end {
                let d = (grid.at(i) - t) / sigma;
                values[i] += weight * height * (-0.5 * d * d).exp();
            }
        }
    }
    Ok(Density { grid: *grid, values })
}
