//! What classifiers and the masked encoder refuse, and where.

use rhumb_core::{EvalError, Objective};
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{
    EncoderConfig, ImageBatch, ImageConfig, ImageModel, ImageNet, ImageObjective, MaskedEncoder,
    MaskedObjective, Masking, ModelError, Statistics, TokenBatch,
};
use rhumb_nn::ops::Act;

use super::{images, resnet};

#[test]
fn images_that_do_not_fit_are_refused_with_their_place() {
    let m = resnet();
    let (good, p) = (images(&m, 4), m.init::<f64>(1));
    let mut o = ImageObjective::new(m.clone(), LossKind::Ce, Statistics::Batch);
    let mut fail = |change: &dyn Fn(&mut ImageBatch<f64>)| {
        let mut b = good.clone();
        change(&mut b);
        o.report(&p, &b).unwrap_err().to_string()
    };
    let text = fail(&|b| b.images[2 * 192 + 64 + 3 * 8 + 5] = f64::NAN);
    assert!(text.contains("image 2, channel 1, row 3, column 5"), "{text}");
    let text = fail(&|b| b.images.truncate(700));
    assert!(text.contains("pixels of the images: expected 768 values, got 700"), "{text}");
    let text = fail(&|b| b.labels[1] = 4);
    assert!(text.contains("label 4 of row 1 is outside the 4 classes"), "{text}");
    let text = fail(&|b| b.labels.truncate(3));
    assert!(text.contains("labels: expected 4 values, got 3"), "{text}");
    assert!(fail(&|b| b.rows = 0).contains("the batch is empty"));
    assert!(fail(&|b| b.rows = usize::MAX).contains("pixels of the images"));
    let e = o.report(&p[1..], &good).unwrap_err();
    assert_eq!(e, EvalError::Shape { what: "parameters", want: p.len(), got: p.len() - 1 });
    let mut poisoned = p.clone();
    poisoned[m.layout().find("layer2.0.conv1.weight").unwrap().range.start] = f64::NAN;
    let e = o.report(&poisoned, &good).unwrap_err();
    assert_eq!(e, EvalError::NonFinite { what: "loss", block: Some("layer2.0.conv1.weight".into()) });
    let mut buffers = m.fresh_buffers::<f64>();
    assert!(o.set_buffers(&buffers[1..]).is_err());
    buffers[4] = -1.0;
    assert!(o.set_buffers(&buffers).unwrap_err().to_string().contains("layer1.0.bn1.running_var"));
    let mut y = [0.0; 3];
    assert!(o.predict(&p, 1, &good.images[..192], &mut y).is_err());
    assert!(o.predict(&p, 0, &[], &mut y).is_err());
}

#[test]
fn nets_that_do_not_fit_their_images_are_refused_by_layer() {
    let vit = |patch, heads| ImageNet::Vit { patch, width: 8, layers: 1, heads, ffn: 8, class_token: false };
    for (image, net, want) in [
        ([1, 8, 8], ImageNet::Lenet { activation: Act::Relu }, "conv2: a window of 5 x 5 does not fit 4 x 4"),
        ([1, 4, 4], ImageNet::Cnn { widths: vec![2, 2, 2] }, "pool3: a window of 2 x 2 does not fit 1 x 1"),
        ([1, 8, 8], ImageNet::Cnn { widths: vec![2, 0] }, "has the number 0"),
        ([1, 0, 8], ImageNet::Cnn { widths: vec![2] }, "has the number 0"),
        ([1, 8, 8], ImageNet::Cnn { widths: vec![usize::MAX] }, "has the number 18446744073709551615"),
        ([1, 8, 8], ImageNet::PreactResnet { width: 4, blocks: vec![] }, "has the number 0"),
        ([1, 8, 8], ImageNet::PreactResnet { width: 4, blocks: vec![1; 40] }, "40 stages"),
        ([1, 8, 8], vit(3, 2), "patches of 3 x 3 do not tile an image of [8, 8]"),
        ([1, 8, 8], vit(2, 3), "a width of 8 is no multiple of 3 heads"),
    ] {
        let e = ImageModel::new(ImageConfig { image, classes: 3, net: net.clone() }).unwrap_err();
        assert!(matches!(e, ModelError::Layer { .. }) && e.to_string().contains(want), "{net:?}: {e}");
    }
}

#[test]
fn what_a_masked_encoder_cannot_take_is_refused() {
    let config =
        EncoderConfig { vocab: 31, width: 12, layers: 1, heads: 3, ffn: 20, positions: 9, eps: 1e-12 };
    let model = MaskedEncoder::new(config);
    let p: Vec<f64> = model.init(1);
    let how = Masking { share: 0.5, mask: 30, vocab: 31 };
    let good = TokenBatch::masked(2, 5, (0..10).collect(), how, &mut Rng::new(1));
    let mut o = MaskedObjective::new(model.clone(), LossKind::Ce);
    let loss = o.report(&p, &good).unwrap().loss;
    assert!((loss - 31.0_f64.ln()).abs() < 0.2, "{loss}");
    let fail = |o: &mut MaskedObjective<f64>, b: &TokenBatch| o.report(&p, b).unwrap_err().to_string();
    let long = TokenBatch::masked(1, 10, vec![0; 10], how, &mut Rng::new(1));
    assert!(fail(&mut o, &long).contains("beyond the context of 9 tokens"));
    let few = TokenBatch::masked(2, 5, vec![0; 9], how, &mut Rng::new(1));
    assert!(fail(&mut o, &few).contains("2 x 5 tokens"));
    let mut foreign = good.clone();
    foreign.ids[3] = 31;
    assert!(fail(&mut o, &foreign).contains("token 31 at place 3"));
    let mut poisoned = p.clone();
    poisoned[model.layout().find("cls.predictions.transform.dense.bias").unwrap().range.start] = f64::NAN;
    let e = o.value_grad(&poisoned, &good, &mut vec![0.0; p.len()]).unwrap_err().to_string();
    assert!(e.contains("cls.predictions.transform.dense.bias"), "{e}");
    assert!(o.report(&p[1..], &good).is_err());
}
