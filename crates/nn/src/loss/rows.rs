//! The losses of many rows of scores at once.

use rhumb_core::{Curvature, EvalError};
use rhumb_linalg::par::ParSliceMut;
use rhumb_linalg::{Real, compiled};

use super::row::{RowStats, row, row_tangent};
use super::table::LossKind;
use crate::kernel::{dot, simd};
use crate::op::{IGNORE, LossReport};

/// What a pass leaves in the scores.
pub(super) enum Pass<'a, T> {
    /// The scores, or anything.
    Value,
    /// This many times the gradient.
    Gradient(T),
    /// The same, and its tangent in place of that of the scores.
    Tangent(T, &'a mut [T]),
    /// The gradient, and this many times its outer product with itself applied to the tangent of the scores.
    Outer(T, &'a mut [T]),
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
        Pass::Outer(scale, tz) => {
            rows.zip(tz.par_chunks_mut(vocab)).for_each(|((i, (z, s)), tz)| match live(i) {
                Some(y) => {
                    *s = simd!(|| row(kind, z, y, Some(T::ONE)));
                    let along = scale * dot(z, tz);
                    tz.iter_mut().zip(z.iter()).for_each(|(t, g)| *t = along * *g);
                }
                None => tz.fill(T::ZERO),
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

/// Losses of many rows of scores, on all threads; with `scale`, the scores become `scale` times the gradient.
///
/// # Shapes
/// `z [rows, classes]`, `labels [rows]`; [`IGNORE`] gives a row without loss and with gradient zero. `stats` is
/// overwritten, one entry a row; the report holds sums over rows.
///
/// # Errors
/// A length that does not fit, a label outside the classes or on a score of `-inf`.
///
/// # Cost
/// The scores are read twice with a gradient and once without; no memory beside `stats`.
pub fn row_losses<T: Real>(
    kind: LossKind,
    z: &mut [T],
    classes: usize,
    labels: &[u32],
    scale: Option<T>,
    stats: &mut Vec<RowStats>,
) -> Result<LossReport, EvalError> {
    if labels.len().checked_mul(classes) != Some(z.len()) {
        let want = labels.len().saturating_mul(classes);
        return Err(EvalError::Shape { what: "scores", want, got: z.len() });
    }
    if let Some(i) = labels.iter().position(|y| *y != IGNORE && *y as usize >= classes) {
        return Err(EvalError::Unsupported(format!(
            "label {} of row {i} is outside the {classes} classes",
            labels[i]
        )));
    }
    T::compiled::<Losses<'_>>((kind, z, classes, labels, scale, stats))
}

type Arguments<'a, T> = (LossKind, &'a mut [T], usize, &'a [u32], Option<T>, &'a mut Vec<RowStats>);

compiled!(
    Losses<'a>,
    |(kind, z, classes, labels, scale, stats): Arguments<'a, T>| -> Result<LossReport, EvalError> {
        let mut report = LossReport::default();
        let pass = scale.map_or(Pass::Value, Pass::Gradient);
        rows_in_place(kind, z, classes.max(1), |i| labels[i], pass, stats, &mut report).map(|()| report)
    }
);

/// Replaces tangents of scores by `scale` times the curvature of each row's loss applied to them; `z` is lost.
pub(super) fn bend_rows<T: Real>(
    kind: LossKind,
    of: Curvature,
    z: &mut [T],
    tz: &mut [T],
    (classes, scale): (usize, T),
    labels: impl Fn(usize) -> u32 + Sync,
    stats: &mut Vec<RowStats>,
) -> Result<(), EvalError> {
    let pass = match of {
        Curvature::EmpiricalFisher => Pass::Outer(scale, tz),
        Curvature::Hessian | Curvature::GaussNewton => {
            refuse_hessian(kind)?;
            Pass::Tangent(scale, tz)
        }
    };
    rows_in_place(kind, z, classes, labels, pass, stats, &mut LossReport::default())
}

pub(super) fn refuse_hessian(kind: LossKind) -> Result<(), EvalError> {
    match kind.entry().no_hessian {
        Some(why) => Err(EvalError::Unsupported(why.into())),
        None => Ok(()),
    }
}
