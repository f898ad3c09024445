//! A model and data from disk.

use rhumb_lm::data::Example;
use rhumb_lm::gem::control_temperature;
use rhumb_lm::quickstart::study::at_temperature;
use rhumb_lm::sft::{HeldOut, Sft};
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::Decoder;

use super::{CONTROL, Measured, StudySettings, drive, samples};
use crate::cmd::train::SftSettings;
use crate::cmd::train::loss::Loss;
use crate::cmd::train::sft::{intake, setup};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};
use crate::session::Context;

const NAMES: &[&str] = &["ce", "entropy", "surrogate"];

/// Arms with their numbers; what is not finite is kept as nothing, since JSON has no such numbers.
type Kept = Vec<(String, Vec<Option<f64>>)>;

fn kept(arm: &str, values: &[f64]) -> (String, Vec<Option<f64>>) {
    (arm.to_owned(), values.iter().map(|v| v.is_finite().then_some(*v)).collect())
}

/// What models are measured by.
struct Judge<'a> {
    study: &'a StudySettings,
    lm: &'a LanguageModel,
    held_out: HeldOut,
    prompts: Vec<Vec<u32>>,
    /// Answers of the model before training, and its own cross-entropy on them.
    drift: Option<(HeldOut, f64)>,
}

fn ce(held_out: &HeldOut, model: &Decoder, params: &[f32], what: &'static str) -> Result<[f64; 3], Failure> {
    let scores =
        held_out.score(model, params, &[]).map_err(|e| Failure::new(Code::Numerical, e).context(what))?;
    let m = scores.summary().ok_or_else(|| {
        Failure::usage("no held-out conversation has a token to judge: raise algorithm.sft.held_out")
    })?;
    Ok([m.ce, m.entropy, m.surrogate])
}

impl<'a> Judge<'a> {
    fn new(
        study: &'a StudySettings,
        lm: &'a LanguageModel,
        held_out: &[Example],
        tokens: usize,
    ) -> Result<Self, Failure> {
        let gem = LossKind::GemLinear { beta: study.sft.beta };
        let wrong = |e| Failure::new(Code::Usage, e);
        let prompts = study.samples.prompts(held_out)?;
        let held_out = HeldOut::new(held_out, tokens, gem).map_err(wrong)?;
        Ok(Judge { study, lm, held_out, prompts, drift: None })
    }

    /// Draws the answers of the model before training, which drift is measured on.
    fn before(
        &mut self,
        ctx: &mut Context<'_>,
        model: &Decoder,
        params: &[f32],
    ) -> Result<Vec<f64>, Failure> {
        let mut values = ce(&self.held_out, model, params, "held-out conversations")?.to_vec();
        if self.prompts.is_empty() {
            return Ok(values);
        }
        let samples = &self.study.samples;
        let answers = samples::draw(ctx, "before", samples, self.lm, (model, params), &self.prompts)?;
        let examples = samples::conversations(&self.prompts, &answers);
        let longest = examples.iter().map(|e| e.ids.len()).max().unwrap_or(1);
        let own = HeldOut::new(&examples, longest, LossKind::Ce).map_err(|e| Failure::new(Code::Usage, e))?;
        let base = ce(&own, model, params, "answers of the model before training")?[0];
        self.drift = Some((own, base));
        values.extend(samples::measure(&answers));
        values.push(0.0);
        Ok(values)
    }

    fn measure(
        &self,
        ctx: &mut Context<'_>,
        arm: &str,
        model: &Decoder,
        params: &[f32],
    ) -> Result<Vec<f64>, Failure> {
        let mut values = ce(&self.held_out, model, params, "held-out conversations")?.to_vec();
        if let Some((own, base)) = &self.drift {
            let samples = &self.study.samples;
            let answers = samples::draw(ctx, arm, samples, self.lm, (model, params), &self.prompts)?;
            values.extend(samples::measure(&answers));
            values.push(ce(own, model, params, "answers of the model before training")?[0] - base);
        }
        Ok(values)
    }
}

pub(super) fn run(s: &StudySettings, ctx: &mut Context<'_>) -> Result<Measured, Failure> {
    let first = s.arm(Loss::CE, ctx);
    let mut model = LanguageModel::open_with(setup::named(&first)?.0, first.template.as_deref())?;
    let mut data = intake::read(&first, &model, None)?;
    if s.conversations > 0 {
        data.train = data.train.draw(s.conversations, ctx.seed);
    }
    let weights = std::mem::take(&mut model.params);
    let plain = model.decoder.clone();
    let (mut judge, arms) = (Judge::new(s, &model, &data.held_out, first.tokens as usize)?, s.arms(ctx));
    let mut measured: Kept = vec![kept("before", &judge.before(ctx, &plain, &weights)?)];
    let mut control = None;
    for (name, settings) in arms {
        let of_arm: Kept = ctx.once(name, |ctx| {
            let params = train(ctx, name, &settings, &model, &weights, &data)?;
            let mut out = vec![kept(name, &judge.measure(ctx, name, &plain, &params)?)];
            if name == Loss::CE.name() {
                let warm =
                    at_temperature(&plain, &params, control_temperature(s.sft.beta)).map_err(from_eval)?;
                drop(params);
                out.push(kept(CONTROL, &judge.measure(ctx, CONTROL, &plain, &warm)?));
            }
            Ok(out)
        })?;
        let (own, other): (Kept, Kept) = of_arm.into_iter().partition(|(arm, _)| arm == name);
        measured.extend(own);
        control = control.or_else(|| other.into_iter().next());
    }
    measured.extend(control);
    let names = if s.samples.prompts > 0 { [NAMES, &samples::NAMES].concat() } else { NAMES.to_vec() };
    let values = |v: Vec<Option<f64>>| v.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect();
    Ok(Measured { names, arms: measured.into_iter().map(|(arm, v)| (arm, values(v))).collect() })
}

/// The weights that an arm ends with, adapters merged.
fn train(
    ctx: &mut Context<'_>,
    name: &str,
    settings: &SftSettings,
    model: &LanguageModel,
    weights: &[f32],
    data: &intake::Data,
) -> Result<Vec<f32>, Failure> {
    let config = setup::config_of(settings, &data.train)?;
    let (decoder, params, frozen) = setup::prepare_from(settings, &model.decoder, weights.to_vec())?;
    setup::memory(settings, &decoder)?.refuse_if_too_large(settings.memory_share)?;
    let steps = config.steps;
    let mut sft = Sft::new(config, decoder, params, frozen, data.train.clone(), &data.held_out)?;
    drive(ctx, name, steps, &mut sft)?;
    let t = sft.finish();
    Ok(if t.model.is_adapted() { t.model.merge(&t.frozen, &t.params) } else { t.params })
}
