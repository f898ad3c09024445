//! Nets on MNIST, where `RHUMB_IMAGES` names the folder that `scripts/fetch-images.sh` filled.

use std::path::PathBuf;

use rhumb_core::Objective;
use rhumb_io::idx::LabelledImages;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{ImageBatch, ImageConfig, ImageModel, ImageNet, ImageObjective, Statistics};
use rhumb_nn::ops::Act;
use rhumb_optim::{Kind, OptimizerConfig};

const ROWS: usize = 50;

fn batch(of: &LabelledImages, number: usize) -> ImageBatch<f32> {
    let (from, to) = (number * ROWS, (number + 1) * ROWS);
    ImageBatch {
        rows: ROWS,
        images: of.pixels[from * 784..to * 784].iter().map(|p| f32::from(*p) / 255.0).collect(),
        labels: of.labels[from..to].iter().map(|l| u32::from(*l)).collect(),
        weight: 0.0,
    }
}

/// Share of the first 1000 test images whose class is found, after one pass over 6000 images with AdamW.
fn accuracy(net: ImageNet, train: &LabelledImages, test: &LabelledImages) -> f64 {
    let model = ImageModel::new(ImageConfig { image: [1, 28, 28], classes: 10, net }).unwrap();
    let mut params: Vec<f32> = model.init(1);
    let adamw = OptimizerConfig { kind: Kind::AdamW, ..OptimizerConfig::default() };
    let mut optimizer = adamw.build::<f32>(model.layout()).unwrap();
    let mut o = ImageObjective::new(model, LossKind::Ce, Statistics::Batch);
    let mut grad = vec![0.0; params.len()];
    for i in 0..120 {
        o.value_grad(&params, &batch(train, i), &mut grad).unwrap();
        o.track(0.1);
        optimizer.step(3e-3, &mut params, &grad);
    }
    o.statistics = Statistics::Running;
    let found = (0..20).map(|i| o.report(&params, &batch(test, i)).unwrap().correct).sum::<u64>();
    found as f64 / 1000.0
}

/// So little training that the thresholds of the residual net and of the transformer are low.
#[test]
fn nets_learn_digits() {
    let dir = std::env::var_os("RHUMB_IMAGES").map(|d| PathBuf::from(d).join("mnist")).filter(|d| d.is_dir());
    let Some(dir) = dir else {
        eprintln!("skipped: RHUMB_IMAGES does not name a folder with mnist");
        return;
    };
    let read = |part: &str| {
        let file = |what: &str| dir.join(format!("{part}-{what}-ubyte"));
        LabelledImages::read(&file("images-idx3"), &file("labels-idx1")).unwrap()
    };
    let (train, test) = (read("train"), read("t10k"));
    let vit = ImageNet::Vit { patch: 7, width: 32, layers: 2, heads: 4, ffn: 64, class_token: true };
    for (net, least) in [
        (ImageNet::Lenet { activation: Act::Relu }, 0.8),
        (ImageNet::Cnn { widths: vec![8, 16, 32] }, 0.8),
        (ImageNet::PreactResnet { width: 4, blocks: vec![1, 1, 1] }, 0.5),
        (vit, 0.25),
    ] {
        let share = accuracy(net.clone(), &train, &test);
        eprintln!("{net:?}: {share}");
        assert!(share > least, "{net:?}: {share}");
    }
}
