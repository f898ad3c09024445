use std::ops::Range;

use rhumb_core::{EvalError, Layout, Role};
use rhumb_linalg::{Real, compiled};
use serde_json::Value;

use super::config::{Keys, ModelError};
use super::decoder::BatchShape;
use super::weights::Tensors;
use crate::op::Data;
use crate::ops::{Act, Activation, Attention, Embed, LayerNorm, Linear};
use crate::tape::{Graph, Span, Src, Tape, Var};

mod masked;

pub use masked::{MaskedEncoder, MaskedObjective, Masking};

/// The shape of an encoder, read from the `config.json` of a BERT.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Longest text.
    pub positions: usize,
    /// Epsilon of the norms.
    pub eps: f64,
}

impl EncoderConfig {
    /// From the parsed file.
    ///
    /// # Errors
    /// Another kind of model, a missing key, numbers that do not fit each other.
    pub fn from_json(v: &Value) -> Result<Self, ModelError> {
        let keys = Keys(v);
        for (key, want) in
            [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")]
        {
            if let Some(found) = v.get(key).filter(|f| !f.is_null() && f.as_str() != Some(want)) {
                return Err(ModelError::Config(format!("{key} is {found}: encoders here have {want:?}")));
            }
        }
        let c = EncoderConfig {
            vocab: keys.count(&["vocab_size"])?,
            width: keys.count(&["hidden_size"])?,
            layers: keys.count(&["num_hidden_layers"])?,
            heads: keys.count(&["num_attention_heads"])?,
            ffn: keys.count(&["intermediate_size"])?,
            positions: keys.count(&["max_position_embeddings"])?,
            eps: keys.real(&["layer_norm_eps"], 1e-12)?,
        };
        if !c.width.is_multiple_of(c.heads) {
            return Err(ModelError::Config(format!(
                "hidden_size {} is no multiple of num_attention_heads {}",
                c.width, c.heads
            )));
        }
        let limits = [c.vocab >> 24, c.width >> 16, c.layers >> 10, c.ffn >> 18, c.positions >> 20];
        if limits.iter().any(|over| *over > 0) {
            return Err(ModelError::Config(
                "describes no encoder that exists: a number is far too large".into(),
            ));
        }
        Ok(c)
    }
}

#[derive(Clone, Debug)]
struct Affine {
    w: Range<usize>,
    b: Range<usize>,
}

#[derive(Clone, Debug)]
struct Layer {
    qkv: Affine,
    out: Affine,
    norm1: Affine,
    up: Affine,
    down: Affine,
    norm2: Affine,
}

/// A bidirectional encoder with post-normalisation, and sentence embeddings from it.
///
/// # Equation
/// `x = norm(x + attention(x))`, `x = norm(x + W2 gelu(W1 x))` per layer; the embedding of a text is the mean of the
/// last layer over its tokens, divided by its length.
///
/// # Reference
/// Devlin et al. 2019; mean pooling: Reimers and Gurevych 2019. Texts are one segment: the first row of the segment
/// table is added to every position when weights are loaded.
#[derive(Clone, Debug)]
pub struct Encoder {
    config: EncoderConfig,
    layout: Layout,
    embed: Range<usize>,
    position: Range<usize>,
    norm: Affine,
    layers: Vec<Layer>,
}

const POSITIONS: &str = "embeddings.position_embeddings.weight";
const SEGMENTS: &str = "embeddings.token_type_embeddings.weight";
/// Tokens of a batch of texts; more only cost memory.
const BATCH_TOKENS: usize = 4096;

compiled!(MakeGraph<'a>, |(model, shape): (&'a Encoder, BatchShape)| -> (Graph<T>, Var) {
    model.built(shape)
});

impl Encoder {
    /// An encoder of that shape.
    pub fn new(config: EncoderConfig) -> Self {
        let c = &config;
        let mut l = Layout::new();
        let embed = l.push("embeddings.word_embeddings.weight", &[c.vocab, c.width], Role::Embed);
        let position = l.push(POSITIONS, &[c.positions, c.width], Role::Position);
        let norm = norm(&mut l, "embeddings.LayerNorm", c.width);
        let layers = (0..c.layers).map(|i| layer(&mut l, c, i)).collect();
        Encoder { embed, position, norm, layers, layout: l, config }
    }

    /// The configuration.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The tensors, by the names of Hugging Face.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Copies a checkpoint; the pooler and heads for other tasks are left out.
    ///
    /// # Errors
    /// A missing tensor, a wrong shape, a value that is not finite.
    pub fn load<T: Real>(&self, from: &dyn Tensors) -> Result<Vec<T>, ModelError> {
        let mut out = read_tensors(&self.layout, from)?;
        self.add_segment(from, &mut out)?;
        Ok(out)
    }

    /// Adds the first row of the segment table to every position.
    fn add_segment<T: Real>(&self, from: &dyn Tensors, out: &mut [T]) -> Result<(), ModelError> {
        let Some((shape, data)) = find(from, SEGMENTS) else { return Ok(()) };
        let width = self.config.width;
        if shape.last() != Some(&width) || data.len() < width {
            return Err(bad(SEGMENTS, format!("shape {shape:?}, its rows should have {width} columns")));
        }
        for row in out[self.position.clone()].chunks_mut(width) {
            row.iter_mut().zip(data).for_each(|(p, s)| *p += T::of(f64::from(*s)));
        }
        Ok(())
    }

    /// The computation for batches of one shape; returns the last hidden states.
    pub fn graph<T: Real>(&self, shape: BatchShape) -> (Graph<T>, Var) {
        T::compiled::<MakeGraph<'_>>((self, shape))
    }

    fn built<T: Real>(&self, shape: BatchShape) -> (Graph<T>, Var) {
        let c = &self.config;
        let n = shape.rows * shape.len;
        let mut g = Graph::new();
        let op = Embed { rows: n, width: c.width, positions: true, noise: 0.0 };
        let x = g.push(op, &[span(&self.embed), span(&self.position)]);
        let mut x = self.normed(&mut g, &self.norm, n, x);
        for (i, l) in self.layers.iter().enumerate() {
            let qkv = affine(&mut g, &l.qkv, n, c.width, x, None);
            let attention = Attention {
                batch: shape.rows,
                len: shape.len,
                heads: c.heads,
                kv_heads: c.heads,
                head_dim: c.width / c.heads,
                rope: None,
                layer: i,
            };
            let a = g.push(attention, &[qkv.into()]);
            let a = affine(&mut g, &l.out, n, c.width, a, Some(x));
            let h = self.normed(&mut g, &l.norm1, n, a);
            let u = affine(&mut g, &l.up, n, c.width, h, None);
            let u = g.push(Activation { len: n * c.ffn, act: Act::Gelu }, &[u.into()]);
            let d = affine(&mut g, &l.down, n, c.ffn, u, Some(h));
            x = self.normed(&mut g, &l.norm2, n, d);
        }
        (g, x)
    }

    fn normed<T: Real>(&self, g: &mut Graph<T>, norm: &Affine, rows: usize, x: Var) -> Var {
        let op = LayerNorm { rows, width: self.config.width, eps: self.config.eps };
        g.push(op, &[x.into(), span(&norm.w), span(&norm.b)])
    }

    /// The embedding of every text, of length 1.
    ///
    /// # Errors
    /// A text without tokens, one longer than the positions, a token outside the vocabulary.
    pub fn embed<T: Real>(&self, params: &[T], texts: &[Vec<u32>]) -> Result<Vec<Vec<T>>, EvalError> {
        let c = &self.config;
        for (i, t) in texts.iter().enumerate() {
            if t.is_empty() || t.len() > c.positions {
                return Err(EvalError::Unsupported(format!(
                    "text {i} has {} tokens: this encoder takes 1 to {}",
                    t.len(),
                    c.positions
                )));
            }
            if let Some(id) = t.iter().find(|id| **id as usize >= c.vocab) {
                return Err(EvalError::Unsupported(format!(
                    "token {id} of text {i} is outside the vocabulary of {}: does the tokenizer belong to this model?",
                    c.vocab
                )));
            }
        }
        // Neighbours in length share a batch, so that little of it is padding.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|i| texts[*i].len());
        let mut out = vec![Vec::new(); texts.len()];
        let mut rest = order.as_slice();
        while let Some(first) = rest.first() {
            let fits = |n: usize| rest.get(n).is_some_and(|i| (n + 1) * texts[*i].len() <= BATCH_TOKENS);
            let rows = (1..rest.len()).find(|n| !fits(*n)).unwrap_or(rest.len());
            let (batch, after) = rest.split_at(rows);
            let len = batch.last().map_or(texts[*first].len(), |i| texts[*i].len());
            for (i, v) in batch.iter().zip(self.batch(params, texts, batch, len)?) {
                out[*i] = v;
            }
            rest = after;
        }
        Ok(out)
    }

    fn batch<T: Real>(
        &self,
        params: &[T],
        texts: &[Vec<u32>],
        rows: &[usize],
        len: usize,
    ) -> Result<Vec<Vec<T>>, EvalError> {
        let (graph, last) = self.graph(BatchShape { rows: rows.len(), len });
        let n = rows.len() * len;
        let mut ids = vec![0; n];
        let mut spans = vec![(0, 1); n];
        for (r, i) in rows.iter().enumerate() {
            let text = &texts[*i];
            ids[r * len..][..text.len()].copy_from_slice(text);
            spans[r * len..][..len].fill((0, text.len() as u32));
        }
        let positions: Vec<u32> = (0..n).map(|i| (i % len) as u32).collect();
        let data = Data { ids: &ids, positions: &positions, spans: &spans, targets: &[], inputs: &[] };
        let width = self.config.width;
        let mut hidden = vec![T::ZERO; n * width];
        Tape::new(graph)?.value(params, &[], data, None, last, &mut hidden)?;
        let pooled = |(r, i): (usize, &usize)| {
            let mut mean = vec![0.0; width];
            for token in hidden[r * len * width..][..texts[*i].len() * width].chunks(width) {
                mean.iter_mut().zip(token).for_each(|(m, t)| *m += t.f64());
            }
            let norm = mean.iter().map(|m| m * m).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            mean.iter().map(|m| T::of(m / norm)).collect()
        };
        Ok(rows.iter().enumerate().map(pooled).collect())
    }
}

fn bad(name: &str, what: String) -> ModelError {
    ModelError::Tensor { name: name.to_owned(), what }
}

fn find<'a>(from: &'a dyn Tensors, name: &str) -> Option<(&'a [usize], &'a [f32])> {
    from.tensor(name).or_else(|| from.tensor(&format!("bert.{name}")))
}

/// Copies the tensors of a layout.
fn read_tensors<T: Real>(layout: &Layout, from: &dyn Tensors) -> Result<Vec<T>, ModelError> {
    let mut out = vec![T::ZERO; layout.len()];
    for b in layout.blocks() {
        let (shape, data) =
            find(from, &b.name).ok_or_else(|| bad(&b.name, "missing: is this the file of a BERT?".into()))?;
        if shape != b.shape || data.len() != b.range.len() {
            return Err(bad(&b.name, format!("shape {shape:?}, the configuration asks for {:?}", b.shape)));
        }
        if let Some(v) = data.iter().find(|v| !v.is_finite()) {
            return Err(bad(&b.name, format!("has the value {v}: the file is damaged")));
        }
        out[b.range.clone()].iter_mut().zip(data).for_each(|(o, d)| *o = T::of(f64::from(*d)));
    }
    Ok(out)
}

fn span(range: &Range<usize>) -> Src {
    Src::Param(Span { range: range.clone(), trainable: true })
}

fn affine<T: Real>(
    g: &mut Graph<T>,
    a: &Affine,
    rows: usize,
    inp: usize,
    x: Var,
    residual: Option<Var>,
) -> Var {
    let op = Linear { rows, inp, out: a.b.len(), bias: true, residual: residual.is_some() };
    let mut inputs = vec![x.into(), span(&a.w), span(&a.b)];
    inputs.extend(residual.map(Src::from));
    g.push(op, &inputs)
}

fn norm(l: &mut Layout, name: &str, width: usize) -> Affine {
    let w = l.push(format!("{name}.weight"), &[width], Role::Norm);
    Affine { w, b: l.push(format!("{name}.bias"), &[width], Role::Bias) }
}

/// Maps from the same input, stacked: their weights, then their biases.
fn stacked(l: &mut Layout, inp: usize, parts: &[(String, usize, Role)]) -> Affine {
    let weights: Vec<Range<usize>> =
        parts.iter().map(|(name, out, role)| l.push(format!("{name}.weight"), &[*out, inp], *role)).collect();
    let biases: Vec<Range<usize>> =
        parts.iter().map(|(name, out, _)| l.push(format!("{name}.bias"), &[*out], Role::Bias)).collect();
    let whole = |r: &[Range<usize>]| r.first().map_or(0, |f| f.start)..r.last().map_or(0, |f| f.end);
    Affine { w: whole(&weights), b: whole(&biases) }
}

fn layer(l: &mut Layout, c: &EncoderConfig, i: usize) -> Layer {
    let (width, head_dim) = (c.width, c.width / c.heads);
    let name = |s: &str| format!("encoder.layer.{i}.{s}");
    let heads = [
        (name("attention.self.query"), width, Role::Query { head_dim }),
        (name("attention.self.key"), width, Role::Key { head_dim }),
        (name("attention.self.value"), width, Role::Value { head_dim }),
    ];
    Layer {
        qkv: stacked(l, width, &heads),
        out: stacked(l, width, &[(name("attention.output.dense"), width, Role::AttnOut)]),
        norm1: norm(l, &name("attention.output.LayerNorm"), width),
        up: stacked(l, width, &[(name("intermediate.dense"), c.ffn, Role::Mlp)]),
        down: stacked(l, c.ffn, &[(name("output.dense"), width, Role::Mlp)]),
        norm2: norm(l, &name("output.LayerNorm"), width),
    }
}
