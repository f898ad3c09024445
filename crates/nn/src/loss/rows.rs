//! The losses of many rows of scores at once.

use rayon::prelude::*;
use rhumb_core::EvalError;
use rhumb_linalg::Real;

use super::row::{RowStats, row, row_tangent};
use super::table::LossKind;
use crate::kernel::simd;
use crate::op::{IGNORE, LossReport};

/// What a pass leaves in the scores.
pub(super) enum Pass<'a, T> {
    /// The scores, or anything.
    Value,
    /// This many times the gradient.
    Gradient(T),
    /// The same, and its tangent in place of that of the scores.
    Tangent(T, &'a mut [T]),
}

/// Row losses of a chunk of scores, in place; the sums come back in row order.
pub(super) fn rows_in_place<T: Real>(
    kind: LossKind,
    z: &mut [T],
    vocab: usize,
    labels: impl Fn(usize) -> u32 + Sync,
    pass: Pass<'_, T>,
    stats: &mut Vec<RowStats>,
    report: &mut LossReport,
) -> Result<(), EvalError> {
    let n = z.len() / vocab;
    stats.clear();
    stats.resize(n, RowStats::default());
    let live = |i: usize| Some(labels(i)).filter(|y| *y != IGNORE).map(|y| y as usize);
    let rows = z.par_chunks_mut(vocab).zip(stats.par_iter_mut()).enumerate();
    match pass {
        Pass::Value => rows.for_each(|(i, (z, s))| {
            if let Some(y) = live(i) {
                *s = simd!(|| row(kind, z, y, None));
            }
        }),
        Pass::Gradient(scale) => rows.for_each(|(i, (z, s))| match live(i) {
            Some(y) => *s = simd!(|| row(kind, z, y, Some(scale))),
            None => z.fill(T::ZERO),
        }),
        Pass::Tangent(scale, tz) => {
            rows.zip(tz.par_chunks_mut(vocab)).for_each(|((i, (z, s)), tz)| match live(i) {
                Some(y) => *s = simd!(|| row_tangent(kind, z, y, scale, tz)),
                None => {
                    z.fill(T::ZERO);
                    tz.fill(T::ZERO);
                }
            });
        }
    }
    for (i, s) in stats.iter().enumerate().filter(|(i, _)| labels(*i) != IGNORE) {
        if s.ce == f64::INFINITY {
            return Err(EvalError::Unsupported(format!(
                "the score of label {} is -inf: the model masks a token that the data asks for",
                labels(i)
            )));
        }
        report.loss += s.loss;
        report.ce += s.ce;
        report.entropy += s.entropy;
        report.correct += u64::from(s.correct);
        report.live += 1;
    }
    Ok(())
}

pub(super) fn refuse_hessian(kind: LossKind) -> Result<(), EvalError> {
    match kind.entry().no_hessian {
        Some(why) => Err(EvalError::Unsupported(why.into())),
        None => Ok(()),
    }
}
