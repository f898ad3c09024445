use std::sync::{Mutex, PoisonError};

use rhumb_core::{Curvature, EvalError};
use rhumb_linalg::Real;

use super::rows::{Pass, bend_rows, refuse_hessian, rows_in_place};
use super::{LossKind, RowStats};
use crate::op::{Adj, Cx, IGNORE, Ins, Loss, LossReport, Tans};

/// The row losses on scores that already exist, for classifiers.
///
/// # Shapes
/// One input, `[rows, classes]`; labels from the batch.
#[derive(Debug)]
pub struct LogitLoss {
    rows: usize,
    classes: usize,
    kind: LossKind,
    stats: Mutex<Vec<RowStats>>,
}

impl LogitLoss {
    /// A loss on `rows` rows of `classes` scores.
    pub fn new(rows: usize, classes: usize, kind: LossKind) -> Self {
        LogitLoss { rows, classes, kind, stats: Mutex::new(Vec::new()) }
    }

    fn check(&self, targets: &[u32]) -> Result<(), EvalError> {
        if targets.len() != self.rows {
            return Err(EvalError::Shape { what: "labels", want: self.rows, got: targets.len() });
        }
        match targets.iter().position(|&t| t != IGNORE && t as usize >= self.classes) {
            Some(i) => Err(EvalError::Unsupported(format!(
                "label {} of row {i} is outside the {} classes",
                targets[i], self.classes
            ))),
            None => Ok(()),
        }
    }
}

impl<T: Real> Loss<T> for LogitLoss {
    fn name(&self) -> &'static str {
        "logit-loss"
    }

    fn eval(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        dx: &mut [Option<Adj<'_, T>>],
    ) -> Result<LossReport, EvalError> {
        self.check(cx.data.targets)?;
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = LossReport::default();
        let mut z = cx.scratch.get(x[0].len());
        z.copy_from_slice(x[0]);
        let label = |i: usize| cx.data.targets[i];
        let pass = if dx.is_empty() { Pass::Value } else { Pass::Gradient(T::of(cx.weight)) };
        rows_in_place(self.kind, &mut z, self.classes, label, pass, &mut stats, &mut report)?;
        if let Some(Some(d)) = dx.first_mut() {
            d.each(|i| z[i]);
        }
        report.loss *= cx.weight;
        Ok(report)
    }

    fn eval_tangent(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        tx: Tans<'_, T>,
        dx: &mut [Option<Adj<'_, T>>],
        tdx: &mut [Option<Adj<'_, T>>],
    ) -> Result<LossReport, EvalError> {
        refuse_hessian(self.kind)?;
        self.check(cx.data.targets)?;
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = LossReport::default();
        let (mut z, mut tz) = (cx.scratch.get(x[0].len()), cx.scratch.get(x[0].len()));
        z.copy_from_slice(x[0]);
        match tx[0] {
            Some(t) => tz.copy_from_slice(t),
            None => tz.fill(T::ZERO),
        }
        let label = |i: usize| cx.data.targets[i];
        let pass = Pass::Tangent(T::of(cx.weight), &mut tz);
        rows_in_place(self.kind, &mut z, self.classes, label, pass, &mut stats, &mut report)?;
        if let Some(Some(d)) = dx.first_mut() {
            d.each(|i| z[i]);
        }
        if let Some(Some(d)) = tdx.first_mut() {
            d.each(|i| tz[i]);
        }
        report.loss *= cx.weight;
        Ok(report)
    }

    fn curvature(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        tx: Tans<'_, T>,
        of: Curvature,
        tdx: &mut [Option<Adj<'_, T>>],
    ) -> Result<(), EvalError> {
        self.check(cx.data.targets)?;
        let (Some(t), [Some(d)]) = (tx[0], tdx) else { return Ok(()) };
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut z, mut tz) = (cx.scratch.get(t.len()), cx.scratch.get(t.len()));
        z.copy_from_slice(x[0]);
        tz.copy_from_slice(t);
        let label = |i: usize| cx.data.targets[i];
        let sizes = (self.classes, T::of(cx.weight));
        bend_rows(self.kind, of, &mut z, &mut tz, sizes, label, &mut stats)?;
        d.each(|i| tz[i]);
        Ok(())
    }
}
