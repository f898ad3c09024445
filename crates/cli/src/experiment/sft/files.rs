//! A model and data from disk.

use rhumb_lm::gem::control_temperature;
use rhumb_lm::quickstart::study::at_temperature;
use rhumb_lm::sft::{HeldOut, Sft};
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::Decoder;

use super::{CONTROL, Measured, StudySettings, drive};
use crate::cmd::train::loss::Loss;
use crate::cmd::train::sft::{intake, setup};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};
use crate::session::Context;

const NAMES: &[&str] = &["ce", "entropy", "surrogate"];

pub(super) fn run(s: &StudySettings, ctx: &mut Context<'_>) -> Result<Measured, Failure> {
    let first = s.arm(Loss::CE, ctx);
    let mut model = LanguageModel::open_with(setup::named(&first)?.0, first.template.as_deref())?;
    let data = intake::read(&first, &model, None)?;
    let gem = LossKind::GemLinear { beta: s.sft.beta };
    let held_out =
        HeldOut::new(&data.held_out, first.tokens as usize, gem).map_err(|e| Failure::new(Code::Usage, e))?;
    let measured = |model: &Decoder, params: &[f32]| {
        let scores = held_out
            .score(model, params, &[])
            .map_err(|e| Failure::new(Code::Numerical, e).context("held-out conversations"))?;
        let m = scores.summary().ok_or_else(|| {
            Failure::usage("no held-out conversation has a token to judge: raise algorithm.sft.held_out")
        })?;
        Ok::<_, Failure>(vec![m.ce, m.entropy, m.surrogate])
    };
    let weights = model.params.clone();
    let plain = model.decoder.clone();
    let mut arms = vec![("before", measured(&plain, &weights)?)];
    let mut control = None;
    for (name, settings) in s.arms(ctx) {
        let config = setup::config_of(&settings, &data.train)?;
        model.params.clone_from(&weights);
        let (decoder, params, frozen) = setup::prepare(&settings, &mut model)?;
        setup::memory(&settings, &decoder)?.refuse_if_too_large(settings.memory_share)?;
        let steps = config.steps;
        let mut sft = Sft::new(config, decoder, params, frozen, data.train.clone(), &data.held_out)?;
        drive(ctx, name, steps, &mut sft)?;
        let t = sft.finish();
        let params = if t.model.is_adapted() { t.model.merge(&t.frozen, &t.params) } else { t.params };
        arms.push((name, measured(&plain, &params)?));
        if name == Loss::CE.name() {
            let warm = at_temperature(&plain, &params, control_temperature(s.sft.beta)).map_err(from_eval)?;
            control = Some(measured(&plain, &warm)?);
        }
    }
    arms.extend(control.map(|c| (CONTROL, c)));
    Ok(Measured { names: NAMES, arms })
}
