use std::sync::{Mutex, PoisonError};

use rhumb_core::{Curvature, EvalError};
use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};

use super::rows::{Pass, bend_rows, refuse_hessian, rows_in_place};
use super::{LossKind, RowStats};
use crate::op::{Adj, Cx, IGNORE, Ins, Loss, LossReport, Tans};

#[cfg(test)]
mod tests;

/// Bytes of scores that may exist at one time.
const SCORE_BYTES: usize = 64 << 20;

/// The output head of a language model fused with its loss: scores exist for one chunk of live tokens only.
///
/// # Equation
/// `z = h W^T` for live rows, row losses of [`LossKind`], `dh = g W`, `dW = g^T h`, chunk by chunk.
///
/// # Shapes
/// `h [rows, width]`, `W [vocab, width]`; labels from the batch, [`IGNORE`] drops a row before any product.
///
/// # Cost
/// Three products for value and gradient, eight with tangents; scratch independent of the number of rows.
#[derive(Debug)]
pub struct LmHead {
    rows: usize,
    width: usize,
    vocab: usize,
    kind: LossKind,
    pub(super) chunk: usize,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) index: Vec<u32>,
    pub(super) stats: Vec<RowStats>,
}

impl LmHead {
    /// A head with the default chunk.
    pub fn new(rows: usize, width: usize, vocab: usize, kind: LossKind) -> Self {
        let fit = SCORE_BYTES / (vocab.max(1) * 4);
        Self::with_chunk(rows, width, vocab, kind, fit.clamp(16, 1024))
    }

    /// A head that treats `chunk` live rows at a time.
    pub fn with_chunk(rows: usize, width: usize, vocab: usize, kind: LossKind, chunk: usize) -> Self {
        let chunk = chunk.clamp(1, rows.max(1));
        LmHead { rows, width, vocab, kind, chunk, live: Mutex::new(Live::default()) }
    }

    pub(super) fn collect_live(&self, targets: &[u32], live: &mut Vec<u32>) -> Result<(), EvalError> {
        if targets.len() != self.rows {
            return Err(EvalError::Shape { what: "labels", want: self.rows, got: targets.len() });
        }
        live.clear();
        live.reserve(self.rows);
        for (i, &t) in targets.iter().enumerate() {
            if t == IGNORE {
                continue;
            }
            if t as usize >= self.vocab {
                return Err(EvalError::Unsupported(format!(
                    "label {t} of token {i} is outside the vocabulary of {}: does the tokenizer belong to this model?",
                    self.vocab
                )));
            }
            live.push(i as u32);
        }
        Ok(())
    }

    pub(super) fn gather<T: Real>(&self, x: &[T], index: &[u32], to: &mut [T]) {
        for (to, &i) in to.chunks_exact_mut(self.width).zip(index) {
            to.copy_from_slice(&x[i as usize * self.width..][..self.width]);
        }
    }

    /// `tz = th W^T + h tW^T`; the rows `h` are given, `th` is written where the inputs have tangents.
    fn score_tangents<T: Real>(
        &self,
        x: Ins<'_, T>,
        tx: Tans<'_, T>,
        index: &[u32],
        (h, th): (&[T], &mut [T]),
        tz: &mut [T],
    ) {
        let (d, v, n) = (self.width, self.vocab, index.len());
        let mut init = Init::Zero;
        match tx[0] {
            Some(t) => {
                self.gather(t, index, th);
                gemm(true, (n, v, d), T::ONE, tz, v, Mat::rows(th, d), Mat::cols(x[1], d), init);
                init = Init::Keep;
            }
            None => tz.fill(T::ZERO),
        }
        if let Some(tw) = tx[1] {
            gemm(true, (n, v, d), T::ONE, tz, v, Mat::rows(h, d), Mat::cols(tw, d), init);
        }
    }

    fn scatter<T: Real>(&self, from: &[T], index: &[u32], to: &mut [T]) {
        for (from, &i) in from.chunks_exact(self.width).zip(index) {
            let row = &mut to[i as usize * self.width..][..self.width];
            row.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
        }
    }
}

impl<T: Real> Loss<T> for LmHead {
    fn name(&self) -> &'static str {
        "lm-head"
    }

    fn eval(
        &self,
        cx: &Cx<'_, T>,
        x: Ins<'_, T>,
        dx: &mut [Option<Adj<'_, T>>],
    ) -> Result<LossReport, EvalError> {
        let (d, v) = (self.width, self.vocab);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Live { index, stats } = &mut *live;
        self.collect_live(cx.data.targets, index)?;
        let mut report = LossReport::default();
        let scale = T::of(cx.weight);
        let want = !dx.is_empty();
        let (mut dh, mut dw) = match dx {
            [dh, dw] => (dh.as_mut(), dw.as_mut()),
            _ => (None, None),
        };
        for a in [&mut dh].into_iter().flatten() {
            a.prepare_scatter();
        }
        if let (true, Some(a)) = (index.is_empty(), &mut dw) {
            a.prepare_scatter();
        }
        let chunk = self.chunk.min(index.len().max(1));
        let mut zs = cx.scratch.get(chunk * v);
        let mut hs = cx.scratch.get(chunk * d);
        let mut gs = cx.scratch.get(if dh.is_some() { chunk * d } else { 0 });
        for index in index.chunks(self.chunk) {
            let n = index.len();
            let (z, h) = (&mut zs[..n * v], &mut hs[..n * d]);
            self.gather(x[0], index, h);
            gemm(true, (n, v, d), T::ONE, z, v, Mat::rows(h, d), Mat::cols(x[1], d), Init::Zero);
            let label = |i: usize| cx.data.targets[index[i] as usize];
            let pass = if want { Pass::Gradient(scale) } else { Pass::Value };
            rows_in_place(self.kind, z, v, label, pass, stats, &mut report)?;
            if let Some(a) = &mut dh {
                let g = &mut gs[..n * d];
                gemm(true, (n, d, v), T::ONE, g, d, Mat::rows(z, v), Mat::rows(x[1], d), Init::Zero);
                self.scatter(g, index, a.buf);
            }
            if let Some(a) = &mut dw {
                let init = if a.add { Init::Keep } else { Init::Zero };
                gemm(true, (v, d, n), T::ONE, a.buf, d, Mat::cols(z, v), Mat::rows(h, d), init);
                a.add = true;
            }
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
        let (d, v) = (self.width, self.vocab);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Live { index, stats } = &mut *live;
        self.collect_live(cx.data.targets, index)?;
        let mut report = LossReport::default();
        let scale = T::of(cx.weight);
        let ([dh, dw], [tdh, tdw]) = (dx, tdx) else {
            return Err(EvalError::Shape { what: "inputs of the head", want: 2, got: x.len() });
        };
        for a in [dh.as_mut(), dw.as_mut()].into_iter().flatten() {
            a.prepare_scatter();
        }
        for a in [tdh.as_mut(), tdw.as_mut()].into_iter().flatten() {
            a.prepare_scatter();
        }
        let chunk = self.chunk.min(index.len().max(1));
        let mut bufs = [chunk * v, chunk * v, chunk * d, chunk * d, chunk * d].map(|n| cx.scratch.get(n));
        for index in index.chunks(self.chunk) {
            let n = index.len();
            let [z, tz, h, th, g] = &mut bufs;
            let (z, tz) = (&mut z[..n * v], &mut tz[..n * v]);
            let (h, th, g) = (&mut h[..n * d], &mut th[..n * d], &mut g[..n * d]);
            self.gather(x[0], index, h);
            gemm(true, (n, v, d), T::ONE, z, v, Mat::rows(h, d), Mat::cols(x[1], d), Init::Zero);
            self.score_tangents(x, tx, index, (h, th), tz);
            let label = |i: usize| cx.data.targets[index[i] as usize];
            rows_in_place(self.kind, z, v, label, Pass::Tangent(scale, tz), stats, &mut report)?;
            let (z, tz) = (&*z, &*tz);
            if let Some(a) = dh {
                gemm(true, (n, d, v), T::ONE, g, d, Mat::rows(z, v), Mat::rows(x[1], d), Init::Zero);
                self.scatter(g, index, a.buf);
            }
            if let Some(a) = tdh {
                gemm(true, (n, d, v), T::ONE, g, d, Mat::rows(tz, v), Mat::rows(x[1], d), Init::Zero);
                if let Some(tw) = tx[1] {
                    gemm(true, (n, d, v), T::ONE, g, d, Mat::rows(z, v), Mat::rows(tw, d), Init::Keep);
                }
                self.scatter(g, index, a.buf);
            }
            if let Some(a) = dw {
                gemm(true, (v, d, n), T::ONE, a.buf, d, Mat::cols(z, v), Mat::rows(h, d), Init::Keep);
            }
            if let Some(a) = tdw {
                gemm(true, (v, d, n), T::ONE, a.buf, d, Mat::cols(tz, v), Mat::rows(h, d), Init::Keep);
                if tx[0].is_some() {
                    gemm(true, (v, d, n), T::ONE, a.buf, d, Mat::cols(z, v), Mat::rows(th, d), Init::Keep);
                }
            }
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
        let (d, v) = (self.width, self.vocab);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Live { index, stats } = &mut *live;
        self.collect_live(cx.data.targets, index)?;
        let [tdh, tdw] = tdx else {
            return Err(EvalError::Shape { what: "inputs of the head", want: 2, got: x.len() });
        };
        for a in [tdh.as_mut(), tdw.as_mut()].into_iter().flatten() {
            a.prepare_scatter();
        }
        let chunk = self.chunk.min(index.len().max(1));
        let mut bufs = [chunk * v, chunk * v, chunk * d, chunk * d].map(|n| cx.scratch.get(n));
        for index in index.chunks(self.chunk) {
            let n = index.len();
            let [z, tz, h, g] = &mut bufs;
            let (z, tz, h, g) = (&mut z[..n * v], &mut tz[..n * v], &mut h[..n * d], &mut g[..n * d]);
            self.gather(x[0], index, h);
            gemm(true, (n, v, d), T::ONE, z, v, Mat::rows(h, d), Mat::cols(x[1], d), Init::Zero);
            self.score_tangents(x, tx, index, (h, g), tz);
            let label = |i: usize| cx.data.targets[index[i] as usize];
            bend_rows(self.kind, of, z, tz, (v, T::of(cx.weight)), label, stats)?;
            if let Some(a) = tdh {
                gemm(true, (n, d, v), T::ONE, g, d, Mat::rows(tz, v), Mat::rows(x[1], d), Init::Zero);
                self.scatter(g, index, a.buf);
            }
            if let Some(a) = tdw {
                gemm(true, (v, d, n), T::ONE, a.buf, d, Mat::cols(tz, v), Mat::rows(h, d), Init::Keep);
            }
        }
        Ok(())
    }
}
