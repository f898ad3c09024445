//! Gauss-Newton and empirical Fisher matrices against their definitions, entry by entry.

use rhumb_core::{Curvature, EvalError, Objective, Product, SecondOrder};
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{
    Decoder, DecoderConfig, DecoderObjective, Family, Mlp, MlpBatch, MlpConfig, MlpLoss, MlpObjective,
    Targets, TokenBatch, init,
};
use rhumb_nn::op::IGNORE;
use rhumb_nn::ops::Act;

const ROWS: usize = 4;

fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.normal()).collect()
}

fn net(sizes: &[usize], loss: MlpLoss) -> (MlpObjective<f64>, Vec<f64>, MlpBatch<f64>) {
    let m = Mlp::new(MlpConfig { sizes: sizes.to_vec(), activation: Act::Tanh, bias: true, loss }).unwrap();
    let targets = match loss {
        MlpLoss::Mse => Targets::Values(random(ROWS * m.outputs(), 3)),
        _ => Targets::Labels((0..ROWS).map(|i| (i % m.outputs()) as u32).collect()),
    };
    let batch = MlpBatch { rows: ROWS, inputs: random(ROWS * m.inputs(), 2), targets, weight: 0.0 };
    let at = random(m.layout().len(), 1);
    (MlpObjective::new(m), at, batch)
}

fn dense<P: SecondOrder<f64>>(o: &mut P, at: &[f64], batch: &P::Batch, of: Curvature) -> Vec<Vec<f64>> {
    let n = at.len();
    let whole = 0..n;
    (0..n)
        .map(|i| {
            let (mut v, mut out) = (vec![0.0; n], vec![f64::NAN; n]);
            v[i] = 1.0;
            let block = std::slice::from_ref(&whole);
            o.products(at, batch, &mut [Product { of, block, v: &v, out: &mut out }]).unwrap();
            out
        })
        .collect()
}

/// `d score / d parameter` by central differences, `[rows * outputs][parameters]`.
fn jacobian(o: &mut MlpObjective<f64>, at: &[f64], batch: &MlpBatch<f64>) -> Vec<Vec<f64>> {
    let outputs = o.model().outputs();
    let mut j = vec![vec![0.0; at.len()]; ROWS * outputs];
    for p in 0..at.len() {
        let mut scores = [1e-5, -1e-5].map(|h| {
            let mut moved = at.to_vec();
            moved[p] += h;
            let mut z = vec![0.0; ROWS * outputs];
            o.predict(&moved, ROWS, &batch.inputs, &mut z).unwrap();
            z
        });
        let minus = scores[1].clone();
        scores[0].iter_mut().zip(&minus).zip(&mut j).for_each(|((a, b), row)| row[p] = (*a - b) / 2e-5);
    }
    j
}

fn assert_near(got: &[Vec<f64>], want: impl Fn(usize, usize) -> f64, tolerance: f64) {
    let mut largest = 0.0_f64;
    for (a, row) in got.iter().enumerate() {
        for (b, g) in row.iter().enumerate() {
            assert!((g - want(a, b)).abs() < tolerance, "entry {a}, {b}: {g} and {}", want(a, b));
            largest = largest.max(g.abs());
        }
    }
    assert!(largest > 100.0 * tolerance, "the matrix is too small to tell anything: {largest}");
}

#[test]
fn gauss_newton_of_cross_entropy_is_the_jacobian_around_the_curvature_of_the_softmax() {
    let (mut o, at, batch) = net(&[3, 5, 4], MlpLoss::CrossEntropy);
    let j = jacobian(&mut o, &at, &batch);
    let mut z = vec![0.0; ROWS * 4];
    o.predict(&at, ROWS, &batch.inputs, &mut z).unwrap();
    let p: Vec<f64> = z
        .chunks(4)
        .flat_map(|z| {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            z.iter().map(move |z| z.exp() / sum).collect::<Vec<_>>()
        })
        .collect();
    let want = |a: usize, b: usize| -> f64 {
        (0..ROWS)
            .map(|n| {
                let r = n * 4..(n + 1) * 4;
                let mean = |c: usize| r.clone().map(|i| p[i] * j[i][c]).sum::<f64>();
                r.clone().map(|i| p[i] * j[i][a] * j[i][b]).sum::<f64>() - mean(a) * mean(b)
            })
            .sum::<f64>()
            / ROWS as f64
    };
    assert_near(&dense(&mut o, &at, &batch, Curvature::GaussNewton), want, 1e-8);
}

#[test]
fn gauss_newton_of_the_squared_error_is_twice_the_square_of_the_jacobian_over_the_outputs() {
    let (mut o, at, batch) = net(&[3, 5, 2], MlpLoss::Mse);
    let j = jacobian(&mut o, &at, &batch);
    let want = |a: usize, b: usize| j.iter().map(|r| r[a] * r[b]).sum::<f64>() * 2.0 / (ROWS * 2) as f64;
    assert_near(&dense(&mut o, &at, &batch, Curvature::GaussNewton), want, 1e-8);
}

#[test]
fn gauss_newton_of_a_linear_model_is_its_hessian() {
    for loss in [MlpLoss::CrossEntropy, MlpLoss::Mse] {
        let (mut o, at, batch) = net(&[3, 4], loss);
        let h = dense(&mut o, &at, &batch, Curvature::Hessian);
        assert_near(&dense(&mut o, &at, &batch, Curvature::GaussNewton), |a, b| h[a][b], 1e-13);
    }
}

#[test]
fn the_empirical_fisher_is_the_mean_outer_product_of_row_gradients() {
    let (mut o, at, batch) = net(&[3, 5, 4], MlpLoss::CrossEntropy);
    let Targets::Labels(labels) = &batch.targets else { unreachable!() };
    let rows: Vec<Vec<f64>> = (0..ROWS)
        .map(|i| {
            let inputs = batch.inputs[i * 3..][..3].to_vec();
            let one = MlpBatch { rows: 1, inputs, targets: Targets::Labels(vec![labels[i]]), weight: 0.0 };
            let mut g = vec![0.0; at.len()];
            o.value_grad(&at, &one, &mut g).unwrap();
            g
        })
        .collect();
    let want = |a: usize, b: usize| rows.iter().map(|g| g[a] * g[b]).sum::<f64>() / ROWS as f64;
    assert_near(&dense(&mut o, &at, &batch, Curvature::EmpiricalFisher), want, 1e-13);
}

#[test]
fn the_squared_error_has_no_empirical_fisher() {
    let (mut o, at, batch) = net(&[3, 2], MlpLoss::Mse);
    let n = at.len();
    let (v, mut out, whole) = (vec![1.0; n], vec![0.0; n], 0..n);
    let block = std::slice::from_ref(&whole);
    let request = Product { of: Curvature::EmpiricalFisher, block, v: &v, out: &mut out };
    let e = o.products(&at, &batch, &mut [request]).unwrap_err();
    assert!(matches!(&e, EvalError::Unsupported(s) if s.contains("choose the operator ggn")), "{e}");
}

fn decoder() -> Decoder {
    let json = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12, "tie_word_embeddings": true,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"}"#;
    let c = DecoderConfig::from_json(&serde_json::from_str(json).unwrap()).unwrap();
    assert_eq!(c.family, Family::Llama);
    Decoder::new(c).unwrap()
}

/// One row of the batch has one live label, so that its gradient is that of the row.
#[test]
fn the_matrices_of_a_decoder_agree_with_their_definitions_through_the_fused_head() {
    let d = decoder();
    let at: Vec<f64> = init(d.layout(), 2, 0.3, 5);
    let mut batch = TokenBatch::causal(2, 4, vec![1, 5, 2, 9, 3, 3, 10, 0]);
    let mut o = DecoderObjective::new(d, LossKind::Ce, false, std::sync::Arc::default()).unwrap();
    let live: Vec<usize> = (0..8).filter(|i| batch.targets[*i] != IGNORE).collect();
    let mut want = vec![0.0; at.len()];
    let v = random(at.len(), 9);
    let all = batch.targets.clone();
    for i in &live {
        batch.targets = (0..8).map(|k| if k == *i { all[k] } else { IGNORE }).collect();
        let mut g = vec![0.0; at.len()];
        o.value_grad(&at, &batch, &mut g).unwrap();
        let along: f64 = g.iter().zip(&v).map(|(g, v)| g * v).sum();
        want.iter_mut().zip(&g).for_each(|(w, g)| *w += along * g / live.len() as f64);
    }
    batch.targets = all;
    let whole = 0..at.len();
    let block = std::slice::from_ref(&whole);
    let (mut fisher, mut gn, mut h) = (want.clone(), want.clone(), want.clone());
    let mut requests = [
        Product { of: Curvature::EmpiricalFisher, block, v: &v, out: &mut fisher },
        Product { of: Curvature::GaussNewton, block, v: &v, out: &mut gn },
        Product { of: Curvature::Hessian, block, v: &v, out: &mut h },
    ];
    o.products(&at, &batch, &mut requests).unwrap();
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let off: Vec<f64> = fisher.iter().zip(&want).map(|(a, b)| a - b).collect();
    assert!(norm(&off) < 1e-12 * norm(&want), "{}", norm(&off) / norm(&want));
    let curvature = |x: &[f64]| x.iter().zip(&v).map(|(x, v)| x * v).sum::<f64>();
    assert!(curvature(&gn) > 0.0 && curvature(&fisher) > 0.0);
    let apart: Vec<f64> = gn.iter().zip(&h).map(|(a, b)| a - b).collect();
    assert!(norm(&apart) > 1e-3 * norm(&h), "the second derivatives of the scores left no trace");
}
