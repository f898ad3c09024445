//! Small nets of six kinds on generated data, as one objective.

use rhumb_core::{EvalError, Layout, Objective, Product, Role, SecondOrder};
use rhumb_linalg::rng::{Rng, mix};
use rhumb_lm::pretrain::characters::Characters;
use rhumb_lm::pretrain::tale::tale;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{
    Decoder, DecoderConfig, DecoderObjective, EncoderConfig, Family, ImageBatch, ImageConfig, ImageModel,
    ImageNet, ImageObjective, MaskedEncoder, MaskedObjective, Masking, Mlp, MlpBatch, MlpConfig, MlpLoss,
    MlpObjective, ModelError, RopeConfig, Statistics, Targets, TokenBatch, init,
};
use rhumb_nn::ops::Act;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::images::Images;
use crate::exit::{Code, Failure};

/// A kind of net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NetKind {
    /// Three convolutions of 8, 16 and 32 channels and a linear map, on images.
    SmallCnn,
    /// A pre-activation residual net of 18 layers, 8 channels in its first stage, batch norms over the batch, on images.
    #[serde(rename = "resnet-18")]
    Resnet18,
    /// A perceptron with two hidden layers of 64, on images.
    Mlp,
    /// A Llama of two layers of width 64, on prose, next character.
    Decoder,
    /// A BERT of two layers of width 64, on prose, hidden characters.
    Bert,
    /// A vision transformer of two layers of width 64, patches of 4 x 4, on images.
    Vit,
}

impl NetKind {
    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            NetKind::SmallCnn => "small-cnn",
            NetKind::Resnet18 => "resnet-18",
            NetKind::Mlp => "mlp",
            NetKind::Decoder => "decoder",
            NetKind::Bert => "bert",
            NetKind::Vit => "vit",
        }
    }
}

const WIDTH: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
/// Characters of a row.
const LEN: usize = 64;
/// Bytes of prose.
const PROSE: usize = 1 << 19;
/// Batches from here on are held out.
pub(crate) const HELD_OUT: usize = 1 << 40;

/// An objective whose batches are numbered; those from [`HELD_OUT`] on are of data that no other batch has.
pub(crate) struct Net {
    task: Box<dyn Task>,
    /// Parameters before training.
    pub(crate) start: Vec<f32>,
}

/// What every kind can do.
trait Task {
    fn layout(&self) -> &Layout;
    fn value_grad(&mut self, at: &[f32], batch: usize, grad: &mut [f32]) -> Result<f64, EvalError>;
    fn products(&mut self, at: &[f32], batch: usize, r: &mut [Product<'_, f32>]) -> Result<(), EvalError>;
    /// Labels that take part.
    fn rows(&self, batch: usize) -> usize;
}

/// Where batches come from: their number, and the labels that take part in each.
struct Of<P: SecondOrder<f32>> {
    objective: P,
    batch: Box<dyn Fn(usize) -> (P::Batch, usize)>,
}

impl<P: SecondOrder<f32>> Task for Of<P> {
    fn layout(&self) -> &Layout {
        self.objective.layout()
    }
    fn value_grad(&mut self, at: &[f32], batch: usize, grad: &mut [f32]) -> Result<f64, EvalError> {
        self.objective.value_grad(at, &(self.batch)(batch).0, grad)
    }
    fn products(&mut self, at: &[f32], batch: usize, r: &mut [Product<'_, f32>]) -> Result<(), EvalError> {
        self.objective.products(at, &(self.batch)(batch).0, r)
    }
    fn rows(&self, batch: usize) -> usize {
        (self.batch)(batch).1
    }
}

impl Objective<f32> for Net {
    type Batch = usize;
    fn layout(&self) -> &Layout {
        self.task.layout()
    }
    fn value_grad(&mut self, at: &[f32], batch: &usize, grad: &mut [f32]) -> Result<f64, EvalError> {
        self.task.value_grad(at, *batch, grad)
    }
}

impl SecondOrder<f32> for Net {
    fn hvp(&mut self, at: &[f32], batch: &usize, v: &[f32], out: &mut [f32]) -> Result<(), EvalError> {
        let whole = 0..at.len();
        let block = std::slice::from_ref(&whole);
        self.products(at, batch, &mut [Product { of: rhumb_core::Curvature::Hessian, block, v, out }])
    }
    fn products(&mut self, at: &[f32], batch: &usize, r: &mut [Product<'_, f32>]) -> Result<(), EvalError> {
        self.task.products(at, *batch, r)
    }
}

impl Net {
    /// A net with its data, for batches of `rows` images, or rows of 64 characters.
    pub(crate) fn new(kind: NetKind, rows: usize, seed: u64) -> Result<Self, Failure> {
        let made = match kind {
            NetKind::SmallCnn => image(ImageNet::Cnn { widths: vec![8, 16, 32] }, rows, seed),
            NetKind::Resnet18 => image(ImageNet::PreactResnet { width: 8, blocks: vec![2; 4] }, rows, seed),
            NetKind::Vit => {
                let (width, layers, heads) = (WIDTH, LAYERS, HEADS);
                let net = ImageNet::Vit { patch: 4, width, layers, heads, ffn: 4 * width, class_token: true };
                image(net, rows, seed)
            }
            NetKind::Mlp => perceptron(&[Images::LEN, 64, 64, Images::CLASSES], rows, seed),
            NetKind::Decoder => decoder(rows, seed, 0),
            NetKind::Bert => bert(rows, seed),
        };
        made.map_err(|e| Failure::new(Code::Usage, e).context(kind.name()))
    }

    /// A decoder whose prose is of the language with this number.
    pub(crate) fn of_language(rows: usize, seed: u64, language: u64) -> Result<Self, Failure> {
        decoder(rows, seed, language).map_err(|e| Failure::new(Code::Usage, e))
    }

    /// A perceptron of five layers without biases, whose weights are multiplied by powers of `c` so that the function stays:
    /// `c^(l - 2)` in layer `l`.
    pub(crate) fn dialled(c: f64, rows: usize, seed: u64) -> Result<Self, Failure> {
        let sizes = [Images::LEN, 64, 64, 64, 64, Images::CLASSES];
        let mut net = perceptron(&sizes, rows, seed).map_err(|e| Failure::new(Code::Usage, e))?;
        let weights: Vec<_> = net.layout().blocks().iter().filter(|b| b.shape.len() > 1).cloned().collect();
        let middle = (weights.len() - 1) as f64 / 2.0;
        for (l, b) in weights.iter().enumerate() {
            let by = c.powf(l as f64 - middle) as f32;
            net.start[b.range.clone()].iter_mut().for_each(|w| *w *= by);
        }
        Ok(net)
    }

    /// Labels that take part in a batch.
    pub(crate) fn rows(&self, batch: usize) -> usize {
        self.task.rows(batch)
    }

    /// Mean loss over batches.
    pub(crate) fn loss(&mut self, at: &[f32], batches: std::ops::Range<usize>) -> Result<f64, EvalError> {
        let mut grad = vec![0.0; at.len()];
        let (mut sum, mut rows) = (0.0, 0.0);
        for b in batches {
            let n = self.rows(b) as f64;
            sum += n * self.value_grad(at, &b, &mut grad)?;
            rows += n;
        }
        Ok(sum / rows)
    }
}

fn image(net: ImageNet, rows: usize, seed: u64) -> Result<Net, ModelError> {
    let image = [1, Images::SIDE, Images::SIDE];
    let model = ImageModel::new(ImageConfig { image, classes: Images::CLASSES, net })?;
    let start = model.init(seed);
    let data = Images::new(seed);
    let batch = move |i: usize| {
        let (images, labels) = data.batch(rows, i);
        (ImageBatch { rows, images, labels, weight: 0.0 }, rows)
    };
    let objective = ImageObjective::new(model, LossKind::Ce, Statistics::Batch);
    Ok(Net { task: Box::new(Of { objective, batch: Box::new(batch) }), start })
}

fn perceptron(sizes: &[usize], rows: usize, seed: u64) -> Result<Net, ModelError> {
    let bias = sizes.len() < 6;
    let config =
        MlpConfig { sizes: sizes.to_vec(), activation: Act::Relu, bias, loss: MlpLoss::CrossEntropy };
    let model = Mlp::new(config)?;
    let mut start: Vec<f32> = model.init(seed);
    // Variance 2 / in keeps the scores of a deep net alive.
    if !bias {
        for b in model.layout().blocks() {
            let (mut rng, scale) = (Rng::named(seed, &b.name), (2.0 / b.shape[1] as f64).sqrt());
            start[b.range.clone()].iter_mut().for_each(|w| *w = (scale * rng.normal()) as f32);
        }
    }
    let data = Images::new(seed);
    let batch = move |i: usize| {
        let (inputs, labels) = data.batch(rows, i);
        (MlpBatch { rows, inputs, targets: Targets::Labels(labels), weight: 0.0 }, rows)
    };
    Ok(Net { task: Box::new(Of { objective: MlpObjective::new(model), batch: Box::new(batch) }), start })
}

/// Prose as numbers of its characters, and how many there are.
struct Prose {
    tokens: Vec<u32>,
    characters: usize,
}

impl Prose {
    fn new(language: u64) -> Self {
        let text = tale(language, PROSE).into_bytes();
        let characters = Characters::of(&text);
        Prose { tokens: characters.encode(&text).unwrap_or_default(), characters: characters.len() }
    }

    /// Rows of batch `i`; the last tenth of the prose is held out.
    fn rows(&self, rows: usize, i: usize, seed: u64) -> Vec<u32> {
        let cut = self.tokens.len() / 10 * 9;
        let places = if i < HELD_OUT { 0..cut - LEN } else { cut..self.tokens.len() - LEN };
        let mut rng = Rng::new(mix(seed ^ mix(i as u64)));
        let row = |_| {
            let at = places.start + rng.below(places.len());
            self.tokens[at..at + LEN].to_vec()
        };
        (0..rows).flat_map(row).collect()
    }
}

fn decoder(rows: usize, seed: u64, language: u64) -> Result<Net, ModelError> {
    let prose = Prose::new(language);
    let model = Decoder::new(DecoderConfig {
        family: Family::Llama,
        vocab: prose.characters,
        width: WIDTH,
        layers: LAYERS,
        heads: HEADS,
        kv_heads: HEADS,
        head_dim: WIDTH / HEADS,
        ffn: 3 * WIDTH,
        positions: LEN,
        eps: 1e-5,
        rope: Some(RopeConfig { theta: 10_000.0, llama3: None }),
        qkv_bias: false,
        qk_norm: false,
        tied: false,
    })?;
    let start = init(model.layout(), LAYERS, 0.02, seed);
    let objective = DecoderObjective::new(model, LossKind::Ce, false, std::sync::Arc::default())?;
    let batch = move |i: usize| {
        let batch = TokenBatch::causal(rows, LEN, prose.rows(rows, i, seed));
        let live = batch.live();
        (batch, live)
    };
    Ok(Net { task: Box::new(Of { objective, batch: Box::new(batch) }), start })
}

fn bert(rows: usize, seed: u64) -> Result<Net, ModelError> {
    let prose = Prose::new(0);
    let (mask, vocab) = (prose.characters as u32, prose.characters + 1);
    let (width, layers, heads) = (WIDTH, LAYERS, HEADS);
    let config = EncoderConfig { vocab, width, layers, heads, ffn: 4 * width, positions: LEN, eps: 1e-12 };
    let model = MaskedEncoder::new(config);
    let start = model.init(seed);
    let how = Masking { share: 0.15, mask, vocab };
    let batch = move |i: usize| {
        let mut rng = Rng::named(mix(seed ^ mix(i as u64)), "mask");
        let batch = TokenBatch::masked(rows, LEN, prose.rows(rows, i, seed), how, &mut rng);
        let live = batch.live();
        (batch, live)
    };
    let objective = MaskedObjective::new(model, LossKind::Ce);
    Ok(Net { task: Box::new(Of { objective, batch: Box::new(batch) }), start })
}

/// Matrices, kernels and tables with at least this many parameters: what the paper looks at.
pub(crate) fn matrices(layout: &Layout, least: usize) -> Vec<String> {
    let taken = layout.blocks().iter().filter(|b| {
        b.shape.len() > 1
            && b.range.len() >= least
            && !matches!(b.role, Role::Norm | Role::Bias | Role::Position)
    });
    taken.map(|b| b.name.clone()).collect()
}
