//! Answers to held-out prompts, and what they say about an arm.

use rhumb_core::{
    Algorithm, CheckpointError, EvalError, MemoryReport, StateReader, StateWriter, Status, Step,
};
use rhumb_io::complete::{CompleteError, Limits, complete_all};
use rhumb_linalg::rng::mix;
use rhumb_lm::data::Example;
use rhumb_lm::eval::repeat::{LoopLimits, tail_loop_of_text};
use rhumb_lm::eval::text::bleu::{SelfBleu, self_bleu};
use rhumb_lm::eval::text::diversity::distinct;
use rhumb_lm::eval::text::words;
use rhumb_nn::model::{Decoder, Session};
use rhumb_nn::sample::{Sampler, SamplerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::drive;
use crate::exit::Failure;
use crate::lm::LanguageModel;
use crate::session::Context;

/// Answers to held-out prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Samples {
    /// Held-out prompts, all different; 0 draws no answers.
    pub(crate) prompts: usize,
    /// Answers to each.
    pub(crate) each: usize,
    /// Tokens of an answer at most.
    pub(crate) tokens: usize,
}

impl Default for Samples {
    fn default() -> Self {
        Samples { prompts: 0, each: 16, tokens: 48 }
    }
}

/// What answers are measured by.
pub(super) const NAMES: [&str; 5] = ["distinct", "self_bleu", "words", "loops", "drift"];
/// Answers to each prompt that the drift is measured on.
const DRIFT: usize = 2;

impl Samples {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.prompts > 0 && (self.each < 2 || self.tokens == 0) {
            return Err("algorithm.samples: diversity needs each of at least 2 and tokens above 0".to_owned());
        }
        Ok(())
    }

    /// What the columns mean.
    pub(super) fn explained(&self) -> String {
        format!(
            "distinct (different over all n-grams, mean of n = 1, 2, 3), self_bleu (every answer against the others of its \
             prompt; lower is more varied), words (of an answer) and loops (share of answers that end in a loop): {} answers \
             of at most {} tokens to each of {} held-out prompts, drawn at temperature 1 from the whole distribution, means \
             over prompts. drift: mean surprise, in nats per token and beyond its own, at {DRIFT} answers to each prompt of \
             the model before training; it estimates the Kullback-Leibler divergence from that model.",
            self.each, self.tokens, self.prompts
        )
    }

    /// The first held-out prompts that differ.
    pub(super) fn prompts(&self, held_out: &[Example]) -> Result<Vec<Vec<u32>>, Failure> {
        let mut prompts: Vec<Vec<u32>> = Vec::new();
        for e in held_out {
            let start = e.live.iter().position(|l| *l).unwrap_or(0);
            let prompt = e.ids[..start].to_vec();
            if prompts.len() < self.prompts && start > 0 && !prompts.contains(&prompt) {
                prompts.push(prompt);
            }
        }
        if prompts.len() < self.prompts {
            return Err(Failure::usage(format!(
                "algorithm.samples.prompts is {}, and the held-out conversations have {} different prompts: raise \
                 algorithm.sft.held_out",
                self.prompts,
                prompts.len()
            )));
        }
        Ok(prompts)
    }
}

/// The answers of one model: a step is a prompt.
struct Drawing<'a> {
    lm: &'a LanguageModel,
    model: &'a Decoder,
    params: &'a [f32],
    prompts: &'a [Vec<u32>],
    samples: &'a Samples,
    seed: u64,
    answers: Vec<Vec<Answer>>,
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    ids: Vec<u32>,
    text: String,
}

impl Algorithm for Drawing<'_> {
    fn name(&self) -> &'static str {
        "samples"
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        let prompt = &self.prompts[s.k as usize];
        let unsupported = |e: CompleteError| match e {
            CompleteError::Eval(e) => e,
            CompleteError::Sample(e) => EvalError::Unsupported(e.to_string()),
        };
        // The same draws for every arm: what differs is the model.
        let config = SamplerConfig { seed: mix(self.seed ^ s.k), ..SamplerConfig::default() };
        let mut samplers = (0..self.samples.each as u64)
            .map(|i| Sampler::of_completion(config.clone(), i))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| unsupported(e.into()))?;
        let capacity = prompt.len() + self.samples.tokens;
        let mut session = Session::new(self.model, self.params, &[], capacity);
        let first = session.push(prompt)?;
        let limits = Limits { eos: &self.lm.eos, stop: &[], max_new: self.samples.tokens };
        let answers = complete_all(&self.lm.tokenizer, &mut session, &first, &mut samplers, limits);
        let answers: Vec<Answer> =
            answers.map_err(unsupported)?.into_iter().map(|c| Answer { ids: c.ids, text: c.text }).collect();
        s.evals.samples += answers.len() as u64;
        s.record.put("tokens", answers.iter().map(|a| a.ids.len() as f64).sum::<f64>());
        self.answers.push(answers);
        Ok(Status::Continue)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_json("answers", &self.answers)
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        self.answers = src.json("answers")?;
        Ok(())
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport { parameters: size_of_val(self.params) as u64, ..MemoryReport::default() }
    }
}

/// Draws the answers of an arm; they are kept as `samples.jsonl` in its folder.
pub(super) fn draw(
    ctx: &mut Context<'_>,
    arm: &str,
    samples: &Samples,
    lm: &LanguageModel,
    (model, params): (&Decoder, &[f32]),
    prompts: &[Vec<u32>],
) -> Result<Vec<Vec<Answer>>, Failure> {
    let seed = ctx.seed;
    let mut drawing = Drawing { lm, model, params, prompts, samples, seed, answers: Vec::new() };
    drive(ctx, &format!("{arm}/samples"), prompts.len() as u64, &mut drawing)?;
    let answers = drawing.answers;
    let mut lines = String::new();
    for (prompt, answers) in prompts.iter().zip(&answers) {
        let prompt = lm.tokenizer.decode(prompt, false).unwrap_or_default();
        let answers: Vec<&str> = answers.iter().map(|a| a.text.as_str()).collect();
        lines += &format!("{}\n", json!({ "prompt": prompt, "answers": answers }));
    }
    ctx.keep(arm, "samples.jsonl", &lines)?;
    Ok(answers)
}

/// The values of [`NAMES`] but the last, means over prompts.
pub(super) fn measure(answers: &[Vec<Answer>]) -> Vec<f64> {
    let n = answers.len() as f64;
    let mut sums = vec![0.0; NAMES.len() - 1];
    for answers in answers {
        let texts: Vec<&str> = answers.iter().map(|a| a.text.as_str()).collect();
        let tokens: Vec<Vec<String>> = texts.iter().map(|t| words(t)).collect();
        let each = texts.len() as f64;
        let loops = texts.iter().filter(|t| tail_loop_of_text(t, &LoopLimits::CHARS).is_some()).count();
        let values = [
            distinct(&tokens),
            self_bleu(&texts, SelfBleu::Multi).unwrap_or(f64::NAN),
            tokens.iter().map(Vec::len).sum::<usize>() as f64 / each,
            loops as f64 / each,
        ];
        sums.iter_mut().zip(values).for_each(|(s, v)| *s += v / n);
    }
    sums
}

/// Answers as conversations that are scored.
pub(super) fn conversations(prompts: &[Vec<u32>], answers: &[Vec<Answer>]) -> Vec<Example> {
    let pairs = prompts.iter().zip(answers).flat_map(|(p, a)| a.iter().take(DRIFT).map(move |a| (p, a)));
    let whole = pairs.map(|(prompt, answer)| Example {
        ids: prompt.iter().chain(&answer.ids).copied().collect(),
        live: prompt.iter().map(|_| false).chain(answer.ids.iter().map(|_| true)).collect(),
        line: 0,
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer { ids: vec![1, 2], text: text.to_owned() }
    }

    #[test]
    fn answers_are_measured_prompt_by_prompt() {
        let varied = vec![answer("a b c d"), answer("e f g h")];
        let same = vec![answer("a b c d"), answer("a b c d")];
        let of = |answers: &[Vec<Answer>]| measure(answers);
        // No n-gram twice, and no overlap; all twice, and nothing but overlap.
        let (v, s) = (of(std::slice::from_ref(&varied)), of(std::slice::from_ref(&same)));
        assert!((v[0] - 100.0).abs() < 1e-12 && (s[0] - 50.0).abs() < 1e-12);
        assert!(v[1] < 10.0 && (s[1] - 100.0).abs() < 1e-9, "{v:?} {s:?}");
        assert!((v[2] - 4.0).abs() < 1e-12 && v[3].abs() < 1e-12);
        let both = of(&[varied, same]);
        assert!((both[0] - 75.0).abs() < 1e-12);
        let looped = "again and again ".repeat(20);
        assert!((of(&[vec![answer(&looped), answer("no")]])[3] - 0.5).abs() < 1e-12);
    }

    #[test]
    fn prompts_are_the_first_that_differ_and_too_few_are_told() {
        let example =
            |ids: [u32; 3], live: [bool; 3]| Example { ids: ids.to_vec(), live: live.to_vec(), line: 1 };
        let answered = [false, false, true];
        let held_out = [
            example([1, 2, 3], answered),
            example([1, 2, 4], answered),
            example([5, 6, 7], [true; 3]),
            example([8, 9, 7], answered),
        ];
        let prompts = |n: usize| Samples { prompts: n, ..Samples::default() }.prompts(&held_out);
        assert_eq!(prompts(2).ok(), Some(vec![vec![1, 2], vec![8, 9]]));
        let error = prompts(3).map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains("have 2 different prompts")), "{error:?}");
    }

    #[test]
    fn only_the_answer_of_a_conversation_is_scored() {
        let made = conversations(&[vec![7, 8, 9]], &[vec![answer("a"), answer("b"), answer("c")]]);
        assert_eq!(made.len(), DRIFT);
        assert_eq!(
            (&made[0].ids[..], &made[0].live[..]),
            (&[7, 8, 9, 1, 2][..], &[false, false, false, true, true][..])
        );
    }
}
