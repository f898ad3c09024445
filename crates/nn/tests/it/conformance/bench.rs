//! One case with parameters and a batch, ready to be evaluated.

use rhumb_core::EvalError;
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_nn::op::{Data, IGNORE};
use rhumb_nn::tape::{Graph, Request, Tape};

use super::cases::{Case, LONG, LONG_N, Shapes};

/// Everything around one evaluation.
pub(super) struct Bench<T: Real> {
    tape: Tape<T>,
    pub(super) params: Vec<T>,
    target: Vec<T>,
    frozen: Vec<T>,
    ids: Vec<u32>,
    positions: Vec<u32>,
    spans: Vec<(u32, u32)>,
    targets: Vec<u32>,
}

impl<T: Real> Bench<T> {
    pub(super) fn new(case: &Case<T>) -> Self {
        let mut g = Graph::new();
        let mut shapes = Shapes::default();
        (case.build)(&mut g, &mut shapes);
        assert_eq!(shapes.used, case.params, "{}: parameters of the table row", case.name);
        let mut rng = Rng::named(5, &case.name);
        // Through f32, so that both types start from the same values.
        let mut draw = |n: usize| (0..n).map(|_| T::of(f64::from(rng.normal() as f32))).collect();
        let (params, target) = (draw(case.params), draw(case.tokens * 64));
        let (positions, spans) = if case.tokens == LONG_N { long_rows() } else { short_rows() };
        Bench {
            tape: Tape::new(g).unwrap(),
            params,
            target,
            frozen: [0.3, -0.2, 0.7, 1.9].map(T::of).to_vec(),
            ids: vec![3, 1, 3, 8, 0, 3],
            positions,
            spans,
            targets: vec![2, IGNORE, 6, 0, 2, 5],
        }
    }

    pub(super) fn with<R>(&mut self, f: impl FnOnce(&mut Tape<T>, &[T], Request<'_, T>) -> R) -> R {
        let len = self.tape.input_lens().first().copied().unwrap_or(0);
        let inputs = [&self.target[..len]];
        let data = Data {
            ids: &self.ids,
            positions: &self.positions,
            spans: &self.spans,
            targets: &self.targets,
            inputs: if len == 0 { &[] } else { &inputs },
        };
        let req = Request { frozen: &self.frozen, data, weight: 0.3, seed: Some(11) };
        f(&mut self.tape, &self.params, req)
    }

    pub(super) fn gradient(&mut self) -> (f64, Vec<T>) {
        let mut g = vec![T::of(f64::NAN); self.params.len()];
        let r = self.with(|t, p, req| t.gradient(p, req, &mut g, false, &mut []).unwrap());
        (r.loss, g)
    }

    pub(super) fn try_hvp(&mut self, v: &[T]) -> Result<Vec<T>, EvalError> {
        let mut out = vec![T::of(f64::NAN); v.len()];
        self.with(|t, p, req| t.hvp(p, req, v, &mut out))?;
        Ok(out)
    }

    pub(super) fn hvp(&mut self, v: &[T]) -> Vec<T> {
        self.try_hvp(v).unwrap()
    }

    pub(super) fn direction(&self, seed: u64) -> Vec<T> {
        let mut rng = Rng::new(seed);
        (0..self.params.len()).map(|_| T::of(f64::from(rng.normal() as f32))).collect()
    }

    pub(super) fn moved(&mut self, v: &[T], by: f64) -> (f64, Vec<T>) {
        let keep = self.params.clone();
        self.params.iter_mut().zip(v).for_each(|(p, v)| *p += T::of(by) * *v);
        let out = self.gradient();
        self.params = keep;
        out
    }
}

type Places = (Vec<u32>, Vec<(u32, u32)>);

/// Row 0 holds two documents, row 1 sees forward as well (bidirectional).
fn short_rows() -> Places {
    (vec![0, 1, 0, 0, 1, 2], vec![(0, 1), (0, 2), (2, 3), (0, 3), (0, 3), (0, 3)])
}

/// Row 0 is causal; row 1 holds documents of 40, 75 and 35 tokens, of which none ends with a block; row 2 is
/// bidirectional with 21 tokens of padding, which see themselves only.
pub(super) fn long_rows() -> Places {
    let causal = |from: u32, n: u32| (0..n).map(move |t| (t, (from, from + t + 1)));
    let len = LONG as u32;
    let packed = causal(0, 40).chain(causal(40, 75)).chain(causal(115, 35));
    let padded = (0..len).map(|t| (t, if t < len - 21 { (0, len - 21) } else { (t, t + 1) }));
    causal(0, len).chain(packed).chain(padded).unzip()
}
