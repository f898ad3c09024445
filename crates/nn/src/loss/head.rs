use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rhumb_core::EvalError;
use rhumb_linalg::Real;
use rhumb_linalg::gemm::{Init, Mat, gemm};

use super::row::{LossKind, RowStats, row, row_tangent};
use crate::kernel::simd;
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
    chunk: usize,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    index: Vec<u32>,
    stats: Vec<RowStats>,
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

    fn collect_live(&self, targets: &[u32], live: &mut Vec<u32>) -> Result<(), EvalError> {
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

    fn gather<T: Real>(&self, x: &[T], index: &[u32], to: &mut [T]) {
        for (to, &i) in to.chunks_exact_mut(self.width).zip(index) {
            to.copy_from_slice(&x[i as usize * self.width..][..self.width]);
        }
    }

    fn scatter<T: Real>(&self, from: &[T], index: &[u32], to: &mut [T]) {
        for (from, &i) in from.chunks_exact(self.width).zip(index) {
            let row = &mut to[i as usize * self.width..][..self.width];
            row.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
        }
    }
}

/// Row losses of a chunk of scores, in place; the sums come back in row order.
fn rows_in_place<T: Real>(
    kind: LossKind,
    z: &mut [T],
    vocab: usize,
    labels: impl Fn(usize) -> u32 + Sync,
    scale: Option<T>,
    stats: &mut Vec<RowStats>,
    report: &mut LossReport,
) -> Result<(), EvalError> {
    let n = z.len() / vocab;
    stats.clear();
    stats.resize(n, RowStats::default());
    z.par_chunks_mut(vocab).zip(stats.par_iter_mut()).enumerate().for_each(|(i, (z, s))| {
        let label = labels(i);
        if label == IGNORE {
            if scale.is_some() {
                z.fill(T::ZERO);
            }
        } else {
            *s = simd!(|| row(kind, z, label as usize, scale));
        }
    });
    for (i, s) in stats.iter().enumerate() {
        if labels(i) != IGNORE {
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
    }
    Ok(())
}

fn refuse_hessian(kind: LossKind) -> Result<(), EvalError> {
    match kind {
        LossKind::GemLogsigmoid { .. } => Err(EvalError::Unsupported(
            "gem-logsigmoid holds its weights constant, so its gradient is no gradient of a function and has no \
             Hessian: use ce or gem-linear for curvature"
                .into(),
        )),
        _ => Ok(()),
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
            rows_in_place(self.kind, z, v, label, want.then_some(scale), stats, &mut report)?;
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
            let label = |i: usize| cx.data.targets[index[i] as usize];
            rows_in_place(self.kind, z, v, label, Some(scale), stats, &mut report)?;
            z.par_chunks(v).zip(tz.par_chunks_mut(v)).enumerate().for_each(|(i, (g, tz))| {
                simd!(|| row_tangent(self.kind, g, label(i) as usize, scale, tz));
            });
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
}

/// The same losses on scores that already exist, for classifiers.
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
        let scale = (!dx.is_empty()).then_some(T::of(cx.weight));
        rows_in_place(self.kind, &mut z, self.classes, label, scale, &mut stats, &mut report)?;
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
        let scale = T::of(cx.weight);
        rows_in_place(self.kind, &mut z, self.classes, label, Some(scale), &mut stats, &mut report)?;
        for (i, (g, tz)) in z.chunks(self.classes).zip(tz.chunks_mut(self.classes)).enumerate() {
            if label(i) == IGNORE {
                tz.fill(T::ZERO);
            } else {
                row_tangent(self.kind, g, label(i) as usize, scale, tz);
            }
        }
        if let Some(Some(d)) = dx.first_mut() {
            d.each(|i| z[i]);
        }
        if let Some(Some(d)) = tdx.first_mut() {
            d.each(|i| tz[i]);
        }
        report.loss *= cx.weight;
        Ok(report)
    }
}

/// Loss and statistics of one scored token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Row of the token.
    pub row: usize,
    /// Its label.
    pub label: u32,
    /// Loss, cross-entropy, entropy.
    pub stats: RowStats,
}

/// Per-token losses of hidden rows, without gradients.
///
/// # Errors
/// A label outside the vocabulary.
pub fn score_rows<T: Real>(
    kind: LossKind,
    hidden: &[T],
    weight: &[T],
    width: usize,
    targets: &[u32],
) -> Result<Vec<TokenScore>, EvalError> {
    let vocab = weight.len() / width;
    let head = LmHead::new(targets.len(), width, vocab, kind);
    let mut live = Live::default();
    head.collect_live(targets, &mut live.index)?;
    let mut out = Vec::with_capacity(live.index.len());
    let (mut h, mut z) = (vec![T::ZERO; head.chunk * width], vec![T::ZERO; head.chunk * vocab]);
    for index in live.index.chunks(head.chunk) {
        let n = index.len();
        head.gather(hidden, index, &mut h);
        let (h, z) = (&h[..n * width], &mut z[..n * vocab]);
        gemm(
            true,
            (n, vocab, width),
            T::ONE,
            z,
            vocab,
            Mat::rows(h, width),
            Mat::cols(weight, width),
            Init::Zero,
        );
        let label = |i: usize| targets[index[i] as usize];
        rows_in_place(kind, z, vocab, label, None, &mut live.stats, &mut LossReport::default())?;
        out.extend(index.iter().zip(&live.stats).map(|(&i, &stats)| TokenScore {
            row: i as usize,
            label: targets[i as usize],
            stats,
        }));
    }
    Ok(out)
}
