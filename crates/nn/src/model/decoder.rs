use std::ops::Range;
use std::sync::Arc;

use rhumb_core::{Layout, Role};
use rhumb_linalg::{Real, compiled};

use super::config::{DecoderConfig, Family, ModelError};
use super::lora::LoraConfig;
use crate::loss::{LmHead, LossKind};
use crate::ops::{
    Act, Activation, Attention, Embed, LayerNorm, Linear, LowRank, QkNorm, RmsNorm, RopeTable, SwiGlu,
};
use crate::tape::{Graph, Span, Src, Var};

/// A low-rank pair on one projection.
#[derive(Clone, Debug)]
struct Adapter {
    /// Rows of the stacked output that the pair updates.
    cols: Range<usize>,
    /// First column in the stacked `u`.
    from: usize,
    b: Range<usize>,
}

/// A projection: one or several stacked weights, their biases, their adapters.
#[derive(Clone, Debug)]
struct Proj {
    inp: usize,
    out: usize,
    w: Range<usize>,
    bias: Option<Range<usize>>,
    /// Stacked `A` factors and their adapters.
    lora: Option<(Range<usize>, Vec<Adapter>)>,
}

#[derive(Clone, Debug)]
struct Norm {
    w: Range<usize>,
    b: Option<Range<usize>>,
}

#[derive(Clone, Debug)]
struct Layer {
    norm1: Norm,
    qkv: Proj,
    qk_norm: Option<(Range<usize>, Range<usize>)>,
    out: Proj,
    norm2: Norm,
    up: Proj,
    down: Proj,
}

/// A causal language model: one definition for training, generation and second derivatives.
///
/// The flat vector keeps the checkpoint's tensors under their own names; query, key and value (and gate and
/// up) lie one after another, so that each group is one product.
///
/// # Reference
/// Llama: Touvron et al. 2023; Qwen3's normalised heads: Yang et al. 2025; GPT-2: Radford et al. 2019.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecoderConfig,
    base: Layout,
    adapters: Option<Layout>,
    lora: Option<LoraConfig>,
    embed: Range<usize>,
    position: Option<Range<usize>>,
    layers: Vec<Layer>,
    norm: Norm,
    head: Option<Range<usize>>,
}

/// The shape of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Rows of the batch.
    pub rows: usize,
    /// Tokens in a row.
    pub len: usize,
}

/// What a graph computes and keeps.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The loss at the end; `None` stops at the hidden states.
    pub loss: Option<LossKind>,
    /// Drop each layer's values after the forward pass and compute them again in the backward pass.
    pub checkpoint: bool,
}

/// A description of one pushed weight, for names of adapters.
struct Part<'a> {
    module: &'a str,
    out: usize,
    role: Role,
}

struct Builder<'a> {
    base: Layout,
    adapters: Layout,
    lora: Option<&'a LoraConfig>,
}

impl Builder<'_> {
    fn norm(&mut self, name: &str, width: usize, bias: bool) -> Norm {
        let w = self.base.push(format!("{name}.weight"), &[width], Role::Norm);
        let b = bias.then(|| self.base.push(format!("{name}.bias"), &[width], Role::Bias));
        Norm { w, b }
    }

    fn proj(&mut self, inp: usize, parts: &[Part<'_>], bias: bool) -> Proj {
        let mut range: Option<Range<usize>> = None;
        let mut grow = |r: Range<usize>| match &mut range {
            Some(all) => all.end = r.end,
            None => range = Some(r),
        };
        for p in parts {
            grow(self.base.push(format!("{}.weight", p.module), &[p.out, inp], p.role));
        }
        let w = range.take().unwrap_or(0..0);
        let mut bias_range: Option<Range<usize>> = None;
        if bias {
            for p in parts {
                let r = self.base.push(format!("{}.bias", p.module), &[p.out], Role::Bias);
                match &mut bias_range {
                    Some(all) => all.end = r.end,
                    None => bias_range = Some(r),
                }
            }
        }
        let lora = self.adapt(inp, parts);
        Proj { inp, out: parts.iter().map(|p| p.out).sum(), w, bias: bias_range, lora }
    }

    fn adapt(&mut self, inp: usize, parts: &[Part<'_>]) -> Option<(Range<usize>, Vec<Adapter>)> {
        let lora = self.lora?;
        let mut at = 0;
        let mut chosen = Vec::new();
        for p in parts {
            let last = p.module.rsplit('.').next().unwrap_or(p.module);
            if lora.targets.iter().any(|t| t == last) {
                chosen.push((p, at..at + p.out));
            }
            at += p.out;
        }
        if chosen.is_empty() {
            return None;
        }
        let name = |p: &Part<'_>, f: &str| format!("base_model.model.{}.lora_{f}.weight", p.module);
        let mut a: Option<Range<usize>> = None;
        for (p, _) in &chosen {
            let r = self.adapters.push(name(p, "A"), &[lora.rank, inp], Role::LoraA);
            match &mut a {
                Some(all) => all.end = r.end,
                None => a = Some(r),
            }
        }
        let list = chosen.into_iter().enumerate().map(|(i, (p, cols))| {
            let b = self.adapters.push(name(p, "B"), &[p.out, lora.rank], Role::LoraB);
            Adapter { cols, from: i * lora.rank, b }
        });
        let list = list.collect();
        a.map(|a| (a, list))
    }
}

compiled!(MakeGraph<'a>, |(model, shape, plan, rope): (
    &'a Decoder,
    BatchShape,
    Plan,
    Option<&'a Arc<RopeTable<T>>>
)|
 -> (Graph<T>, Var,) { model.built(shape, plan, rope) });

impl Decoder {
    /// A decoder whose own parameters are trained.
    ///
    /// # Errors
    /// A configuration whose numbers do not fit each other.
    pub fn new(config: DecoderConfig) -> Result<Self, ModelError> {
        Self::build(config, None)
    }

    /// A decoder with frozen parameters and trained adapters.
    ///
    /// # Errors
    /// As [`Decoder::new`]; a rank of zero; targets that match no projection.
    pub fn with_lora(config: DecoderConfig, lora: &LoraConfig) -> Result<Self, ModelError> {
        if !(1..=1 << 16).contains(&lora.rank) {
            return Err(ModelError::Config(format!("lora.rank is {}: use 4 to 64", lora.rank)));
        }
        if !lora.alpha.is_finite() {
            return Err(ModelError::Config(format!("lora.alpha is {}: use 16", lora.alpha)));
        }
        let d = Self::build(config, Some(lora))?;
        if d.layout().is_empty() {
            return Err(ModelError::Config(format!("lora.targets {:?} match no projection", lora.targets)));
        }
        Ok(d)
    }

    fn build(config: DecoderConfig, lora: Option<&LoraConfig>) -> Result<Self, ModelError> {
        config.check()?;
        let mut b = Builder { base: Layout::new(), adapters: Layout::new(), lora };
        let c = &config;
        let gpt2 = c.family == Family::Gpt2;
        let (embed, position) = if gpt2 {
            let e = b.base.push("wte.weight", &[c.vocab, c.width], Role::Embed);
            (e, Some(b.base.push("wpe.weight", &[c.positions, c.width], Role::Position)))
        } else {
            (b.base.push("model.embed_tokens.weight", &[c.vocab, c.width], Role::Embed), None)
        };
        let layers =
            (0..c.layers).map(|i| if gpt2 { gpt2_layer(&mut b, c, i) } else { llama_layer(&mut b, c, i) });
        let layers = layers.collect();
        let norm = if gpt2 { b.norm("ln_f", c.width, true) } else { b.norm("model.norm", c.width, false) };
        let head = (!c.tied).then(|| b.base.push("lm_head.weight", &[c.vocab, c.width], Role::Head));
        Ok(Decoder {
            base: b.base,
            adapters: lora.map(|_| b.adapters),
            lora: lora.cloned(),
            config,
            embed,
            position,
            layers,
            norm,
            head,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The trained tensors.
    pub fn layout(&self) -> &Layout {
        self.adapters.as_ref().unwrap_or(&self.base)
    }

    /// The model's own tensors, trained or frozen.
    pub fn base_layout(&self) -> &Layout {
        &self.base
    }

    /// The settings of the adapters, where only these are trained.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    fn scale(&self) -> f64 {
        self.lora.as_ref().map_or(0.0, LoraConfig::scale)
    }

    /// True when only adapters are trained.
    pub fn is_adapted(&self) -> bool {
        self.adapters.is_some()
    }

    /// The output head (the embedding when tied), a piece of the base vector.
    pub fn head_range(&self) -> Range<usize> {
        self.head.clone().unwrap_or_else(|| self.embed.clone())
    }

    fn span(&self, r: &Range<usize>) -> Src {
        Src::Param(Span { range: r.clone(), trainable: self.adapters.is_none() })
    }

    fn adapter(r: &Range<usize>) -> Src {
        Src::Param(Span { range: r.clone(), trainable: true })
    }

    /// Angles for this model's positions up to `positions`.
    pub fn rope<T: Real>(&self, positions: usize) -> Option<Arc<RopeTable<T>>> {
        self.config.inv_freq().map(|f| Arc::new(RopeTable::new(&f, positions)))
    }

    /// The computation for batches of one shape; returns the hidden states after the last norm as well.
    pub fn graph<T: Real>(
        &self,
        shape: BatchShape,
        plan: Plan,
        rope: Option<&Arc<RopeTable<T>>>,
    ) -> (Graph<T>, Var) {
        T::compiled::<MakeGraph<'_>>((self, shape, plan, rope))
    }

    fn built<T: Real>(
        &self,
        shape: BatchShape,
        plan: Plan,
        rope: Option<&Arc<RopeTable<T>>>,
    ) -> (Graph<T>, Var) {
        let c = &self.config;
        let n = shape.rows * shape.len;
        let mut g = Graph::new();
        let mut inputs = vec![self.span(&self.embed)];
        inputs.extend(self.position.as_ref().map(|p| self.span(p)));
        let noise = plan.loss.map_or(0.0, LossKind::noise);
        let embed = Embed { rows: n, width: c.width, positions: self.position.is_some(), noise };
        let mut x = g.push(embed, &inputs);
        for (i, layer) in self.layers.iter().enumerate() {
            if plan.checkpoint {
                g.checkpoint();
            }
            x = self.layer(&mut g, layer, i, shape, rope, x);
            g.keep();
        }
        let h = self.norm(&mut g, &self.norm, n, x);
        if let Some(kind) = plan.loss {
            g.finish(LmHead::new(n, c.width, c.vocab, kind), &[h.into(), self.span(&self.head_range())]);
        }
        (g, h)
    }

    fn layer<T: Real>(
        &self,
        g: &mut Graph<T>,
        l: &Layer,
        index: usize,
        shape: BatchShape,
        rope: Option<&Arc<RopeTable<T>>>,
        x: Var,
    ) -> Var {
        let c = &self.config;
        let n = shape.rows * shape.len;
        let h = self.norm(g, &l.norm1, n, x);
        let mut qkv = self.project(g, &l.qkv, n, h, None);
        if let Some((q, k)) = &l.qk_norm {
            let op =
                QkNorm { rows: n, heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim, eps: c.eps };
            qkv = g.push(op, &[qkv.into(), self.span(q), self.span(k)]);
        }
        let att = Attention {
            batch: shape.rows,
            len: shape.len,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            rope: rope.cloned(),
            layer: index,
        };
        let a = g.push(att, &[qkv.into()]);
        let x = self.project(g, &l.out, n, a, Some(x));
        let h = self.norm(g, &l.norm2, n, x);
        let u = self.project(g, &l.up, n, h, None);
        let a = match c.family {
            Family::Llama => g.push(SwiGlu { rows: n, width: c.ffn }, &[u.into()]),
            Family::Gpt2 => g.push(Activation { len: n * c.ffn, act: Act::GeluTanh }, &[u.into()]),
        };
        self.project(g, &l.down, n, a, Some(x))
    }

    fn norm<T: Real>(&self, g: &mut Graph<T>, norm: &Norm, rows: usize, x: Var) -> Var {
        let (width, eps) = (self.config.width, self.config.eps);
        match &norm.b {
            None => g.push(RmsNorm { rows, width, eps }, &[x.into(), self.span(&norm.w)]),
            Some(b) => g.push(LayerNorm { rows, width, eps }, &[x.into(), self.span(&norm.w), self.span(b)]),
        }
    }

    fn project<T: Real>(
        &self,
        g: &mut Graph<T>,
        p: &Proj,
        rows: usize,
        x: Var,
        residual: Option<Var>,
    ) -> Var {
        let op =
            Linear { rows, inp: p.inp, out: p.out, bias: p.bias.is_some(), residual: residual.is_some() };
        let mut inputs = vec![x.into(), self.span(&p.w)];
        inputs.extend(p.bias.as_ref().map(|b| self.span(b)));
        inputs.extend(residual.map(Src::from));
        let mut y = g.push(op, &inputs);
        if let Some((a, list)) = &p.lora {
            let total = a.len() / p.inp;
            let down = Linear { rows, inp: p.inp, out: total, bias: false, residual: false };
            let u = g.push(down, &[x.into(), Self::adapter(a)]);
            for ad in list {
                let op = LowRank {
                    rows,
                    width: p.out,
                    cols: ad.cols.clone(),
                    total,
                    from: ad.from,
                    rank: ad.b.len() / ad.cols.len(),
                    scale: self.scale(),
                };
                y = g.push(op, &[y.into(), u.into(), Self::adapter(&ad.b)]);
            }
        }
        y
    }

    /// Adds the adapters' updates to a copy of the base parameters.
    ///
    /// # Equation
    /// `W + (alpha / rank) B A` for every adapted projection, in f64.
    pub fn merge<T: Real>(&self, base: &[T], adapters: &[T]) -> Vec<T> {
        let (mut out, scale) = (base.to_vec(), self.scale());
        for layer in &self.layers {
            for p in [&layer.qkv, &layer.out, &layer.up, &layer.down] {
                let Some((a, list)) = &p.lora else { continue };
                for ad in list {
                    let rank = ad.b.len() / ad.cols.len();
                    let (fa, fb) = (&adapters[a.clone()][ad.from * p.inp..], &adapters[ad.b.clone()]);
                    for (r, row) in ad.cols.clone().enumerate() {
                        let w = &mut out[p.w.clone()][row * p.inp..][..p.inp];
                        for (j, w) in w.iter_mut().enumerate() {
                            let s: f64 =
                                (0..rank).map(|k| fb[r * rank + k].f64() * fa[k * p.inp + j].f64()).sum();
                            *w = T::of(w.f64() + scale * s);
                        }
                    }
                }
            }
        }
        out
    }
}

fn llama_layer(b: &mut Builder<'_>, c: &DecoderConfig, i: usize) -> Layer {
    let head_dim = c.head_dim;
    let name = |s: &str| format!("model.layers.{i}.{s}");
    let norm1 = b.norm(&name("input_layernorm"), c.width, false);
    let (q, k, v) = (name("self_attn.q_proj"), name("self_attn.k_proj"), name("self_attn.v_proj"));
    let qkv = b.proj(
        c.width,
        &[
            Part { module: &q, out: c.heads * head_dim, role: Role::Query { head_dim } },
            Part { module: &k, out: c.kv_heads * head_dim, role: Role::Key { head_dim } },
            Part { module: &v, out: c.kv_heads * head_dim, role: Role::Value { head_dim } },
        ],
        c.qkv_bias,
    );
    let qk_norm = c.qk_norm.then(|| {
        (
            b.norm(&name("self_attn.q_norm"), head_dim, false).w,
            b.norm(&name("self_attn.k_norm"), head_dim, false).w,
        )
    });
    let o = name("self_attn.o_proj");
    let out = b.proj(c.heads * head_dim, &[Part { module: &o, out: c.width, role: Role::AttnOut }], false);
    let norm2 = b.norm(&name("post_attention_layernorm"), c.width, false);
    let (gate, up, down) = (name("mlp.gate_proj"), name("mlp.up_proj"), name("mlp.down_proj"));
    let role = Role::Mlp;
    let both = [Part { module: &gate, out: c.ffn, role }, Part { module: &up, out: c.ffn, role }];
    let up = b.proj(c.width, &both, false);
    let down = b.proj(c.ffn, &[Part { module: &down, out: c.width, role }], false);
    Layer { norm1, qkv, qk_norm, out, norm2, up, down }
}

fn gpt2_layer(b: &mut Builder<'_>, c: &DecoderConfig, i: usize) -> Layer {
    let name = |s: &str| format!("h.{i}.{s}");
    let role = Role::Qkv { head_dim: c.head_dim, heads: c.heads, kv_heads: c.kv_heads };
    let norm1 = b.norm(&name("ln_1"), c.width, true);
    let qkv = b.proj(c.width, &[Part { module: &name("attn.c_attn"), out: 3 * c.width, role }], true);
    let o = Part { module: &name("attn.c_proj"), out: c.width, role: Role::AttnOut };
    let out = b.proj(c.width, &[o], true);
    let norm2 = b.norm(&name("ln_2"), c.width, true);
    let up = b.proj(c.width, &[Part { module: &name("mlp.c_fc"), out: c.ffn, role: Role::Mlp }], true);
    let down = b.proj(c.ffn, &[Part { module: &name("mlp.c_proj"), out: c.width, role: Role::Mlp }], true);
    Layer { norm1, qkv, qk_norm: None, out, norm2, up, down }
}
