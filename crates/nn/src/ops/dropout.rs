use rhumb_linalg::Real;
use rhumb_linalg::rng::mix;

use crate::op::{Adj, Ctx, Cx, Ins, Needs, Op, TanCtx, Tans};

/// Inverted dropout: each scalar is zero with probability `rate`, else divided by `1 - rate`.
///
/// The mask is a hash of the step's seed, the number of the layer and the index, so the backward pass
/// computes it again instead of keeping it, and it does not depend on threads. Off (the identity) when the
/// sweep has no seed.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Scalars.
    pub len: usize,
    /// Probability of zero.
    pub rate: f64,
    /// Number of this dropout in its model.
    pub layer: u64,
}

impl Dropout {
    fn scaled<T: Real>(&self, cx: &Cx<'_, T>, x: &[T], y: &mut [T], add: bool) {
        let keep = T::of(1.0 / (1.0 - self.rate));
        let limit = (self.rate * (1u64 << 53) as f64) as u64;
        let base = cx.seed.map(|s| mix(s ^ mix(self.layer)));
        for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let v = match base {
                Some(b) if mix(b.wrapping_add(i as u64)) >> 11 < limit => T::ZERO,
                Some(_) => *x * keep,
                None => *x,
            };
            *y = if add { *y + v } else { v };
        }
    }
}

impl<T: Real> Op<T> for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn out_len(&self) -> usize {
        self.len
    }
    fn needs(&self) -> Needs {
        Needs::NONE
    }
    fn forward(&self, cx: &Cx<'_, T>, x: Ins<'_, T>, y: &mut [T], _: &mut [T]) {
        self.scaled(cx, x[0], y, false);
    }
    fn backward(&self, cx: &Cx<'_, T>, _: Ctx<'_, T>, dy: &[T], dx: &mut [Option<Adj<'_, T>>]) {
        if let Some(d) = &mut dx[0] {
            self.scaled(cx, dy, d.buf, d.add);
        }
    }
    fn forward_tangent(&self, cx: &Cx<'_, T>, _: Ctx<'_, T>, tx: Tans<'_, T>, ty: &mut [T], _: &mut [T]) {
        match tx[0] {
            Some(t) => self.scaled(cx, t, ty, false),
            None => ty.fill(T::ZERO),
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
