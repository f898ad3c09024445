//! Where the entries of a curvature matrix lie.

use std::ops::Range;

use rhumb_core::SecondOrder;
use rhumb_krylov::symmetric_values;
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::norm;
use serde::{Deserialize, Serialize};

use crate::operator::normal;
use crate::{BlockAt, CurvatureOf, SpectrumError};

/// The most parameters of a matrix that is written out: 200 MB of `f64`.
const DENSE: usize = 5000;

/// A block of the matrix, entry by entry, row-major: a product for every column.
///
/// # Errors
/// [`SpectrumError::Setting`] for more than 5000 parameters; a failed product.
pub fn dense<T: Real, P: SecondOrder<T>>(
    of: &mut CurvatureOf<'_, T, P>,
    block: &BlockAt,
) -> Result<Vec<f64>, SpectrumError> {
    let n = block.dim();
    if n > DENSE {
        return Err(SpectrumError::Setting(format!(
            "block {} has {n} parameters: a matrix is written out for {DENSE} at most",
            block.name
        )));
    }
    let (mut a, mut v, mut out) = (vec![0.0; n * n], vec![T::ZERO; n], vec![Vec::new()]);
    for j in 0..n {
        v[j] = T::ONE;
        of.products(&[block], &[&v], &mut out)?;
        v[j] = T::ZERO;
        for (i, x) in out[0].iter().enumerate() {
            a[i * n + j] = x.f64();
        }
    }
    Ok(a)
}

/// Squared Frobenius norms of the blocks of a matrix of `n` rows between parts of its rows and columns, `[parts, parts]`.
pub fn block_norms(a: &[f64], n: usize, parts: &[Range<usize>]) -> Vec<f64> {
    let square = |r: &Range<usize>, c: &Range<usize>| {
        r.clone().map(|i| a[i * n..][c.clone()].iter().map(|x| x * x).sum::<f64>()).sum::<f64>()
    };
    parts.iter().flat_map(|r| parts.iter().map(move |c| square(r, c))).collect()
}

/// `tau = sum_i |a_ii| / sum_ij |a_ij|`: 1 for a diagonal matrix, about `1 / n` for one without structure.
pub fn tau(a: &[f64], n: usize) -> f64 {
    let all: f64 = a.iter().map(|x| x.abs()).sum();
    let diagonal: f64 = (0..n).map(|i| a[i * n + i].abs()).sum();
    if all > 0.0 { diagonal / all } else { 1.0 }
}

/// How much of the squared Frobenius norm of a matrix lies inside diagonal blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagonality {
    /// The share, between 0 and 1.
    pub share: f64,
    /// Its standard error over the random vectors, by the jackknife.
    pub error: f64,
    /// The share that entries of equal size everywhere would have.
    pub unstructured: f64,
    /// Products that it took.
    pub products: usize,
}

/// The share of the squared Frobenius norm of the block `outer` that lies inside the diagonal blocks of its `parts`,
/// estimated with `probes` random vectors in each of `sample` parts, one at random from each of as many equal stretches: `E |C z|^2 = |C|_F^2` for normal
/// `z`, over the columns of a part.
///
/// # Errors
/// [`SpectrumError::Setting`] for fewer than two vectors in all, no part, or one outside `outer`; a failed product.
///
/// # Cost
/// `min(sample, parts) * probes` products with `outer`.
pub fn block_diagonality<T: Real, P: SecondOrder<T>>(
    of: &mut CurvatureOf<'_, T, P>,
    outer: &BlockAt,
    parts: &[BlockAt],
    (probes, sample): (usize, usize),
    seed: u64,
) -> Result<Diagonality, SpectrumError> {
    let chosen = spread(parts.len(), sample, seed, &outer.name);
    if chosen.len() * probes < 2 {
        return Err(SpectrumError::Setting(
            "a share needs two random vectors and one part at least".to_owned(),
        ));
    }
    let places: Vec<Vec<Range<usize>>> = parts.iter().map(|p| within(outer, p)).collect::<Result<_, _>>()?;
    let (mut z, mut out) = (vec![T::ZERO; outer.dim()], vec![Vec::new()]);
    // Inside and in all, of each vector.
    let mut sums: Vec<(f64, f64)> = Vec::with_capacity(chosen.len() * probes);
    for &i in &chosen {
        for k in 0..probes {
            let draw: Vec<T> = normal(parts[i].dim(), seed, &format!("share/{k}/{}", parts[i].name));
            only(&mut z, &places[i], &draw);
            of.products(&[outer], &[&z], &mut out)?;
            let inside: f64 = places[i].iter().map(|r| norm(&out[0][r.clone()]).powi(2)).sum();
            sums.push((inside, norm(&out[0]).powi(2)));
        }
    }
    let of_all = |skip: Option<usize>| {
        let kept = sums.iter().enumerate().filter(|(k, _)| Some(*k) != skip);
        let (inside, all) = kept.fold((0.0, 0.0), |(a, b), (_, s)| (a + s.0, b + s.1));
        if all > 0.0 { inside / all } else { 1.0 }
    };
    let left: Vec<f64> = (0..sums.len()).map(|k| of_all(Some(k))).collect();
    // Where no part is left out, parts that differ are no error: only the vectors inside each are left to chance.
    let strata: Vec<Vec<f64>> = if chosen.len() == parts.len() && probes > 1 {
        left.chunks(probes).map(<[f64]>::to_vec).collect()
    } else {
        vec![left]
    };
    let variance = |left: &Vec<f64>| {
        let n = left.len() as f64;
        let mean = left.iter().sum::<f64>() / n;
        (n - 1.0) / n * left.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
    };
    let error = strata.iter().map(variance).sum::<f64>().sqrt();
    let columns: usize = chosen.iter().map(|i| parts[*i].dim()).sum();
    let square = |i: &usize| (parts[*i].dim() as f64).powi(2);
    let unstructured = chosen.iter().map(square).sum::<f64>() / (columns * outer.dim()) as f64;
    Ok(Diagonality { share: of_all(None), error, unstructured, products: sums.len() })
}

/// How large a curvature matrix is between its blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormMap {
    /// The blocks.
    pub names: Vec<String>,
    /// Estimates of the squared Frobenius norms between blocks, `[row block, column block]`.
    pub squares: Vec<f64>,
    /// Entries of the matrix there, which a norm has to be seen beside.
    pub entries: Vec<f64>,
    /// Products for each block.
    pub probes: usize,
}

impl NormMap {
    /// The root of the mean square of the entries between two blocks.
    pub fn entry(&self, row: usize, column: usize) -> f64 {
        let at = row * self.names.len() + column;
        (self.squares[at] / self.entries[at]).sqrt()
    }

    /// The share of the squared norm that lies inside the blocks, and the share of the entries.
    pub fn inside(&self) -> (f64, f64) {
        let n = self.names.len();
        let share = |x: &[f64]| {
            let all: f64 = x.iter().sum();
            let diagonal: f64 = (0..n).map(|i| x[i * n + i]).sum();
            if all > 0.0 { diagonal / all } else { 1.0 }
        };
        (share(&self.squares), share(&self.entries))
    }
}

/// The squared Frobenius norms between blocks, from `probes` random vectors in each: `E |C_ij z|^2 = |C_ij|_F^2` for normal
/// `z`.
///
/// # Errors
/// [`SpectrumError::Setting`] without blocks or vectors, or for blocks that share a parameter; a failed product.
///
/// # Cost
/// `probes` products with all blocks together for each of them.
pub fn norm_map<T: Real, P: SecondOrder<T>>(
    of: &mut CurvatureOf<'_, T, P>,
    blocks: &[BlockAt],
    probes: usize,
    seed: u64,
) -> Result<NormMap, SpectrumError> {
    if blocks.is_empty() || probes == 0 {
        return Err(SpectrumError::Setting("a map needs blocks, and a random vector for each".to_owned()));
    }
    disjoint(blocks)?;
    let mut pieces: Vec<Range<usize>> = blocks.iter().flat_map(|b| b.pieces.clone()).collect();
    pieces.sort_by_key(|r| r.start);
    let outer = BlockAt { name: "all blocks".to_owned(), pieces, role: rhumb_core::Role::Other };
    let places: Vec<Vec<Range<usize>>> =
        blocks.iter().map(|b| within(&outer, b)).collect::<Result<_, _>>()?;
    let n = blocks.len();
    let (mut z, mut out) = (vec![T::ZERO; outer.dim()], vec![Vec::new()]);
    let mut squares = vec![0.0; n * n];
    for (j, (block, place)) in blocks.iter().zip(&places).enumerate() {
        for k in 0..probes {
            let draw: Vec<T> = normal(block.dim(), seed, &format!("map/{k}/{}", block.name));
            only(&mut z, place, &draw);
            of.products(&[&outer], &[&z], &mut out)?;
            for (i, place) in places.iter().enumerate() {
                let square: f64 = place.iter().map(|r| norm(&out[0][r.clone()]).powi(2)).sum();
                squares[i * n + j] += square / probes as f64;
            }
        }
    }
    // Each norm was estimated twice, from either side.
    for i in 0..n {
        for j in 0..i {
            let mean = 0.5 * (squares[i * n + j] + squares[j * n + i]);
            (squares[i * n + j], squares[j * n + i]) = (mean, mean);
        }
    }
    let size = |i: usize| blocks[i].dim() as f64;
    Ok(NormMap {
        names: blocks.iter().map(|b| b.name.clone()).collect(),
        squares,
        entries: (0..n * n).map(|at| size(at / n) * size(at % n)).collect(),
        probes,
    })
}

/// Refuses blocks that share a parameter.
///
/// # Errors
/// [`SpectrumError::Setting`] with the names of the two.
pub fn disjoint(blocks: &[BlockAt]) -> Result<(), SpectrumError> {
    let mut pieces: Vec<(&Range<usize>, &str)> =
        blocks.iter().flat_map(|b| b.pieces.iter().map(|r| (r, b.name.as_str()))).collect();
    pieces.sort_by_key(|(r, _)| r.start);
    match pieces.windows(2).find(|w| w[1].0.start < w[0].0.end) {
        Some(w) => {
            let what =
                format!("blocks {} and {} share parameters: a map needs disjoint ones", w[0].1, w[1].1);
            Err(SpectrumError::Setting(what))
        }
        None => Ok(()),
    }
}

/// Makes `z` the vector that has these values in these places, and zeros elsewhere.
fn only<T: Real>(z: &mut [T], places: &[Range<usize>], values: &[T]) {
    z.fill(T::ZERO);
    let mut from = 0;
    for r in places {
        z[r.clone()].copy_from_slice(&values[from..from + r.len()]);
        from += r.len();
    }
}

/// `count` of `n` numbers, one at random from each of as many equal stretches; all where there are fewer. Even distances would
/// meet the same few rows of every head.
fn spread(n: usize, count: usize, seed: u64, name: &str) -> Vec<usize> {
    if count >= n {
        return (0..n).collect();
    }
    let mut rng = Rng::named(seed, &format!("parts/{name}"));
    let edge = |i: usize| i * n / count;
    (0..count).map(|i| edge(i) + rng.below(edge(i + 1) - edge(i))).collect()
}

/// Where a part lies among the parameters of the block around it.
fn within(outer: &BlockAt, part: &BlockAt) -> Result<Vec<Range<usize>>, SpectrumError> {
    let mut offset = 0;
    let mut found = Vec::new();
    for o in &outer.pieces {
        for r in part.pieces.iter().filter(|r| o.start <= r.start && r.end <= o.end) {
            found.push(offset + r.start - o.start..offset + r.end - o.start);
        }
        offset += o.len();
    }
    if found.len() == part.pieces.len() {
        return Ok(found);
    }
    Err(SpectrumError::Setting(format!("{} does not lie inside {}", part.name, outer.name)))
}

/// How a diagonal preconditioner changes the condition number of a symmetric positive definite matrix:
/// `r = kappa(D^1/2 A D^1/2) / kappa(A)`; below 1 it helps. With `d_i = 1 / |g_i|` it is the simplified Adam's.
///
/// `None` for a matrix that is not positive definite or a diagonal that is not positive.
///
/// # Reference
/// Zhang et al., NeurIPS 2024, section 4, Theorem 1 names `r * kappa` of each block.
pub fn preconditioned_condition(a: &[f64], d: &[f64]) -> Option<f64> {
    let n = d.len();
    if a.len() != n * n || d.iter().any(|x| x.is_nan() || *x <= 0.0) {
        return None;
    }
    let condition = |m: &[f64]| {
        let e = symmetric_values(m, n).ok()?;
        let (low, high) = (*e.first()?, *e.last()?);
        (low > 0.0).then_some(high / low)
    };
    let scaled: Vec<f64> = (0..n * n).map(|k| a[k] * (d[k / n] * d[k % n]).sqrt()).collect();
    Some(condition(&scaled)? / condition(a)?)
}
