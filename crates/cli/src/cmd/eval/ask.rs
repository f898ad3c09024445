//! Questions asked, answers drawn and judged: the loop that the measures on answers share.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rhumb_core::Record;
use rhumb_io::complete::{Completion, Limits, Stop, complete_all};
use rhumb_io::template::Message;
use rhumb_linalg::rng::Rng;
use rhumb_lm::eval::repeat::{LoopLimits, tail_loop_of_text};
use rhumb_nn::model::Session;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::options::{Draws, Sampling};
use super::run::Run;
use super::scorer::mean_logprobs;
use crate::cmd::generate::samplers;
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};

/// The file of a run folder with a line for every question.
const SAMPLES: &str = "samples.jsonl";

/// An answer and what was said of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer<V> {
    /// Text without special tokens.
    pub(super) text: String,
    /// Tokens, the one that ended it included.
    pub(super) tokens: usize,
    /// Why it ended.
    pub(super) stop: Stop,
    /// It ends in a loop.
    pub(super) looped: bool,
    /// Mean log-probability per token by the model itself, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) logprob: Option<f64>,
    /// The same by another model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scorer: Option<f64>,
    /// The judgement.
    pub(super) verdict: V,
}

/// The answers to a question, and its record.
type Asked<V> = (Vec<Answer<V>>, Record);

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line<V> {
    question: usize,
    prompt: String,
    answers: Vec<Answer<V>>,
}

/// How answers are judged. A judgement is kept with its answer, so that a resumed run does not judge again.
pub(super) trait Judge {
    /// What is said of an answer.
    type Verdict: Serialize + DeserializeOwned;

    /// Judges all answers to a question, in their order.
    ///
    /// # Errors
    /// Where judging itself fails, not the answer.
    fn judge(&mut self, question: usize, answers: &[&str]) -> Result<Vec<Self::Verdict>, Failure>;

    /// Numbers of a question for its record.
    fn note(&self, verdicts: &[&Self::Verdict], record: &mut Record);
}

/// Counts over all answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sampled {
    pub(super) answers: usize,
    pub(super) tokens: usize,
    /// Cut off at a limit of tokens.
    pub(super) cut: usize,
    /// Ending in a loop.
    pub(super) looped: usize,
}

impl Sampled {
    pub(super) fn of<V>(all: &[Vec<Answer<V>>]) -> Self {
        let mut out = Sampled::default();
        for a in all.iter().flatten() {
            out.answers += 1;
            out.tokens += a.tokens;
            out.cut += usize::from(matches!(a.stop, Stop::MaxNew | Stop::Context));
            out.looped += usize::from(a.looped);
        }
        out
    }
}

/// A question as a model sees it.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    /// The text with everything that the chat template puts around it.
    pub(super) text: String,
    ids: Vec<u32>,
}

/// The prompts of questions; refuses the first that leaves no room for an answer.
pub(super) fn prompts(
    lm: &LanguageModel,
    s: &Sampling,
    questions: &[String],
) -> Result<Vec<Prompt>, Failure> {
    let room = lm.decoder.config().positions;
    let place = |i: usize| format!("question {}", i + 1);
    let prompt = |(i, q): (usize, &String)| {
        let prompt = prompt(lm, s, q).map_err(|e| e.context(place(i)))?;
        match prompt.ids.len() {
            0 => Err(Failure::usage(format!("{} has no tokens: leave it out", place(i)))),
            n if n >= room => Err(Failure::usage(format!(
                "{} has {n} tokens and the model's context is {room}: shorten it, leave it out, or take another model",
                place(i)
            ))),
            _ => Ok(prompt),
        }
    };
    questions.iter().enumerate().map(prompt).collect()
}

/// The prompt of one question.
pub(super) fn prompt(lm: &LanguageModel, s: &Sampling, question: &str) -> Result<Prompt, Failure> {
    let usage = |e: anyhow::Error| Failure::new(Code::Usage, e);
    if s.plain {
        let ids = lm.tokenizer.encode_with_special(question).map_err(|e| usage(e.into()))?;
        return Ok(Prompt { text: question.to_owned(), ids });
    }
    let Some(template) = &lm.template else {
        return Err(Failure::usage(format!(
            "{} has no chat template: give one with --template, or ask in plain text with --plain",
            lm.path.display()
        )));
    };
    let system = s.system.iter().map(|t| Message::new("system", t));
    let messages: Vec<Message> = system.chain([Message::new("user", question)]).collect();
    let text = template.render(&messages, true).map_err(|e| usage(e.into()))?;
    let ids = lm.tokenizer.encode(&text).map_err(|e| usage(e.into()))?;
    Ok(Prompt { text, ids })
}

/// Another model that scores answers, with the questions as it sees them.
pub(super) struct Scorer {
    pub(super) lm: LanguageModel,
    pub(super) prompts: Vec<Prompt>,
}

impl Scorer {
    /// What it says of the answers to a question, by their texts: its tokens are others.
    fn scores(&self, question: usize, answers: &[Completion]) -> Result<Vec<f64>, Failure> {
        let ids = |c: &Completion| {
            let mut ids = self.lm.tokenizer.encode(&c.text).map_err(|e| Failure::new(Code::Usage, e))?;
            ids.extend(self.lm.eos.first().filter(|_| c.stop == Stop::Eos));
            Ok(ids)
        };
        let ids: Vec<Vec<u32>> = answers.iter().map(ids).collect::<Result<_, Failure>>()?;
        mean_logprobs(&self.lm, &self.prompts[question].ids, &ids)
    }
}

/// A model and what it is asked.
pub(super) struct Asker<'a> {
    pub(super) lm: &'a LanguageModel,
    pub(super) draws: &'a Draws,
    /// Texts that end an answer.
    pub(super) stop: &'a [String],
    pub(super) prompts: &'a [Prompt],
    /// Whether the model scores its own answers.
    pub(super) own: bool,
    pub(super) scorer: Option<&'a Scorer>,
}

/// Questions that the file of samples in a folder has whole lines for.
pub(super) fn kept(out: &Path) -> usize {
    let whole = |t: Vec<u8>| t.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")).count();
    std::fs::read(out.join(SAMPLES)).map_or(0, whole)
}

impl<'a> Asker<'a> {
    /// Nothing scores the answers.
    pub(super) fn new(
        lm: &'a LanguageModel,
        draws: &'a Draws,
        stop: &'a [String],
        prompts: &'a [Prompt],
    ) -> Self {
        Asker { lm, draws, stop, prompts, own: false, scorer: None }
    }

    /// Asks every question that the folder of the run has no answers to. Returns the answers to all of them.
    pub(super) fn ask<J: Judge>(
        &self,
        run: &mut Run,
        judge: &mut J,
    ) -> Result<Vec<Vec<Answer<J::Verdict>>>, Failure> {
        run.work(|run| {
            let path = run.file(SAMPLES);
            let mut all = earlier(&path, run.earlier.len())?;
            let write = |e: std::io::Error| {
                Failure::usage(format!("cannot write {}: {e}; is the disk full?", path.display()))
            };
            let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(write)?;
            for i in all.len()..self.prompts.len() {
                run.go_on()?;
                let (answers, record) =
                    self.question(i, judge).map_err(|e| e.context(format!("question {}", i + 1)))?;
                let line = Line { question: i, prompt: self.prompts[i].text.clone(), answers };
                let mut text = serde_json::to_vec(&line)
                    .map_err(|e| Failure::usage(format!("question {}: {e}", i + 1)))?;
                text.push(b'\n');
                file.write_all(&text).and_then(|()| file.sync_data()).map_err(write)?;
                run.record(record)?;
                all.push(line.answers);
            }
            Ok(all)
        })
    }

    fn question<J: Judge>(&self, i: usize, judge: &mut J) -> Result<Asked<J::Verdict>, Failure> {
        let drawn = self.draw(i)?;
        let texts: Vec<&str> = drawn.iter().map(|c| c.text.as_str()).collect();
        let verdicts = judge.judge(i, &texts)?;
        let ids = || drawn.iter().map(|c| c.ids.clone()).collect::<Vec<_>>();
        let own = if self.own { Some(mean_logprobs(self.lm, &self.prompts[i].ids, &ids())?) } else { None };
        let scorer = self.scorer.map(|s| s.scores(i, &drawn)).transpose()?;
        let mut record = Record::default();
        judge.note(&verdicts.iter().collect::<Vec<_>>(), &mut record);
        record.put("new_tokens", drawn.iter().map(|c| c.ids.len()).sum::<usize>() as f64);
        let answers = drawn.into_iter().zip(verdicts).enumerate().map(|(j, (c, verdict))| Answer {
            looped: tail_loop_of_text(&c.text, &LoopLimits::CHARS).is_some(),
            tokens: c.ids.len(),
            stop: c.stop,
            text: c.text,
            logprob: own.as_ref().map(|s| s[j]),
            scorer: scorer.as_ref().map(|s| s[j]),
            verdict,
        });
        Ok((answers.collect(), record))
    }

    /// Answers to a question. Its draws depend on the seed and its place alone, so that more questions, or more answers,
    /// never change the first ones.
    fn draw(&self, i: usize) -> Result<Vec<Completion>, Failure> {
        let (lm, ids) = (self.lm, &self.prompts[i].ids);
        let mut config = self.draws.sampler.clone();
        config.seed = Rng::named(config.seed, &format!("question/{i}")).next_u64();
        let capacity = ids.len().saturating_add(self.draws.max_new).min(lm.decoder.config().positions);
        let mut session = Session::new(&lm.decoder, &lm.params, &[], capacity);
        let first = session.push(ids).map_err(from_eval)?;
        let mut samplers = samplers(&config, self.draws.n as u32, ids)?;
        let limits = Limits { eos: &lm.eos, stop: self.stop, max_new: self.draws.max_new };
        Ok(complete_all(&lm.tokenizer, &mut session, &first, &mut samplers, limits)?)
    }
}

/// The answers to the first `done` questions; what stands behind them in the file is cut off.
fn earlier<V: DeserializeOwned>(path: &Path, done: usize) -> Result<Vec<Vec<Answer<V>>>, Failure> {
    if done == 0 && !path.exists() {
        return Ok(Vec::new());
    }
    let cut = |e: std::io::Error| Failure::usage(format!("cannot go on with {}: {e}", path.display()));
    let bytes = std::fs::read(path).map_err(cut)?;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').take(done).collect();
    let whole = lines.iter().map(|l| l.len() as u64).sum();
    File::options().write(true).open(path).and_then(|f| f.set_len(whole)).map_err(cut)?;
    let read = |(i, l): (usize, &&[u8])| {
        serde_json::from_slice(l).map(|l: Line<V>| l.answers).map_err(|e| {
            Failure::usage(format!("{}, line {}: {e}; begin anew in another --out", path.display(), i + 1))
        })
    };
    lines.iter().enumerate().map(read).collect()
}
