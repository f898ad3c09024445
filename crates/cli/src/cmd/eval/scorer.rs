//! Answers scored by the likelihood that a model gives them.

use rhumb_lm::data::Example;
use rhumb_lm::sft::HeldOut;
use rhumb_nn::loss::LossKind;

use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};

/// Mean log-probability per token of each answer after a prompt, at temperature 1 and without a penalty. What does not
/// fit the context is left out; an answer without tokens has the lowest score there is.
pub(super) fn mean_logprobs(
    lm: &LanguageModel,
    prompt: &[u32],
    answers: &[Vec<u32>],
) -> Result<Vec<f64>, Failure> {
    let room = lm.decoder.config().positions;
    if prompt.is_empty() || prompt.len() >= room {
        return Err(Failure::usage(format!(
            "{}: a question has {} tokens here and the context is {room}: take another --scorer",
            lm.path.display(),
            prompt.len()
        )));
    }
    let example = |answer: &Vec<u32>| {
        let mut ids = [prompt, answer].concat();
        ids.truncate(room);
        let live = (0..ids.len()).map(|i| i >= prompt.len()).collect();
        Example { ids, live, line: 0 }
    };
    let examples: Vec<Example> = answers.iter().map(example).collect();
    let len = examples.iter().map(|e| e.ids.len()).max().unwrap_or(0);
    let held = HeldOut::new(&examples, len, LossKind::Ce).map_err(|e| Failure::new(Code::Usage, e))?;
    let scores = held.score(&lm.decoder, &lm.params, &[]).map_err(from_eval)?;
    let mean = |tokens: &Vec<_>| match tokens.len() {
        0 => f64::MIN,
        n => -tokens.iter().map(|t: &rhumb_nn::loss::RowStats| t.ce).sum::<f64>() / n as f64,
    };
    Ok(scores.documents.iter().map(mean).collect())
}
