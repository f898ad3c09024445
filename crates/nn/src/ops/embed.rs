use rhumb_linalg::Real;
use rhumb_linalg::rng::mix;

use crate::kernel;
use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// Rows of a table by token number, plus rows of a position table.
///
/// # Shapes
/// `W [vocab, width]`, `P [positions, width]` (optional second input), `y [rows, width]`. Token numbers and
/// positions come from the batch and must be in range; [`crate::model`] checks them before a sweep.
///
/// # Noise
/// With a seed, scalar `i` of the output gains `u_i noise / sqrt(L width)`, `u` uniform in [-1, 1) and `L` the tokens of
/// the document, within which positions rise. `u_i` is a hash of `seed + i`: a batch whose seed is larger by
/// `rows * width` goes on with the noise of the one before. Jain et al. 2023, arXiv 2310.05914.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// Tokens.
    pub rows: usize,
    /// Columns.
    pub width: usize,
    /// A position table is the second input.
    pub positions: bool,
    /// Size of the noise, `alpha`.
    pub noise: f64,
}

impl Embed {
    fn shake<T: Real>(&self, cx: &Cx<'_, T>, y: &mut [T]) {
        let Some(seed) = cx.seed.filter(|_| self.noise > 0.0) else { return };
        let mut at = 0;
        for document in cx.data.positions.chunk_by(|a, b| a < b) {
            let scalars = document.len() * self.width;
            let size = self.noise / (scalars as f64).sqrt();
            for (i, y) in y[at..at + scalars].iter_mut().enumerate() {
                let bits = mix(seed.wrapping_add((at + i) as u64)) >> 11;
                *y += T::of((bits as f64 / (1u64 << 52) as f64 - 1.0) * size);
            }
            at += scalars;
        }
    }
}

impl<T: Real> Op<T> for Embed {
    fn name(&self) -> &'static str {
        "embedding"
    }
    fn out_len(&self) -> usize {
        self.rows * self.width
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, cx: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        let p = if self.positions { Some(x[1]) } else { None };
        kernel::gather(y, self.width, x[0], cx.data.ids, p.map(|p| (p, cx.data.positions)), false);
        self.shake(cx, y);
    }
    fn backward(&self, cx: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            d.prepare_scatter();
            kernel::scatter_add(d.buf, self.width, dy, cx.data.ids);
        }
        if self.positions
            && let Some(d) = &mut dx[1]
        {
            d.prepare_scatter();
            kernel::scatter_add(d.buf, self.width, dy, cx.data.positions);
        }
    }
    fn forward_tangent(&self, cx: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        let p = if self.positions { tx[1] } else { None };
        match tx[0] {
            Some(w) => {
                kernel::gather(ty, self.width, w, cx.data.ids, p.map(|p| (p, cx.data.positions)), false);
            }
            None => {
                ty.fill(T::ZERO);
                if let Some(p) = p {
                    kernel::gather(ty, self.width, p, cx.data.positions, None, true);
                }
            }
        }
    }
    fn backward_tangent(
        &self,
        cx: &Cx<'_, T>,
        at: Ctx<'_, T>,
        t: TanCtx<'_, T>,
        tdx: &mut [Option<Adj<'_, T>>],
    ) {
        self.backward(cx, at, t.tdy, tdx);
    }
}

#[cfg(test)]
mod tests;
