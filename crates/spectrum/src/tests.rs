#![allow(clippy::unwrap_used, reason = "tests")]

use std::ops::Range;
use std::path::Path;

use rhumb_core::{Curvature, EvalError, Layout, Objective, Role, SecondOrder, StateReader, StateWriter};
use rhumb_krylov::slq::{Quadrature, SlqOptions};
use rhumb_krylov::symmetric_eigen;
use rhumb_linalg::rng::Rng;
use rhumb_nn::model::{
    Decoder, DecoderConfig, DecoderObjective, Mlp, MlpBatch, MlpConfig, MlpLoss, MlpObjective, Targets,
    TokenBatch, init,
};
use rhumb_nn::ops::Act;

use crate::*;

fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.normal()).collect()
}

fn mlp(sizes: &[usize]) -> (MlpObjective<f64>, Vec<f64>) {
    let c =
        MlpConfig { sizes: sizes.to_vec(), activation: Act::Tanh, bias: true, loss: MlpLoss::CrossEntropy };
    let m = Mlp::new(c).unwrap();
    let at = random(m.layout().len(), 1);
    (MlpObjective::new(m), at)
}

fn rows(from: Range<usize>, inputs: usize, classes: usize) -> Sample<MlpBatch<f64>> {
    let x = random(64 * inputs, 2)[from.start * inputs..from.end * inputs].to_vec();
    let labels = from.clone().map(|i| (i * 7 % classes) as u32).collect();
    let n = from.len();
    Sample { batch: MlpBatch { rows: n, inputs: x, targets: Targets::Labels(labels), weight: 0.0 }, rows: n }
}

fn options(steps: usize, starts: usize) -> SlqOptions {
    SlqOptions { steps, starts, ..SlqOptions::default() }
}

fn run<T: rhumb_linalg::Real, P: SecondOrder<T>>(
    of: &mut CurvatureOf<'_, T, P>,
    blocks: Vec<BlockAt>,
    options: SlqOptions,
) -> Vec<BlockSpectrum> {
    let mut run = SlqRun::new(blocks, options).unwrap();
    while !run.step(of).unwrap().done {}
    run.found().to_vec()
}

fn eigenvalues(a: &[f64]) -> Vec<f64> {
    symmetric_eigen(a, (a.len() as f64).sqrt() as usize).unwrap().values
}

/// Eigenvalues of a diagonal block of a matrix of `n` rows.
fn eigenvalues_within(a: &[f64], n: usize, r: &Range<usize>) -> Vec<f64> {
    let sub: Vec<f64> = r.clone().flat_map(|i| a[i * n..][r.clone()].to_vec()).collect();
    eigenvalues(&sub)
}

fn near(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < tolerance, "{g} is not {w}");
    }
}

#[test]
fn the_spectrum_of_every_tensor_is_that_of_its_part_of_the_dense_hessian() {
    let (mut o, at) = mlp(&[3, 5, 4]);
    let samples = [rows(0..16, 3, 4)];
    let layout = o.layout().clone();
    let mut of = CurvatureOf::new(&mut o, &at, &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let h = dense(&mut of, &whole(&layout)).unwrap();
    let mut trace = 0.0;
    for block in blocks(&layout, Cut::Tensor, &[]).unwrap() {
        let n = block.dim();
        let found = &run(&mut of, vec![block.clone()], options(n, 1))[0];
        let want = eigenvalues_within(&h, at.len(), &block.pieces[0]);
        // Scores that are moved alike lose nothing, so that zero is a multiple eigenvalue of the last layer.
        let of = |from: &[f64], x: f64| from.iter().any(|y| (x - y).abs() < 1e-8);
        assert!(found.nodes[0].iter().all(|x| of(&want, *x)), "{}: {:?}", block.name, found.nodes);
        assert!(want.iter().all(|x| of(&found.nodes[0], *x)), "{}: {want:?}", block.name);
        assert!(
            (found.top.value - want[n - 1]).abs() < 1e-10 && found.top.residual < 1e-8,
            "{:?}",
            found.top
        );
        assert!((found.bottom.value - want[0]).abs() < 1e-10);
        trace += want.iter().sum::<f64>();
    }
    let whole_trace: f64 = (0..at.len()).map(|i| h[i * at.len() + i]).sum();
    assert!((trace - whole_trace).abs() < 1e-10);
}

fn decoder() -> Decoder {
    let json = r#"{"model_type": "gpt2", "vocab_size": 7, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8,
        "n_inner": 12, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}"#;
    Decoder::new(DecoderConfig::from_json(&serde_json::from_str(json).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_small_transformer_has_the_spectra_of_its_dense_hessian_and_its_heads_those_of_their_parts() {
    let d = decoder();
    let at: Vec<f64> = init(d.layout(), 1, 0.4, 3);
    let layout = d.layout().clone();
    let mut o =
        DecoderObjective::new(d, rhumb_nn::loss::LossKind::Ce, false, std::sync::Arc::default()).unwrap();
    let batch = TokenBatch::causal(2, 5, vec![1, 4, 2, 6, 0, 3, 3, 5, 1, 2]);
    let samples = [Sample { rows: batch.live(), batch }];
    let mut of = CurvatureOf::new(&mut o, &at, &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let n = at.len();
    let h = dense(&mut of, &whole(&layout)).unwrap();
    let asymmetry = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
    let asymmetry = asymmetry.map(|(i, j)| (h[i * n + j] - h[j * n + i]).abs()).fold(0.0, f64::max);
    assert!(asymmetry < 1e-12, "{asymmetry:e}");
    for cut in [Cut::Tensor, Cut::Head, Cut::Row] {
        let all = blocks(&layout, cut, &[]).unwrap();
        for block in all.iter().step_by(all.len() / 4) {
            let found = &run(&mut of, vec![block.clone()], options(block.dim(), 1))[0];
            let want = eigenvalues_within(&h, n, &block.pieces[0]);
            let scale = want.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
            // A null space ends the run before its last step: every node is an eigenvalue, not the other way round.
            for node in &found.nodes[0] {
                assert!(
                    want.iter().any(|w| (w - node).abs() < 1e-8 * scale.max(1e-3)),
                    "{}: {node}",
                    block.name
                );
            }
            assert!(
                (found.top.value - want[want.len() - 1]).abs() < 1e-8 * scale.max(1e-3),
                "{}",
                block.name
            );
        }
    }
}

#[test]
fn lock_step_gives_each_block_the_bits_that_it_has_alone() {
    let (mut o, at) = mlp(&[3, 6, 4]);
    let samples = [rows(0..5, 3, 4), rows(5..8, 3, 4)];
    let all = blocks(&o.layout().clone(), Cut::Tensor, &["*.weight".to_owned()]).unwrap();
    let mut of = CurvatureOf::new(&mut o, &at, &samples, Curvature::GaussNewton, Reduction::Mean).unwrap();
    let together = run(&mut of, all.clone(), options(6, 2));
    for (i, block) in all.into_iter().enumerate() {
        assert_eq!(run(&mut of, vec![block], options(6, 2))[0], together[i]);
    }
}

#[test]
fn unequal_batches_have_the_mean_over_rows_and_the_sum_grows_with_their_number() {
    let (mut o, at) = mlp(&[3, 5, 4]);
    let v = random(at.len(), 4);
    let block = whole(&o.layout().clone());
    let mut product = |samples: &[Sample<MlpBatch<f64>>], reduction| {
        let mut out = vec![Vec::new()];
        let mut of = CurvatureOf::new(&mut o, &at, samples, Curvature::Hessian, reduction).unwrap();
        of.products(&[&block], &[&v], &mut out).unwrap();
        out.remove(0)
    };
    let one = product(&[rows(0..16, 3, 4)], Reduction::Mean);
    let parts = [rows(0..5, 3, 4), rows(5..8, 3, 4), rows(8..16, 3, 4)];
    near(&product(&parts, Reduction::Mean), &one, 1e-12);
    let equal = [rows(0..8, 3, 4), rows(8..16, 3, 4)];
    let twice: Vec<f64> = one.iter().map(|x| 2.0 * x).collect();
    near(&product(&equal, Reduction::Sum), &twice, 1e-12);
}

#[test]
fn a_saved_run_goes_on_to_the_same_bits() {
    let (mut o, at) = mlp(&[3, 6, 4]);
    let samples = [rows(0..9, 3, 4)];
    let all = blocks(&o.layout().clone(), Cut::Tensor, &["*.weight".to_owned()]).unwrap();
    let mut of = CurvatureOf::new(&mut o, &at, &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let want = run(&mut of, all.clone(), options(7, 2));
    let path = Path::new("state");
    let mut bytes = Vec::new();
    for start in [0, 1] {
        let mut first = SlqRun::<f64>::new(all.clone(), options(7, 2)).unwrap();
        while first.place() != (Step { start, step: 3, done: false }) {
            first.step(&mut of).unwrap();
        }
        bytes.clear();
        let mut w = StateWriter::new(&mut bytes, path).unwrap();
        first.save(&mut w).unwrap();
        w.finish().unwrap();
        let mut second = SlqRun::<f64>::new(all.clone(), options(7, 2)).unwrap();
        second.load(&mut StateReader::from_bytes(bytes.clone(), path).unwrap()).unwrap();
        assert_eq!(second.place(), first.place());
        while !second.step(&mut of).unwrap().done {}
        assert_eq!(second.found(), want);
    }
    let mut other = SlqRun::<f64>::new(all[..1].to_vec(), options(7, 2)).unwrap();
    let e = other.load(&mut StateReader::from_bytes(bytes, path).unwrap()).unwrap_err().to_string();
    assert!(e.contains("other blocks"), "{e}");
}

#[test]
fn more_steps_than_parameters_are_refused_with_the_block() {
    let (o, _) = mlp(&[3, 5, 4]);
    let all = blocks(o.layout(), Cut::Tensor, &[]).unwrap();
    let e = SlqRun::<f64>::new(all, options(9, 1)).err().unwrap().to_string();
    assert!(e.contains("9 Lanczos steps") && e.contains("layers.0.bias") && e.contains("(5)"), "{e}");
    assert!(SlqRun::<f64>::new(Vec::new(), options(1, 1)).err().unwrap().to_string().contains("block"));
}

/// The half square of the parameters, with what goes wrong in a model.
struct Faulty {
    layout: Layout,
    calls: u32,
    noise: f64,
}

impl Objective<f64> for Faulty {
    type Batch = f64;
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn value_grad(&mut self, at: &[f64], _: &f64, grad: &mut [f64]) -> Result<f64, EvalError> {
        grad.copy_from_slice(at);
        Ok(0.5 * at.iter().map(|x| x * x).sum::<f64>())
    }
}

impl SecondOrder<f64> for Faulty {
    fn hvp(&mut self, _: &[f64], batch: &f64, v: &[f64], out: &mut [f64]) -> Result<(), EvalError> {
        self.calls += 1;
        let by = batch + self.noise * f64::from(self.calls);
        out.iter_mut().zip(v).for_each(|(o, v)| *o = by * v);
        Ok(())
    }
}

fn faulty(noise: f64) -> Faulty {
    let mut layout = Layout::new();
    layout.push("good", &[2], Role::Other);
    layout.push("bad", &[3], Role::Other);
    Faulty { layout, calls: 0, noise }
}

#[test]
fn a_batch_that_is_not_finite_is_named_with_its_block() {
    let mut o = faulty(0.0);
    let samples = [Sample { batch: 1.0, rows: 1 }, Sample { batch: f64::NAN, rows: 1 }];
    let all = blocks(&o.layout, Cut::Tensor, &["bad".to_owned()]).unwrap();
    let mut of = CurvatureOf::new(&mut o, &[0.0; 5], &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let e = SlqRun::new(all, options(2, 1)).unwrap().step(&mut of).unwrap_err().to_string();
    assert!(e.contains("block bad") && e.contains("batch 1"), "{e}");
}

#[test]
fn an_objective_with_noise_in_it_is_refused() {
    let samples = [Sample { batch: 1.0, rows: 1 }];
    for (noise, refused) in [(0.0, false), (1e-9, true)] {
        let mut o = faulty(noise);
        let all = blocks(&o.layout, Cut::Tensor, &[]).unwrap();
        let all: Vec<&BlockAt> = all.iter().collect();
        let mut of =
            CurvatureOf::new(&mut o, &[0.0; 5], &samples, Curvature::Hessian, Reduction::Mean).unwrap();
        match of.check(&all, 0) {
            Ok(c) => assert!(!refused && c.asymmetry < 1e-14),
            Err(e) => assert!(refused && e.to_string().contains("dropout"), "{e}"),
        }
    }
    let mut o = faulty(0.0);
    let e = CurvatureOf::new(&mut o, &[0.0; 5], &[], Curvature::Hessian, Reduction::Mean);
    assert!(e.err().unwrap().to_string().contains("no batch"));
}

#[test]
fn an_objective_without_gauss_newton_says_so_with_the_batch() {
    let mut o = faulty(0.0);
    let samples = [Sample { batch: 1.0, rows: 1 }];
    let all = blocks(&o.layout, Cut::Tensor, &[]).unwrap();
    let mut of =
        CurvatureOf::new(&mut o, &[0.0; 5], &samples, Curvature::GaussNewton, Reduction::Mean).unwrap();
    let e = SlqRun::new(all, options(2, 1)).unwrap().step(&mut of).unwrap_err().to_string();
    assert!(e.contains("batch 0") && e.contains("operator hessian"), "{e}");
}

#[test]
fn divergences_have_their_exact_values() {
    for (p, q, want) in [
        (&[0.5, 0.5][..], &[1.0, 0.0][..], 0.215_761_554_338_836),
        (&[1.0, 0.0], &[0.0, 1.0], std::f64::consts::LN_2),
        (&[0.1, 0.2, 0.7], &[0.3, 0.3, 0.4], 0.051_912_259_238_103),
        (&[0.3, 0.7], &[0.3, 0.7], 0.0),
    ] {
        assert!((js(p, q) - want).abs() < 1e-12, "{} is not {want}", js(p, q));
        assert!((js(q, p) - want).abs() < 1e-12);
    }
}

fn spectrum(name: &str, values: &[f64]) -> BlockSpectrum {
    let q = Quadrature::exact(values);
    let (pair, all) = (|value| RitzPair { value, residual: 0.0 }, 0..values.len());
    BlockSpectrum {
        block: BlockAt { name: name.to_owned(), pieces: vec![all], role: Role::Other },
        top: pair(*q.nodes.last().unwrap()),
        bottom: pair(q.nodes[0]),
        nodes: vec![q.nodes],
        weights: vec![q.weights],
    }
}

#[test]
fn spectra_that_differ_by_a_factor_differ_only_where_the_axis_keeps_it() {
    let values: Vec<f64> = (1..=40).map(f64::from).collect();
    let times = |c: f64| values.iter().map(|x| c * x).collect::<Vec<_>>();
    let pair = [spectrum("a", &values), spectrum("b", &times(1000.0))];
    let d = divergences(&pair, Axis::Scaled, 0.05).unwrap();
    assert!(d.mean < 1e-9 && d.names == ["a", "b"], "{}", d.mean);
    let raw = divergences(&pair, Axis::Raw, 0.5).unwrap();
    assert!(raw.mean > 0.6, "a thousand times as wide: {}", raw.mean);
    let log = divergences(&pair, Axis::Log, 0.05).unwrap();
    assert!((log.mean - std::f64::consts::LN_2).abs() < 1e-3, "three decades apart: {}", log.mean);
    assert!(divergences(&pair, Axis::ScaledLog, 0.05).unwrap().mean < 1e-9);
    assert!((log.paper_scale * log.step - log.mean).abs() < 1e-12);
    let flat = [spectrum("a", &values), spectrum("b", &values), spectrum("c", &[1.0; 40])];
    let d = divergences(&flat, Axis::Scaled, 0.05).unwrap();
    assert!(d.at(0, 1) < 1e-12 && (d.at(0, 2) - d.at(2, 1)).abs() < 1e-12 && d.at(0, 2) > 0.3);
    assert!((d.mean - 2.0 / 3.0 * d.at(0, 2)).abs() < 1e-12);
    assert!(matches!(d.farthest(), Some((0 | 1, 2))));
    let zero = [spectrum("a", &values), spectrum("null", &[0.0; 3])];
    assert!(divergences(&zero, Axis::Scaled, 0.05).unwrap_err().to_string().contains("block null is zero"));
    assert!(divergences(&pair[..1], Axis::Scaled, 0.05).is_err());
}

#[test]
fn the_share_inside_blocks_is_that_of_the_dense_matrix_within_its_error() {
    let (mut o, at) = mlp(&[3, 5, 4]);
    let samples = [rows(0..16, 3, 4)];
    let layout = o.layout().clone();
    let mut of = CurvatureOf::new(&mut o, &at, &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let n = at.len();
    let h = dense(&mut of, &whole(&layout)).unwrap();
    let all = blocks(&layout, Cut::Tensor, &[]).unwrap();
    let parts: Vec<Range<usize>> = all.iter().map(|b| b.pieces[0].clone()).collect();
    let norms = block_norms(&h, n, &parts);
    let k = parts.len();
    let total: f64 = h.iter().map(|x| x * x).sum();
    assert!((norms.iter().sum::<f64>() - total).abs() < 1e-12 * total);
    let share = (0..k).map(|i| norms[i * k + i]).sum::<f64>() / total;
    let found = block_diagonality(&mut of, &whole(&layout), &all, (200, 99), 0).unwrap();
    assert!((found.share - share).abs() < 4.0 * found.error, "{found:?}, exact {share}");
    assert!(found.error < 0.1 && found.error > 1e-4, "{found:?}");
    let want: f64 = parts.iter().map(|r| (r.len() as f64 / n as f64).powi(2)).sum();
    assert!((found.unstructured - want).abs() < 1e-15);
    assert!(block_diagonality(&mut of, &whole(&layout), &all[..1], (1, 9), 0).is_err());
    let e = block_diagonality(&mut of, &all[0], &all[1..], (2, 9), 0).unwrap_err().to_string();
    assert!(e.contains("layers.0.bias does not lie inside layers.0.weight"), "{e}");
}

#[test]
fn tau_and_the_preconditioned_condition_number_have_their_closed_forms() {
    assert!((tau(&[2.0, 0.0, 0.0, -3.0], 2) - 1.0).abs() < 1e-15);
    assert!((tau(&[1.0; 9], 3) - 1.0 / 3.0).abs() < 1e-15);
    // diag(1, 100) with D = diag(1, 1/100) becomes the identity.
    let a = [1.0, 0.0, 0.0, 100.0];
    assert!((preconditioned_condition(&a, &[1.0, 0.01]).unwrap() - 0.01).abs() < 1e-15);
    assert!((preconditioned_condition(&a, &[3.0, 3.0]).unwrap() - 1.0).abs() < 1e-12);
    assert!(preconditioned_condition(&[1.0, 0.0, 0.0, -1.0], &[1.0, 1.0]).is_none());
    assert!(preconditioned_condition(&a, &[1.0, 0.0]).is_none());
}

/// `1/2 (v w x - y)^2` at `w = 1, v = 2, x = 1, y = 1/2`: the Hessian is `[[4, 3.5], [3.5, 1]]`.
fn smallest() -> FnObjective<f64, impl FnMut(&[f64], &mut [f64]) -> f64> {
    let mut layout = Layout::new();
    layout.push("w", &[1], Role::Other);
    layout.push("v", &[1], Role::Other);
    FnObjective::with_layout(layout, |p: &[f64], g: &mut [f64]| {
        let r = p[0] * p[1] - 0.5;
        (g[0], g[1]) = (r * p[1], r * p[0]);
        0.5 * r * r
    })
}

#[test]
fn the_smallest_non_convex_problem_has_its_eigenvalues_blocks_and_determinant() {
    let mut o = smallest();
    let samples = [Sample { batch: (), rows: 1 }];
    let layout = Objective::<f64>::layout(&o).clone();
    let mut of =
        CurvatureOf::new(&mut o, &[1.0, 2.0], &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let found = run(&mut of, vec![whole(&layout)], options(2, 1));
    near(&found[0].nodes[0], &[-1.307_886_552_932, 6.307_886_552_932], 1e-8);
    let parts = run(&mut of, blocks(&layout, Cut::Tensor, &[]).unwrap(), options(1, 1));
    near(&[parts[0].top.value, parts[1].top.value], &[4.0, 1.0], 1e-8);
    assert!((parts[0].trace().0 + parts[1].trace().0 - 5.0).abs() < 1e-8);
}

/// Rounding falls and truncation grows with the step.
#[test]
fn differences_of_gradients_are_best_near_the_default_step() {
    fn error<T: rhumb_linalg::Real>(step: f64) -> f64 {
        let f = |p: &[T], g: &mut [T]| {
            g.iter_mut().zip(p).for_each(|(g, p)| *g = p.exp());
            p.iter().map(|p| p.f64().exp()).sum()
        };
        let at: Vec<T> = random(50, 1).into_iter().map(T::of).collect();
        let v: Vec<T> = random(50, 2).into_iter().map(T::of).collect();
        let mut out = vec![T::ZERO; 50];
        FnObjective::new(50, f).with_step(step).hvp(&at, &(), &v, &mut out).unwrap();
        let want: Vec<f64> = at.iter().zip(&v).map(|(a, v)| a.f64().exp() * v.f64()).collect();
        let off = out.iter().zip(&want).map(|(a, b)| (a.f64() - b).powi(2)).sum::<f64>().sqrt();
        off / want.iter().map(|x| x * x).sum::<f64>().sqrt()
    }
    let (best, large, small) = (error::<f64>(1e-5), error::<f64>(1e-1), error::<f64>(1e-10));
    assert!(best < 1e-8 && large > 1e3 * best && small > 1e3 * best, "{best:e} {large:e} {small:e}");
    let (best, large, small) = (error::<f32>(1e-3), error::<f32>(3.0), error::<f32>(1e-6));
    assert!(best < 2e-3 && large > 10.0 * best && small > 10.0 * best, "{best:e} {large:e} {small:e}");
}

#[test]
fn a_slice_follows_the_loss_and_a_normalised_direction_the_size_of_each_filter() {
    let mut o = smallest();
    let s = slice(&mut o, &[1.0, 2.0], &[1.0, 0.0], &(), &[-1.0, 0.0, 1.0, f64::INFINITY]).unwrap();
    let want = [0.125, 1.125, 6.125];
    for (got, want) in s.losses.iter().zip(want) {
        assert!((got.unwrap() - want).abs() < 1e-12);
    }
    assert_eq!(s.losses[3], None);
    let mut layout = Layout::new();
    layout.push("w", &[2, 2], Role::Mlp);
    layout.push("b", &[2], Role::Bias);
    let at = [3.0, 4.0, 0.0, 0.0, 7.0, 7.0];
    let d = filter_normalised(&layout, &at, &[0.0, 2.0, 1.0, 1.0, 5.0, 5.0]);
    near(&d, &[0.0, 5.0, 0.0, 0.0, 0.0, 0.0], 1e-15);
}

/// Squared coefficient of variation of the rows of a diagonal, within groups of `size` rows.
fn spread_of_diagonal(diagonal: &[f64], cols: usize, size: usize) -> f64 {
    let rows: Vec<f64> = diagonal.chunks(cols).map(|r| r.iter().sum::<f64>() / cols as f64).collect();
    let (mut variance, mut square) = (0.0, 0.0);
    for group in rows.chunks(size) {
        let mean = group.iter().sum::<f64>() / size as f64;
        variance += group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
        square += mean * mean;
    }
    variance / square
}

#[test]
fn the_spread_of_rows_and_heads_is_that_of_the_dense_matrix_within_its_error() {
    let json = r#"{"model_type": "llama", "vocab_size": 7, "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 8, "rms_norm_eps": 1e-5}"#;
    let d = Decoder::new(DecoderConfig::from_json(&serde_json::from_str(json).unwrap()).unwrap()).unwrap();
    let layout = d.layout().clone();
    let at: Vec<f64> = init(&layout, 1, 0.4, 3);
    let mut objective =
        DecoderObjective::new(d, rhumb_nn::loss::LossKind::Ce, false, std::sync::Arc::default()).unwrap();
    let batch = TokenBatch::causal(2, 5, vec![1, 4, 2, 6, 0, 3, 3, 5, 1, 2]);
    let samples = [Sample { rows: batch.live(), batch }];
    let mut of =
        CurvatureOf::new(&mut objective, &at, &samples, Curvature::GaussNewton, Reduction::Mean).unwrap();
    let names: Vec<String> =
        layout.blocks().iter().filter(|b| b.shape.len() > 1).map(|b| b.name.clone()).collect();
    let found = sharing(&mut of, &layout, &names, (60, 3), &mut |_| true).unwrap();
    assert_eq!(found.len(), names.len());
    let stopped = sharing(&mut of, &layout, &names, (60, 3), &mut |p| p < 2);
    assert!(matches!(stopped, Err(SpectrumError::Stopped)));
    let mut headed = 0;
    for s in &found {
        let block = blocks(&layout, Cut::Tensor, std::slice::from_ref(&s.tensor)).unwrap().remove(0);
        let n = block.dim();
        let a = dense(&mut of, &block).unwrap();
        let diagonal: Vec<f64> = (0..n).map(|i| a[i * n + i]).collect();
        let shape = &layout.find(&s.tensor).unwrap().shape;
        let near = |got: Spread, size: usize| {
            let want = spread_of_diagonal(&diagonal, shape[1], size);
            assert!((got.cv2 - want).abs() < 4.0 * got.error + 1e-9, "{}: {got:?}, {want}", s.tensor);
            assert!(got.error < 0.5 * want.max(0.3), "{}: {got:?}, {want}", s.tensor);
        };
        near(s.whole, shape[0]);
        if let Some(heads) = s.heads {
            headed += 1;
            let parts = blocks(&layout, Cut::Head, std::slice::from_ref(&s.tensor)).unwrap().len();
            near(heads, shape[0] / parts);
        }
    }
    assert_eq!(headed, 3, "queries, keys and values");
}

#[test]
fn a_spread_needs_vectors_matrices_and_curvature() {
    let (mut m, at) = mlp(&[3, 4, 2]);
    let layout = Objective::<f64>::layout(&m).clone();
    let samples = [rows(0..8, 3, 2)];
    let of_name = |name: &str, probes: usize, at: &[f64], m: &mut MlpObjective<f64>| {
        let mut of = CurvatureOf::new(m, at, &samples, Curvature::GaussNewton, Reduction::Mean).unwrap();
        sharing(&mut of, &layout, &[name.to_owned()], (probes, 0), &mut |_| true)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let matrix = layout.blocks().iter().find(|b| b.shape.len() == 2).unwrap().name.clone();
    let vector = layout.blocks().iter().find(|b| b.shape.len() == 1).unwrap().name.clone();
    assert!(of_name(&matrix, 2, &at, &mut m).contains("3 or more"));
    assert!(of_name(&vector, 4, &at, &mut m).contains(&vector));
    // With all weights zero nothing before the last layer changes the scores.
    let zero = vec![0.0; at.len()];
    assert!(of_name(&matrix, 4, &zero, &mut m).contains("no positive curvature"));
}

#[test]
fn the_residual_is_that_of_the_ritz_vector_and_not_a_bound_below_the_precision_of_products() {
    let c =
        MlpConfig { sizes: vec![3, 8, 4], activation: Act::Tanh, bias: true, loss: MlpLoss::CrossEntropy };
    let m = Mlp::new(c).unwrap();
    let at: Vec<f32> = random(m.layout().len(), 1).iter().map(|x| *x as f32).collect();
    let block = blocks(m.layout(), Cut::Tensor, &[]).unwrap().remove(0);
    let mut o = MlpObjective::<f32>::new(m);
    let wide = rows(0..16, 3, 4);
    let inputs = wide.batch.inputs.iter().map(|x| *x as f32).collect();
    let labels = (0..16).map(|i| i * 7 % 4).collect();
    let batch = MlpBatch { rows: 16, inputs, targets: Targets::Labels(labels), weight: 0.0 };
    let samples = [Sample { batch, rows: 16 }];
    let mut of = CurvatureOf::new(&mut o, &at, &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let options = options(20, 1);
    let found = run(&mut of, vec![block.clone()], options).remove(0);
    let x = top_vector(&mut of, &block, &options).unwrap();
    let mut out = vec![Vec::new()];
    of.products(&[&block], &[&x], &mut out).unwrap();
    let off: f64 =
        out[0].iter().zip(&x).map(|(c, x)| (f64::from(*c) - found.top.value * f64::from(*x)).powi(2)).sum();
    assert!((off.sqrt() / found.top.residual - 1.0).abs() < 1e-9, "{off:e} {:e}", found.top.residual);
    // Twenty steps are nearly all of 24 dimensions: the bound is far below what f32 can tell.
    assert!(
        found.top.residual > 1e-9 && found.top.residual < 1e-5 * found.top.value,
        "{:e}",
        found.top.residual
    );
}

#[test]
fn advice_follows_the_decades_and_says_whether_start_vectors_agree() {
    let two = |nodes: [Vec<Vec<f64>>; 2]| -> Vec<BlockSpectrum> {
        let block = |(i, n): (usize, &Vec<Vec<f64>>)| {
            let all = n.iter().flatten().copied();
            let mut b = spectrum(&format!("b{i}"), &[1.0]);
            b.top.value = all.clone().fold(f64::NEG_INFINITY, f64::max);
            b.bottom.value = all.fold(f64::INFINITY, f64::min);
            b.weights = n.iter().map(|x| vec![1.0 / x.len() as f64; x.len()]).collect();
            b.nodes = n.clone();
            b
        };
        nodes.iter().enumerate().map(block).collect()
    };
    // The magnitude counts, not the sign.
    let a = Advice::of(&two([vec![vec![-40.0, 3.0], vec![-39.0, 3.0]], vec![vec![5.0], vec![4.9]]])).unwrap();
    assert_eq!((a.expectation, a.is_settled()), (Expectation::Nothing, true));
    assert_eq!((a.largest.clone(), a.smallest.clone()), (("b0".into(), 40.0), ("b1".into(), 5.0)));
    assert!((a.decades[0] - 8.0f64.log10()).abs() < 1e-12);
    let a = Advice::of(&two([vec![vec![100.0], vec![900.0]], vec![vec![1.0], vec![1.0]]])).unwrap();
    assert_eq!(a.expectation, Expectation::Much);
    assert_eq!(a.single, [Expectation::Little, Expectation::Much]);
    assert!(!a.is_settled());
    let one = Advice::of(&two([vec![vec![100.0]], vec![vec![1.0]]])).unwrap();
    assert!(one.expectation == Expectation::Little && !one.is_settled());
    assert!(Advice::of(&[spectrum("alone", &[1.0])]).is_err());
    let dead = Advice::of(&two([vec![vec![1.0]], vec![vec![0.0]]])).unwrap_err().to_string();
    assert!(dead.contains("b1"), "{dead}");
}

#[test]
fn the_map_of_norms_is_that_of_the_dense_matrix_within_chance() {
    let (mut o, at) = mlp(&[3, 5, 4]);
    let samples = [rows(0..16, 3, 4)];
    let layout = Objective::<f64>::layout(&o).clone();
    let mut of = CurvatureOf::new(&mut o, &at, &samples, Curvature::Hessian, Reduction::Mean).unwrap();
    let h = dense(&mut of, &whole(&layout)).unwrap();
    // In another order than that of the layout.
    let mut parts = blocks(&layout, Cut::Tensor, &[]).unwrap();
    parts.swap(0, 2);
    let map = norm_map(&mut of, &parts, 400, 1).unwrap();
    let n = layout.len();
    let ranges: Vec<Range<usize>> = parts.iter().map(|p| p.pieces[0].clone()).collect();
    let want = block_norms(&h, n, &ranges);
    for (i, (got, want)) in map.squares.iter().zip(&want).enumerate() {
        assert!((got / want - 1.0).abs() < 0.25, "{} and {}: {got} {want}", i / parts.len(), i % parts.len());
    }
    let all: f64 = want.iter().sum();
    let diagonal: f64 = (0..parts.len()).map(|i| want[i * parts.len() + i]).sum();
    let (inside, entries) = map.inside();
    assert!((inside - diagonal / all).abs() < 0.05, "{inside} {}", diagonal / all);
    let even: f64 = ranges.iter().map(|r| (r.len() as f64).powi(2)).sum::<f64>() / (n * n) as f64;
    assert!((entries - even).abs() < 1e-12);
    assert!(
        (map.entry(0, 1) - (map.squares[1] / (ranges[0].len() * ranges[1].len()) as f64).sqrt()).abs()
            < 1e-15
    );
    assert!(norm_map(&mut of, &[], 1, 0).is_err() && norm_map(&mut of, &parts, 0, 0).is_err());
    let twice = [parts[0].clone(), parts[0].clone()];
    let e = norm_map(&mut of, &twice, 1, 0).unwrap_err().to_string();
    assert!(e.contains(&parts[0].name) && e.contains("disjoint"), "{e}");
    let n = parts.len();
    assert!((0..n * n).all(|k| map.squares[k].to_bits() == map.squares[k % n * n + k / n].to_bits()));
}

/// A linear map without a bias, on 12 rows of 3 inputs, and its probabilities or outputs.
fn linear(loss: MlpLoss, outputs: usize) -> (MlpObjective<f64>, Vec<f64>, Vec<f64>) {
    let c = MlpConfig { sizes: vec![3, outputs], activation: Act::Tanh, bias: false, loss };
    let m = Mlp::new(c).unwrap();
    let at = random(m.layout().len(), 4);
    (MlpObjective::new(m), at, random(12 * 3, 5))
}

fn assert_hessian(
    (m, at): (&mut MlpObjective<f64>, &[f64]),
    batch: MlpBatch<f64>,
    want: impl Fn(usize, usize) -> f64,
) {
    let samples = [Sample { rows: batch.rows, batch }];
    let all = whole(Objective::<f64>::layout(m));
    let n = all.dim();
    // The model is linear: Gauss-Newton is the Hessian.
    for of in [Curvature::Hessian, Curvature::GaussNewton] {
        let mut c = CurvatureOf::new(&mut *m, at, &samples, of, Reduction::Mean).unwrap();
        let h = dense(&mut c, &all).unwrap();
        for k in 0..n * n {
            let want = want(k / n, k % n);
            assert!((h[k] - want).abs() <= 1e-8 * want.abs().max(1e-3), "{of:?} {k}: {} {want}", h[k]);
        }
    }
}

#[test]
fn least_squares_have_the_hessian_of_their_formula() {
    let outputs = 2;
    let (mut m, at, x) = linear(MlpLoss::Mse, outputs);
    let batch =
        MlpBatch { rows: 12, inputs: x.clone(), targets: Targets::Values(random(24, 6)), weight: 0.0 };
    // 2 / (N C) X'X for every output, nothing between outputs.
    assert_hessian((&mut m, &at), batch, |a, b| {
        let (o, i, p, j) = (a / 3, a % 3, b / 3, b % 3);
        let gram: f64 = (0..12).map(|r| x[r * 3 + i] * x[r * 3 + j]).sum();
        if o == p { 2.0 / (12 * outputs) as f64 * gram } else { 0.0 }
    });
}

#[test]
fn softmax_regression_has_the_hessian_of_its_formula() {
    for classes in [2, 4] {
        let (mut m, at, x) = linear(MlpLoss::CrossEntropy, classes);
        let labels = (0..12).map(|i| i % classes as u32).collect();
        let batch = MlpBatch { rows: 12, inputs: x.clone(), targets: Targets::Labels(labels), weight: 0.0 };
        let p: Vec<Vec<f64>> = (0..12)
            .map(|r| {
                let z = |c: usize| (0..3).map(|i| at[c * 3 + i] * x[r * 3 + i]).sum::<f64>();
                let e: Vec<f64> = (0..classes).map(|c| z(c).exp()).collect();
                let sum: f64 = e.iter().sum();
                e.iter().map(|e| e / sum).collect()
            })
            .collect();
        // The mean over rows of (diag p - p p') x x'; for two classes s (1 - s) x x' up to the sign.
        assert_hessian((&mut m, &at), batch, |a, b| {
            let (c, i, d, j) = (a / 3, a % 3, b / 3, b % 3);
            let row = |r: usize| {
                let diagonal = if c == d { p[r][c] } else { 0.0 };
                (diagonal - p[r][c] * p[r][d]) * x[r * 3 + i] * x[r * 3 + j]
            };
            (0..12).map(row).sum::<f64>() / 12.0
        });
    }
}
