//! The generated language of the quick start: nothing is read, and every answer can be counted.

use std::sync::Arc;

use rhumb_lm::gem::control_temperature;
use rhumb_lm::quickstart::corpus::{Corpus, Sizes};
use rhumb_lm::quickstart::study::{Measures, Shape, at_temperature, decoder, measure, pretraining};
use rhumb_lm::sft::Sft;
use rhumb_nn::model::{Decoder, init};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONTROL, Measured, StudySettings, drive};
use crate::cmd::train::loss::Loss;
use crate::cmd::train::sft::setup;
use crate::exit::{Code, Failure};
use crate::lm::from_eval;
use crate::session::Context;

/// The generated language, and the training that all arms start from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BuiltIn {
    /// Documents to train on first; every right answer is as likely.
    pub(crate) documents: usize,
    /// Documents to fine-tune on; the first right answer is preferred.
    pub(crate) fine_tune: usize,
    /// Questions kept from fine-tuning.
    pub(crate) held_out: usize,
    /// Steps of the first training.
    pub(crate) steps: u64,
    /// Its largest learning rate.
    pub(crate) lr: f64,
    /// Layers of the decoder.
    pub(crate) layers: usize,
    /// Its width; it has four heads, each a quarter of it.
    pub(crate) width: usize,
}

impl Default for BuiltIn {
    fn default() -> Self {
        let (sizes, shape) = (Sizes::default(), Shape::default());
        BuiltIn {
            documents: sizes.pretrain,
            fine_tune: sizes.fine_tune,
            held_out: sizes.held_out,
            steps: 500,
            lr: 3e-3,
            layers: shape.layers,
            width: shape.width,
        }
    }
}

const NAMES: &[&str] = &["ce", "entropy", "right", "pass@1", "pass@4", "pass@16", "pass@64", "coverage"];

fn values(m: &Measures) -> Vec<f64> {
    [&[m.ce, m.entropy, m.right], &m.pass[..], &[m.coverage]].concat()
}

pub(super) fn run(s: &StudySettings, ctx: &mut Context<'_>) -> Result<Measured, Failure> {
    let b = &s.built_in;
    let sizes = Sizes { pretrain: b.documents, fine_tune: b.fine_tune, held_out: b.held_out };
    let corpus = Corpus::new(ctx.seed, sizes);
    if corpus.pretrain.is_empty() || corpus.fine_tune.is_empty() || corpus.held_out.is_empty() {
        return Err(Failure::usage(
            "algorithm.built_in: documents, fine_tune and held_out have to be above 0",
        ));
    }
    let shape = Shape { layers: b.layers, width: b.width };
    let model = decoder(&corpus.words, shape)
        .map_err(|e| Failure::new(Code::Usage, e).context("algorithm.built_in"))?;
    let measured =
        |params: &[f32]| measure(&model, params, &corpus).map_err(|e| Failure::new(Code::Numerical, e));
    let base = pretrain(b, ctx, &corpus, &model)?;
    let mut arms = vec![("before".to_owned(), values(&measured(&base)?))];
    let mut control = None;
    for (name, settings) in s.arms(ctx) {
        let config = setup::config(&settings, &corpus.fine_tune)?;
        let steps = config.steps;
        let train = corpus.fine_tune.clone();
        let mut sft = Sft::new(config, model.clone(), base.clone(), Arc::new(Vec::new()), train, &[])?;
        drive(ctx, name, steps, &mut sft)?;
        arms.push((name.to_owned(), values(&measured(sft.params())?)));
        if name == Loss::CE.name() {
            let warm =
                at_temperature(&model, sft.params(), control_temperature(s.sft.beta)).map_err(from_eval)?;
            control = Some(values(&measured(&warm)?));
        }
    }
    arms.extend(control.map(|c| (CONTROL.to_owned(), c)));
    Ok(Measured { names: NAMES.to_vec(), arms })
}

/// The parameters that every arm starts from.
fn pretrain(
    b: &BuiltIn,
    ctx: &mut Context<'_>,
    corpus: &Corpus,
    model: &Decoder,
) -> Result<Vec<f32>, Failure> {
    let mut config = pretraining(ctx.seed);
    config.steps = b.steps;
    config.eval_every = b.steps;
    config.optimizer.lr = b.lr;
    config.schedule.warmup_steps = b.steps / 20;
    let fresh = init(model.layout(), model.config().layers, 0.02, ctx.seed);
    let mut sft = Sft::new(config, model.clone(), fresh, Arc::new(Vec::new()), corpus.pretrain.clone(), &[])?;
    drive(ctx, "pretrain", b.steps, &mut sft)?;
    Ok(sft.params().to_vec())
}
