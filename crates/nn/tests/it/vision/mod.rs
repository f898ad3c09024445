//! Image classifiers and the masked encoder: names, fresh values, statistics, threads.

mod learn;
mod ops;
mod parity;
mod refusals;

use rhumb_core::{Curvature, Objective, Product, Role, SecondOrder};
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{
    ImageBatch, ImageConfig, ImageModel, ImageNet, ImageObjective, Masking, Statistics, TokenBatch,
};
use rhumb_nn::op::IGNORE;
use rhumb_nn::ops::Act;

fn normal(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.normal()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn model(image: [usize; 3], classes: usize, net: ImageNet) -> ImageModel {
    ImageModel::new(ImageConfig { image, classes, net }).unwrap()
}

fn resnet() -> ImageModel {
    model([3, 8, 8], 4, ImageNet::PreactResnet { width: 4, blocks: vec![1, 1] })
}

fn images(m: &ImageModel, rows: usize) -> ImageBatch<f64> {
    let labels = (0..rows).map(|i| (i % m.config().classes) as u32).collect();
    ImageBatch { rows, images: normal(rows * m.inputs(), 7), labels, weight: 0.0 }
}

#[test]
fn nets_have_the_names_shapes_roles_and_sizes_of_the_frameworks() {
    let lenet = model([1, 28, 28], 10, ImageNet::Lenet { activation: Act::Relu });
    assert_eq!(lenet.layout().len(), 61_706);
    let cnn = model([1, 28, 28], 10, ImageNet::Cnn { widths: vec![16, 32, 64] });
    assert_eq!(cnn.layout().len(), 160 + 4640 + 18_496 + 5770);
    let big = model([3, 32, 32], 10, ImageNet::PreactResnet { width: 64, blocks: vec![2; 4] });
    // 11 171 146 of the CIFAR net without a last norm, which has 1024.
    assert_eq!(big.layout().len(), 11_171_146 + 1024);
    assert_eq!(big.buffers().len(), 2 * 3904);
    let find = |m: &ImageModel, name: &str| {
        let b = m.layout().find(name).unwrap_or_else(|| panic!("{name}"));
        (b.shape.clone(), b.role)
    };
    assert_eq!(find(&lenet, "conv2.weight"), (vec![16, 6, 5, 5], Role::Conv));
    assert_eq!(find(&lenet, "fc3.weight"), (vec![10, 84], Role::Head));
    assert_eq!(find(&big, "layer2.0.downsample.0.weight"), (vec![128, 64, 1, 1], Role::Conv));
    assert_eq!(find(&big, "layer4.1.bn2.bias"), (vec![512], Role::Bias));
    assert!(big.layout().find("layer1.0.downsample.0.weight").is_none());
    assert_eq!(big.buffers().blocks()[1].name, "layer1.0.bn1.running_var");
    let vit = ImageNet::Vit { patch: 7, width: 16, layers: 2, heads: 4, ffn: 32, class_token: true };
    let vit = model([1, 28, 28], 10, vit);
    assert_eq!(find(&vit, "patch_embed.proj.weight"), (vec![16, 1, 7, 7], Role::Conv));
    assert_eq!(find(&vit, "pos_embed"), (vec![1, 17, 16], Role::Position));
    let qkv = Role::Qkv { head_dim: 4, heads: 4, kv_heads: 4 };
    assert_eq!(find(&vit, "blocks.1.attn.qkv.weight"), (vec![48, 16], qkv));
}

#[test]
fn fresh_values_are_those_of_the_frameworks() {
    let m = resnet();
    let p: Vec<f64> = m.init(5);
    assert_eq!(p, m.init::<f64>(5));
    assert_ne!(p, m.init::<f64>(6));
    for b in m.layout().blocks() {
        let own = &p[b.range.clone()];
        let most = own.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        match (b.role, b.name.as_str()) {
            (Role::Norm, _) => assert!(own.iter().all(|v| *v == 1.0), "{}", b.name),
            (Role::Bias, "fc.bias") => assert!(most > 0.0 && most <= 1.0 / 8.0_f64.sqrt()),
            (Role::Bias, _) => assert!(own.iter().all(|v| *v == 0.0), "{}", b.name),
            _ => {
                let bound = 1.0 / (b.shape[1..].iter().product::<usize>() as f64).sqrt();
                assert!(most <= bound && most > 0.8 * bound, "{}: {most} of {bound}", b.name);
            }
        }
    }
    let buffers: Vec<f64> = m.fresh_buffers();
    assert_eq!(buffers.iter().sum::<f64>(), m.buffers().len() as f64 / 2.0);
    let vit = ImageNet::Vit { patch: 2, width: 32, layers: 1, heads: 4, ffn: 64, class_token: true };
    let vit = model([3, 8, 8], 4, vit);
    let p: Vec<f64> = vit.init(1);
    let spread = |name: &str| {
        let own = &p[vit.layout().find(name).unwrap().range.clone()];
        (dot(own, own) / own.len() as f64).sqrt()
    };
    assert!((spread("blocks.0.mlp.fc1.weight") / 0.02 - 1.0).abs() < 0.1);
    assert!((spread("pos_embed") / 0.02 - 1.0).abs() < 0.2);
    assert!(spread("cls_token") < 3e-6 && spread("blocks.0.mlp.fc1.bias") == 0.0);
    assert!(spread("patch_embed.proj.bias") > 0.05);
}

#[test]
fn running_statistics_follow_the_batch_and_evaluation_reads_them() {
    let m = resnet();
    let (b, p) = (images(&m, 6), m.init::<f64>(2));
    let mut o = ImageObjective::new(m.clone(), LossKind::Ce, Statistics::Batch);
    o.track(0.5);
    assert_eq!(o.buffers(), m.fresh_buffers::<f64>(), "nothing was seen yet");
    let batch = o.report(&p, &b).unwrap().loss;
    // With momentum 1 the running mean is that of the batch; the variance differs by the factor of its bias.
    o.track(1.0);
    o.statistics = Statistics::Running;
    let running = o.report(&p, &b).unwrap().loss;
    assert!(batch != running && (batch - running).abs() < 0.05, "{batch} and {running}");
    let mut y = vec![0.0; 6 * 4];
    o.predict(&p, 6, &b.images, &mut y).unwrap();
    let ce = |(z, label): (&[f64], &u32)| z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[*label as usize];
    let mean = y.chunks(4).zip(&b.labels).map(ce).sum::<f64>() / 6.0;
    assert!((mean - running).abs() < 1e-12, "{mean} and {running}");
    // Alone, an image has the scores it had beside others.
    let mut alone = [0.0; 4];
    o.predict(&p, 1, &b.images[..m.inputs()], &mut alone).unwrap();
    assert!(alone.iter().zip(&y).all(|(a, y)| (a - y).abs() < 1e-12));
}

#[test]
fn a_residual_net_streams_the_same_gradient_and_keeps_its_bits_on_two_threads() {
    let m = resnet();
    let (b, p) = (images(&m, 20), m.init::<f64>(2));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut o = ImageObjective::new(m.clone(), LossKind::Ce, Statistics::Batch);
            let (mut g, mut hv) = (vec![f64::NAN; p.len()], vec![f64::NAN; p.len()]);
            o.value_grad(&p, &b, &mut g).unwrap();
            o.hvp(&p, &b, &p, &mut hv).unwrap();
            o.track(0.1);
            let (mut streamed, mut live) = (vec![f64::NAN; p.len()], p.clone());
            o.gradient_streaming(&mut live, &b, &mut |r, _, g| streamed[r].copy_from_slice(g)).unwrap();
            assert_eq!(streamed, g);
            (g, hv, o.buffers().to_vec())
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn tokens_are_hidden_in_the_shares_of_the_paper() {
    let (rows, len, vocab, mask) = (200, 100, 50_usize, 49);
    let ids: Vec<u32> = (0..rows * len).map(|i| (i % 40) as u32).collect();
    let how = Masking { share: 0.15, mask, vocab };
    let b = TokenBatch::masked(rows, len, ids.clone(), how, &mut Rng::new(3));
    assert_eq!(b, TokenBatch::masked(rows, len, ids.clone(), how, &mut Rng::new(3)));
    let live: Vec<usize> = (0..ids.len()).filter(|i| b.targets[*i] != IGNORE).collect();
    assert!((live.len() as f64 / ids.len() as f64 - 0.15).abs() < 0.01);
    assert!(live.iter().all(|i| b.targets[*i] == ids[*i]));
    let share = |f: &dyn Fn(&usize) -> bool| live.iter().filter(|i| f(i)).count() as f64 / live.len() as f64;
    assert!((share(&|i| b.ids[*i] == mask) - 0.8).abs() < 0.03);
    assert!((share(&|i| b.ids[*i] == ids[*i]) - 0.1).abs() < 0.03);
    assert!((0..ids.len()).all(|i| b.targets[i] != IGNORE || b.ids[i] == ids[i]));
    assert!(b.spans.iter().all(|s| *s == (0, 100)) && b.positions[205] == 5);
}

#[test]
fn blocks_of_the_hessian_are_parts_of_it_and_gauss_newton_is_symmetric_and_positive() {
    let m = resnet();
    let (b, p) = (images(&m, 6), m.init::<f64>(2));
    let names = ["conv1.weight", "layer1.0.bn2.weight", "layer2.0.downsample.0.weight"];
    let blocks = names.map(|n| m.layout().find(n).unwrap().range.clone());
    for statistics in [Statistics::Batch, Statistics::Running] {
        let mut o = ImageObjective::new(m.clone(), LossKind::Ce, statistics);
        for block in &blocks {
            let (u, v) = (normal(block.len(), 1), normal(block.len(), 2));
            let mut product = |of: Curvature, v: &[f64]| {
                let mut out = vec![f64::NAN; v.len()];
                let block = std::slice::from_ref(block);
                o.products(&p, &b, &mut [Product { of, block, v, out: &mut out }]).unwrap();
                out
            };
            let part = product(Curvature::Hessian, &v);
            for of in [Curvature::GaussNewton, Curvature::EmpiricalFisher] {
                let (gu, gv) = (product(of, &u), product(of, &v));
                assert!(
                    (dot(&u, &gv) - dot(&v, &gu)).abs() < 1e-12 * dot(&gv, &gv).sqrt() * dot(&u, &u).sqrt()
                );
                assert!(dot(&v, &gv) > 0.0, "{of:?}");
                let off = gv.iter().zip(&part).map(|(g, h)| (g - h).abs()).fold(0.0, f64::max);
                // With constant statistics the scores are piecewise linear in each tensor.
                if (statistics, of) == (Statistics::Running, Curvature::GaussNewton) {
                    assert!(off < 1e-12 * dot(&part, &part).sqrt(), "{off:e}");
                } else {
                    assert!(off > 1e-6, "{of:?} is the Hessian");
                }
            }
            let (mut whole, mut hv) = (vec![0.0; p.len()], vec![f64::NAN; p.len()]);
            whole[block.clone()].copy_from_slice(&v);
            o.hvp(&p, &b, &whole, &mut hv).unwrap();
            let scale = dot(&part, &part).sqrt();
            assert!(hv[block.clone()].iter().zip(&part).all(|(h, p)| (h - p).abs() < 1e-12 * scale));
        }
    }
}
