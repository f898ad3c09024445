use std::sync::Arc;

use rhumb_core::{Layout, Role};
use rhumb_linalg::rng::Rng;
use rhumb_linalg::{Real, compiled};
use serde::{Deserialize, Serialize};

use self::net::{Net, Shape, Value, refuse};
use super::config::ModelError;
use crate::loss::{LogitLoss, LossKind};
use crate::ops::{Act, BatchMoments};
use crate::tape::{Graph, Var};

mod net;
mod objective;

pub use objective::{ImageBatch, ImageObjective};

/// The net of an image classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ImageNet {
    /// Two convolutions of 5 x 5 (6 and 16 channels, the first padded by 2), each with maxima of 2 x 2, and linear maps to
    /// 120, 84 and the classes (after LeCun et al. 1998).
    Lenet {
        /// After every layer but the last.
        activation: Act,
    },
    /// Convolutions of 3 x 3 with a bias, ReLU and maxima of 2 x 2 each, and a linear map.
    Cnn {
        /// Channels of the convolutions.
        widths: Vec<usize>,
    },
    /// Residual blocks of two convolutions, norm and ReLU before each; every stage after the first halves the image.
    PreactResnet {
        /// Channels of the first stage; each further stage has twice as many.
        width: usize,
        /// Blocks of each stage; `[2, 2, 2, 2]` is the net of 18 layers.
        blocks: Vec<usize>,
    },
    /// A transformer on patches, norm before each part.
    Vit {
        /// Side of a patch.
        patch: usize,
        /// Width of the residual stream.
        width: usize,
        /// Layers.
        layers: usize,
        /// Heads.
        heads: usize,
        /// Width of the feed-forward layer.
        ffn: usize,
        /// Classify a token of its own; else the mean over patches.
        class_token: bool,
    },
}

/// The shape of an image classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Channels, rows and columns of an image.
    pub image: [usize; 3],
    /// Classes.
    pub classes: usize,
    /// The net.
    pub net: ImageNet,
}

/// Where batch norms take mean and variance from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statistics {
    /// The batch: training.
    #[default]
    Batch,
    /// Running averages, held constant: evaluation, and the Hessian of the net as it will be used.
    Running,
}

/// An image classifier: one definition for training, prediction and second derivatives.
///
/// # Reference
/// LeNet: LeCun et al. 1998. Pre-activation residual net: He et al., ECCV 2016, with the convolution of 3 x 3 of its CIFAR
/// variant in front. Vision transformer: Dosovitskiy et al., ICLR 2021.
///
/// # Shapes
/// Images `[channels, rows, columns]`. Tensors are named as in torchvision (`layer1.0.conv1.weight`), those of the transformer
/// as in timm (`blocks.0.attn.qkv.weight`).
#[derive(Clone, Debug)]
pub struct ImageModel {
    config: ImageConfig,
    net: Net,
}

/// What a graph is made for: images, statistics, the loss or none, and who hears of the batch's moments.
type Request<'a> = (&'a ImageModel, usize, Statistics, Option<LossKind>, &'a [Arc<BatchMoments>]);

compiled!(MakeGraph<'a>, |request: Request<'a>| -> (Graph<T>, Var) {
    let (model, rows, statistics, loss, sinks) = request;
    let (mut g, last) = model.net.graph(rows, model.inputs(), statistics, sinks);
    if let Some(kind) = loss {
        g.finish(LogitLoss::new(rows, model.config.classes, kind), &[last.into()]);
    }
    (g, last)
});

impl ImageModel {
    /// A classifier of that shape.
    ///
    /// # Errors
    /// [`ModelError::Layer`] when a layer does not fit its image, or a number is zero or far too large.
    pub fn new(config: ImageConfig) -> Result<Self, ModelError> {
        let [channels, rows, columns] = config.image;
        let mut numbers = vec![channels, rows, columns, config.classes];
        match &config.net {
            ImageNet::Lenet { .. } => {}
            ImageNet::Cnn { widths } => numbers.extend(widths),
            ImageNet::PreactResnet { width, blocks } => {
                numbers.extend(blocks.iter().chain([width, &blocks.len()]));
            }
            ImageNet::Vit { patch, width, layers, heads, ffn, .. } => {
                numbers.extend([patch, width, layers, heads, ffn]);
            }
        }
        if let Some(n) = numbers.iter().find(|n| !(1..1 << 16).contains(*n)) {
            return refuse("the configuration", format!("has the number {n}: use 1 to 65535"));
        }
        let (mut net, x) = Net::new(channels, [rows, columns]);
        let classes = config.classes;
        match &config.net {
            ImageNet::Lenet { activation } => lenet(&mut net, x, classes, *activation)?,
            ImageNet::Cnn { widths } => cnn(&mut net, x, classes, widths)?,
            ImageNet::PreactResnet { width, blocks } => preact_resnet(&mut net, x, classes, *width, blocks)?,
            ImageNet::Vit { .. } => vit(&mut net, x, classes, &config.net)?,
        };
        Ok(ImageModel { config, net })
    }

    /// The configuration.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The trained tensors.
    pub fn layout(&self) -> &Layout {
        &self.net.layout
    }

    /// The running statistics of batch norms; empty without any.
    pub fn buffers(&self) -> &Layout {
        &self.net.buffers
    }

    /// Scalars of an image.
    pub fn inputs(&self) -> usize {
        self.config.image.iter().product()
    }

    /// Fresh parameters, one stream per tensor name.
    ///
    /// # Equation
    /// Weights and biases of convolutions and linear maps uniform in `+-1/sqrt(scalars that one output reads)`, norms 1 and 0:
    /// the defaults of PyTorch. In the transformer, linear weights and positions normal with standard deviation 0.02, the
    /// class token with 1e-6, biases 0, as in timm.
    pub fn init<T: Real>(&self, seed: u64) -> Vec<T> {
        let mut out = vec![T::ZERO; self.layout().len()];
        let transformer = matches!(self.config.net, ImageNet::Vit { .. });
        let mut fan_in = 1;
        for b in self.layout().blocks() {
            let mut rng = Rng::named(seed, &b.name);
            let to = &mut out[b.range.clone()];
            match b.role {
                Role::Norm => {
                    to.fill(T::ONE);
                    // The bias of a norm stays zero.
                    fan_in = 0;
                    continue;
                }
                Role::Bias => {}
                _ => fan_in = b.shape[1..].iter().product(),
            }
            let normal = match b.role {
                Role::Other => Some(1e-6),
                Role::Conv => None,
                Role::Bias => (transformer && !b.name.starts_with("patch_embed")).then_some(0.0),
                _ => transformer.then_some(0.02),
            };
            let bound = if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() };
            let draw =
                |rng: &mut Rng| normal.map_or((2.0 * rng.uniform() - 1.0) * bound, |s| s * rng.normal());
            to.iter_mut().for_each(|v| *v = T::of(draw(&mut rng)));
        }
        out
    }

    /// Running statistics before any batch: means 0, variances 1.
    pub fn fresh_buffers<T: Real>(&self) -> Vec<T> {
        let mut out = vec![T::ZERO; self.buffers().len()];
        for b in self.buffers().blocks().iter().filter(|b| b.name.ends_with("running_var")) {
            out[b.range.clone()].fill(T::ONE);
        }
        out
    }

    /// The computation for `rows` images, with a loss or without; returns the scores as well.
    ///
    /// The outside input is `[rows, inputs()]`; the running statistics are the frozen parameters. Every batch norm writes
    /// the moments of the batch to its entry of `sinks`, in the order of [`ImageModel::buffers`].
    pub fn graph<T: Real>(
        &self,
        rows: usize,
        statistics: Statistics,
        loss: Option<LossKind>,
        sinks: &[Arc<BatchMoments>],
    ) -> (Graph<T>, Var) {
        T::compiled::<MakeGraph<'_>>((self, rows, statistics, loss, sinks))
    }
}

fn lenet(n: &mut Net, x: Value, classes: usize, act: Act) -> Result<Value, ModelError> {
    let x = n.conv("conv1", x, 6, (5, 1, 2), true)?;
    let x = n.act(x, act);
    let x = n.max_pool("pool1", x, 2)?;
    let x = n.conv("conv2", x, 16, (5, 1, 0), true)?;
    let x = n.act(x, act);
    let x = n.max_pool("pool2", x, 2)?;
    let x = n.linear("fc1", x, 120, Role::Mlp, None);
    let x = n.act(x, act);
    let x = n.linear("fc2", x, 84, Role::Mlp, None);
    let x = n.act(x, act);
    Ok(n.linear("fc3", x, classes, Role::Head, None))
}

fn cnn(n: &mut Net, mut x: Value, classes: usize, widths: &[usize]) -> Result<Value, ModelError> {
    for (i, width) in widths.iter().enumerate() {
        x = n.conv(&format!("conv{}", i + 1), x, *width, (3, 1, 1), true)?;
        x = n.act(x, Act::Relu);
        x = n.max_pool(&format!("pool{}", i + 1), x, 2)?;
    }
    Ok(n.linear("fc", x, classes, Role::Head, None))
}

fn preact_resnet(
    n: &mut Net,
    x: Value,
    classes: usize,
    width: usize,
    blocks: &[usize],
) -> Result<Value, ModelError> {
    let mut x = n.conv("conv1", x, width, (3, 1, 1), false)?;
    for (stage, count) in blocks.iter().enumerate() {
        let Some(out) = width.checked_shl(stage as u32).filter(|w| *w < 1 << 16) else {
            return refuse("blocks", format!("{} stages make layers far too wide", blocks.len()));
        };
        for i in 0..*count {
            let step = if stage > 0 && i == 0 { 2 } else { 1 };
            x = preact_block(n, &format!("layer{}.{i}", stage + 1), x, out, step)?;
        }
    }
    let x = n.batch_norm("bn", x)?;
    let x = n.act(x, Act::Relu);
    let x = n.pool_planes("avgpool", x)?;
    Ok(n.linear("fc", x, classes, Role::Head, None))
}

fn preact_block(n: &mut Net, name: &str, x: Value, out: usize, step: usize) -> Result<Value, ModelError> {
    let part = |s: &str| format!("{name}.{s}");
    let h = n.batch_norm(&part("bn1"), x)?;
    let h = n.act(h, Act::Relu);
    let same = step == 1 && matches!(x.shape, Shape::Image(c, _) if c == out);
    let short = if same { x } else { n.conv(&part("downsample.0"), h, out, (1, step, 0), false)? };
    let y = n.conv(&part("conv1"), h, out, (3, step, 1), false)?;
    let y = n.batch_norm(&part("bn2"), y)?;
    let y = n.act(y, Act::Relu);
    let y = n.conv(&part("conv2"), y, out, (3, 1, 1), false)?;
    n.add(name, y, short)
}

fn vit(n: &mut Net, x: Value, classes: usize, net: &ImageNet) -> Result<Value, ModelError> {
    let ImageNet::Vit { patch, width, layers, heads, ffn, class_token } = *net else { return Ok(x) };
    if !width.is_multiple_of(heads) {
        return refuse("attn", format!("a width of {width} is no multiple of {heads} heads"));
    }
    let x = n.patches("patch_embed.proj", x, patch, width)?;
    let Shape::Rows(patches, _) = x.shape else { return Ok(x) };
    let mut x = n.positions(x, patches, width, class_token);
    let (len, head_dim) = (n.rows, width / heads);
    for i in 0..layers {
        let part = |s: &str| format!("blocks.{i}.{s}");
        let h = n.layer_norm(&part("norm1"), x, len, width);
        let role = Role::Qkv { head_dim, heads, kv_heads: heads };
        let qkv = n.linear(&part("attn.qkv"), h, 3 * width, role, None);
        let a = n.attention(qkv, len, heads, head_dim, i);
        x = n.linear(&part("attn.proj"), a, width, Role::AttnOut, Some(x));
        let h = n.layer_norm(&part("norm2"), x, len, width);
        let h = n.linear(&part("mlp.fc1"), h, ffn, Role::Mlp, None);
        let h = n.act(h, Act::Gelu);
        x = n.linear(&part("mlp.fc2"), h, width, Role::Mlp, Some(x));
    }
    // A mean of normalised rows is normalised again by no one: the norm comes first, as in the class token's case.
    let x = n.layer_norm("norm", x, len, width);
    let x = n.pool_rows(x, len, width, class_token);
    Ok(n.linear("head", x, classes, Role::Head, None))
}
