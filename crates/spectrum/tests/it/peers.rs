//! Products, eigenvalues and traces of curvlinops on the same nets; `reference/curvature_peers.py` wrote them, and
//! stopped unless hessian-eigenthings and PyHessian agreed.
//!
//! One convention differs: where labels are ignored, curvlinops' empirical Fisher matrix counts them as samples.

use std::path::Path;
use std::sync::Arc;

use rhumb_core::{Block, Curvature, Layout, Objective, SecondOrder};
use rhumb_krylov::{EigenOptions, Which, eigenpairs};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::vec::{dot, norm};
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{
    Decoder, DecoderConfig, DecoderObjective, ImageBatch, ImageModel, ImageObjective, Mlp, MlpBatch,
    MlpObjective, Statistics, Targets, TokenBatch,
};
use rhumb_nn::op::IGNORE;
use rhumb_spectrum::{CurvatureOf, Reduction, Sample, whole};
use serde_json::Value;

const KINDS: [(&str, Curvature); 3] = [
    ("hessian", Curvature::Hessian),
    ("gauss-newton", Curvature::GaussNewton),
    ("empirical-fisher", Curvature::EmpiricalFisher),
];

struct Fixture {
    case: &'static str,
    json: Value,
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn unit(n: usize, i: usize) -> Vec<f64> {
    let mut v = vec![0.0; n];
    v[i] = 1.0;
    v
}

impl Fixture {
    fn read(case: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join(format!("../../fixtures/hessian/peers-{case}.json"));
        Fixture { case, json: serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap() }
    }

    fn count(&self, key: &str) -> usize {
        self.json[key].as_u64().unwrap() as usize
    }

    fn rng(&self, purpose: &str) -> Rng {
        Rng::named(self.json["seed"].as_u64().unwrap(), purpose)
    }

    fn signed(&self, purpose: &str, n: usize) -> Vec<f64> {
        let mut rng = self.rng(purpose);
        (0..n).map(|_| 2.0 * rng.uniform() - 1.0).collect()
    }

    fn below(&self, purpose: &str, n: usize, limit: usize) -> Vec<u32> {
        let mut rng = self.rng(purpose);
        (0..n).map(|_| rng.below(limit) as u32).collect()
    }

    /// A stream for each tensor, in the order of the layout.
    fn tensors(&self, layout: &Layout, prefix: &str, f: impl Fn(&Block, f64) -> f64) -> Vec<f64> {
        let stream = |b: &Block| self.signed(&format!("{prefix}{}", b.name), b.range.len());
        layout
            .blocks()
            .iter()
            .flat_map(|b| stream(b).into_iter().map(|u| f(b, u)).collect::<Vec<_>>())
            .collect()
    }

    fn vector(&self, layout: &Layout, prefix: &str) -> Vec<f64> {
        self.tensors(layout, prefix, |_, u| u)
    }

    fn mlp(&self) -> (MlpObjective<f64>, Vec<f64>, Sample<MlpBatch<f64>>) {
        let m = Mlp::new(serde_json::from_value(self.json["config"].clone()).unwrap()).unwrap();
        let scale = |b: &Block, u: f64| u * if b.name.ends_with("bias") { 0.2 } else { 0.8 };
        let (at, rows) = (self.tensors(m.layout(), "", scale), self.count("rows"));
        let inputs = self.signed("inputs", rows * m.inputs());
        let targets = Targets::Labels(self.below("labels", rows, m.outputs()));
        (MlpObjective::new(m), at, Sample { batch: MlpBatch { rows, inputs, targets, weight: 0.0 }, rows })
    }

    fn cnn(&self) -> (ImageObjective<f64>, Vec<f64>, Sample<ImageBatch<f64>>) {
        let m = ImageModel::new(serde_json::from_value(self.json["config"].clone()).unwrap()).unwrap();
        let scale = |b: &Block, u: f64| match &b.shape[..] {
            [_, rest @ ..] if !rest.is_empty() => u * (3.0 / rest.iter().product::<usize>() as f64).sqrt(),
            _ => u * 0.05,
        };
        let (at, rows) = (self.tensors(m.layout(), "", scale), self.count("rows"));
        let images = self.signed("images", rows * m.inputs());
        let batch =
            ImageBatch { rows, images, labels: self.below("labels", rows, m.config().classes), weight: 0.0 };
        (ImageObjective::new(m, LossKind::Ce, Statistics::Batch), at, Sample { batch, rows })
    }

    fn decoder(&self) -> (DecoderObjective<f64>, Vec<f64>, Sample<TokenBatch>) {
        let d = Decoder::new(DecoderConfig::from_json(&self.json["config"]).unwrap()).unwrap();
        let scale = |b: &Block, u: f64| if b.shape.len() == 1 { 1.0 + 0.1 * u } else { 0.08 * u };
        let at = self.tensors(d.layout(), "", scale);
        let (rows, len) = (self.count("batch"), self.count("length"));
        let batch = TokenBatch::causal(rows, len, self.below("tokens", rows * len, d.config().vocab));
        let o = DecoderObjective::new(d, LossKind::Ce, false, Arc::default()).unwrap();
        (o, at, Sample { rows: batch.live(), batch })
    }

    fn check<P: SecondOrder<f64>>(&self, (mut o, at, sample): (P, Vec<f64>, Sample<P::Batch>)) {
        let layout = o.layout().clone();
        assert_eq!(at.len(), self.count("parameters"));
        let loss = o.value_grad(&at, &sample.batch, &mut vec![0.0; at.len()]).unwrap();
        assert!((loss / self.json["loss"].as_f64().unwrap() - 1.0).abs() < 1e-12, "{}: {loss}", self.case);
        let samples = [sample];
        for (kind, of) in KINDS {
            let mut of = CurvatureOf::new(&mut o, &at, &samples, of, Reduction::Mean).unwrap();
            self.products(&mut of, &layout, kind);
            self.eigenvalues_and_trace(&mut of, &layout, kind);
        }
    }

    /// Norms in every tensor and projections, to 1e-9 of the product.
    fn products<P: SecondOrder<f64>>(&self, of: &mut CurvatureOf<'_, f64, P>, layout: &Layout, kind: &str) {
        let want = &self.json[kind];
        let vectors: Vec<Vec<f64>> =
            (0..self.count("vectors")).map(|k| self.vector(layout, &format!("v{k}/"))).collect();
        let (block, n) = (whole(layout), layout.len() as f64);
        let blocks = vec![&block; vectors.len()];
        let vs: Vec<&[f64]> = vectors.iter().map(Vec::as_slice).collect();
        let mut outs = vec![Vec::new(); vectors.len()];
        of.products(&blocks, &vs, &mut outs).unwrap();
        for (k, out) in outs.iter().enumerate() {
            let size = norm(out);
            let near = |what: &str, got: f64, want: f64| {
                let off = (got - want).abs() / size;
                assert!(off < 1e-9, "{} {kind}, vector {k}, {what}: {got} and {want}", self.case);
            };
            for (b, want) in layout.blocks().iter().zip(numbers(&want["norms"][k])) {
                near(&b.name, norm(&out[b.range.clone()]), want);
            }
            for (j, want) in numbers(&want["projections"][k]).into_iter().enumerate() {
                let p = self.vector(layout, &format!("p{j}/"));
                // A projection is as large as the part of the product that lies in one direction.
                let unit = norm(&p) / n.sqrt();
                near("a projection", dot(out, &p) / unit, want / unit);
            }
        }
    }

    fn eigenvalues_and_trace<P: SecondOrder<f64>>(
        &self,
        of: &mut CurvatureOf<'_, f64, P>,
        layout: &Layout,
        kind: &str,
    ) {
        let (want, block) = (numbers(&self.json[kind]["top"]), whole(layout));
        let options = EigenOptions {
            which: Which::Largest,
            count: want.len(),
            tolerance: 1e-6,
            ..EigenOptions::default()
        };
        let found = eigenpairs(&mut of.block(&block), &options).unwrap();
        for (i, (got, want)) in found.values.iter().zip(&want).enumerate() {
            assert!(found.residuals[i] <= 1e-6 * found.values[0]);
            assert!(
                (got / want - 1.0).abs() < 1e-4,
                "{} {kind}, eigenvalue {i}: {got} and {want}",
                self.case
            );
        }
        let n = block.dim();
        let (mut got, mut outs) = (0.0, vec![Vec::new(); 60]);
        for first in (0..n).step_by(outs.len()) {
            let units: Vec<Vec<f64>> = (first..n.min(first + outs.len())).map(|i| unit(n, i)).collect();
            let vs: Vec<&[f64]> = units.iter().map(Vec::as_slice).collect();
            of.products(&vec![&block; vs.len()], &vs, &mut outs[..vs.len()]).unwrap();
            got += (0..vs.len()).map(|i| outs[i][first + i]).sum::<f64>();
        }
        let want = self.json[kind]["trace"].as_f64().unwrap();
        assert!((got / want - 1.0).abs() < 1e-9, "{} {kind}: trace {got} and {want}", self.case);
    }
}

#[test]
fn a_perceptron_has_the_curvature_that_curvlinops_finds() {
    let f = Fixture::read("mlp");
    assert_eq!(f.count("vectors"), 20);
    f.check(f.mlp());
}

#[test]
fn an_image_net_has_the_curvature_that_curvlinops_finds() {
    let f = Fixture::read("cnn");
    f.check(f.cnn());
}

#[test]
fn a_decoder_has_the_curvature_that_curvlinops_finds_one_label_being_a_sample() {
    let f = Fixture::read("decoder");
    f.check(f.decoder());
}

/// Ignored labels count as samples in curvlinops: its matrix is larger by the labels over those alive.
#[test]
fn ignored_labels_are_no_samples_of_our_fisher_matrix() {
    let f = Fixture::read("mlp");
    let (mut o, at, mut sample) = f.mlp();
    let layout = o.layout().clone();
    let (block, v) = (whole(&layout), f.vector(&layout, "v0/"));
    let Targets::Labels(labels) = &mut sample.batch.targets else { unreachable!() };
    labels.iter_mut().step_by(3).for_each(|l| *l = IGNORE);
    let live: Vec<usize> = (0..sample.rows).filter(|i| i % 3 != 0).collect();
    assert!((f.json["ignored"].as_f64().unwrap() - sample.rows as f64 / live.len() as f64).abs() < 1e-9);
    let mut product = |samples: &[Sample<MlpBatch<f64>>]| {
        let mut out = vec![Vec::new()];
        let mut of =
            CurvatureOf::new(&mut o, &at, samples, Curvature::EmpiricalFisher, Reduction::Mean).unwrap();
        of.products(&[&block], &[&v], &mut out).unwrap();
        out.remove(0)
    };
    let one = |i: usize| {
        let (b, inputs) = (&sample.batch, sample.batch.inputs.len() / sample.rows);
        let Targets::Labels(labels) = &b.targets else { unreachable!() };
        let targets = Targets::Labels(vec![labels[i]]);
        let inputs = b.inputs[i * inputs..][..inputs].to_vec();
        Sample { batch: MlpBatch { rows: 1, inputs, targets, weight: 0.0 }, rows: 1 }
    };
    let alone: Vec<_> = live.iter().map(|i| one(*i)).collect();
    let (whole, parts) = (product(std::slice::from_ref(&sample)), product(&alone));
    let off: Vec<f64> = whole.iter().zip(&parts).map(|(a, b)| a - b).collect();
    assert!(norm(&off) < 1e-12 * norm(&parts), "{}", norm(&off) / norm(&parts));
}
