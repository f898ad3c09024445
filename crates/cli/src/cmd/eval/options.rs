//! What the evaluations are told alike.

use std::path::{Path, PathBuf};

use rhumb_io::adapter::AdapterFiles;
use rhumb_nn::sample::SamplerConfig;
use serde::Serialize;

use crate::cmd::generate::{fraction, not_negative, positive};
use crate::exit::{Code, Failure};
use crate::lm::LanguageModel;

/// The model, and the folder of the run.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct Place {
    /// Adapters for the model, a folder that PEFT or `rhumb train sft --lora` wrote.
    #[arg(long, value_name = "DIR")]
    pub(super) adapter: Option<PathBuf>,
    /// A chat template in Jinja instead of the model's own.
    #[arg(long, value_name = "FILE")]
    pub(super) template: Option<PathBuf>,
    /// Folder of the run, new or empty; `runs/eval-MEASURE-TIME` otherwise.
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub(super) out: Option<PathBuf>,
    /// Go on with the run in `--out`, with the same settings, model and data.
    #[arg(long, requires = "out")]
    #[serde(skip)]
    pub(super) resume: bool,
}

impl Place {
    /// Opens the model, with the adapters merged into its weights.
    pub(super) fn open(&self, model: &Path) -> Result<LanguageModel, Failure> {
        let mut lm = LanguageModel::open_with(model, self.template.as_deref())?;
        if let Some(dir) = &self.adapter {
            let adapter = AdapterFiles::load(dir).map_err(crate::lm::from_io)?;
            lm.params = lm.merged(&adapter, dir)?;
        }
        Ok(lm)
    }
}

/// How much of a file is taken. The measures say in their help what it counts.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct Limit {
    /// Only the first K rows.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(super) limit: Option<u32>,
}

impl Limit {
    /// Rows at most.
    pub(super) fn rows(&self) -> usize {
        self.limit.map_or(usize::MAX, |k| k as usize)
    }
}

/// A file and how much of it is taken. The measures say in their help what stands in it.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct Data {
    /// The file.
    #[arg(long, value_name = "FILE")]
    pub(super) data: PathBuf,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) limit: Limit,
}

/// How answers are drawn, under the names of `rhumb generate`.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct Sampling {
    /// Answers to each question; 1 without it, 16 for tasks and diversity.
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    pub(super) n: Option<u32>,
    /// Always the most likely token; the default for one answer where nothing else is said.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    pub(super) greedy: bool,
    /// Divides the logits; 0 is the same as `--greedy`, 1 the default for several answers.
    #[arg(long, value_parser = not_negative, allow_negative_numbers = true)]
    pub(super) temperature: Option<f64>,
    /// Only the K most likely tokens.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(super) top_k: Option<u32>,
    /// Only the most likely tokens that together have this probability.
    #[arg(long, value_name = "P", value_parser = fraction, allow_negative_numbers = true)]
    pub(super) top_p: Option<f64>,
    /// Only tokens with at least this share of the probability of the most likely one.
    #[arg(long, value_name = "P", value_parser = fraction, allow_negative_numbers = true)]
    pub(super) min_p: Option<f64>,
    /// Above 1, tokens of the prompt and the answer become less likely.
    #[arg(long, default_value_t = 1.0, value_name = "F", value_parser = positive, allow_negative_numbers = true)]
    pub(super) repetition_penalty: f64,
    /// The seed of the draws, of generated questions and of the bootstrap.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(super) seed: u64,
    /// A text that ends an answer before it; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(super) stop: Vec<String>,
    /// New tokens of an answer at most; 512 without it, 1024 for ifeval, 64 for tasks.
    #[arg(long, visible_alias = "max-tokens", value_name = "K", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(super) max_new: Option<u32>,
    /// The message that the chat template puts first.
    #[arg(long, value_name = "TEXT", conflicts_with = "plain")]
    pub(super) system: Option<String>,
    /// Questions as plain text, without a chat template.
    #[arg(long, conflicts_with = "template")]
    pub(super) plain: bool,
}

/// Settings of the draws, resolved.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Draws {
    /// Answers to each question.
    pub(super) n: usize,
    /// New tokens at most.
    pub(super) max_new: usize,
    /// How tokens are chosen.
    pub(super) sampler: SamplerConfig,
}

impl Sampling {
    /// The settings with the defaults of a measure, or why they make no sense together.
    pub(super) fn draws(&self, n: u32, max_new: u32) -> Result<Draws, Failure> {
        let n = self.n.unwrap_or(n);
        let cuts = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
        ];
        let cut = cuts.iter().find(|c| c.1).map(|c| c.0);
        let zero = self.temperature.is_some_and(|t| t <= 0.0);
        if let Some(name) = cut.filter(|_| zero) {
            return Err(Failure::usage(format!(
                "{name} says nothing at --temperature 0, which takes the most likely token: leave one of them out"
            )));
        }
        let greedy = self.greedy || zero || (n == 1 && self.temperature.is_none() && cut.is_none());
        if greedy && n > 1 {
            let what = if self.greedy { "--greedy" } else { "--temperature 0" };
            return Err(Failure::usage(format!(
                "-n {n} with {what}: all answers to a question would be the same; give a --temperature above 0, or -n 1"
            )));
        }
        let sampler = SamplerConfig {
            greedy,
            temperature: if greedy { 1.0 } else { self.temperature.unwrap_or(1.0) },
            top_k: self.top_k.map_or(0, |k| k as usize),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        sampler.validate().map_err(|e| Failure::new(Code::Usage, e))?;
        Ok(Draws { n: n as usize, max_new: self.max_new.unwrap_or(max_new) as usize, sampler })
    }
}

impl Draws {
    /// In words, for the first line of a result.
    pub(super) fn told(&self) -> String {
        let s = &self.sampler;
        let mut out = if s.greedy { "greedy".to_owned() } else { format!("temperature {}", s.temperature) };
        if s.top_k > 0 {
            out += &format!(", top-k {}", s.top_k);
        }
        for (name, x, idle) in [
            ("top-p", s.top_p, 1.0),
            ("min-p", s.min_p, 0.0),
            ("repetition penalty", s.repetition_penalty, 1.0),
        ] {
            if f64::to_bits(x) != f64::to_bits(idle) {
                out += &format!(", {name} {x}");
            }
        }
        out + &format!(", {} new tokens at most", self.max_new)
    }
}

/// The k of pass@k.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct Passes {
    /// The k of pass@k, separated by commas; powers of two up to `-n` without it.
    #[arg(short = 'k', value_name = "K,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    k: Vec<u32>,
}

impl Passes {
    /// Every k, ascending; refused before anything is sampled where one is larger than the number of answers.
    pub(super) fn of(&self, n: usize) -> Result<Vec<usize>, Failure> {
        let mut ks: Vec<usize> = self.k.iter().map(|k| *k as usize).collect();
        if ks.is_empty() {
            ks = std::iter::successors(Some(1), |k| Some(2 * k)).take_while(|k| *k <= n).collect();
        }
        ks.sort_unstable();
        ks.dedup();
        match ks.last().filter(|k| **k > n) {
            Some(k) => Err(Failure::usage(format!(
                "-k {k} with -n {n}: pass@{k} has no unbiased estimate from fewer than {k} answers to a question; raise -n, \
                 or lower -k"
            ))),
            None => Ok(ks),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        sampling: Sampling,
        #[command(flatten)]
        passes: Passes,
    }

    fn line(args: &[&str]) -> Line {
        Line::try_parse_from([&["x"], args].concat()).unwrap()
    }

    #[test]
    fn one_answer_is_greedy_unless_something_is_said_and_several_are_drawn_at_one() {
        let greedy = |args: &[&str]| line(args).sampling.draws(1, 9).unwrap().sampler.greedy;
        assert!(greedy(&[]) && greedy(&["--temperature", "0"]) && greedy(&["--greedy", "--seed", "3"]));
        assert!(!greedy(&["--temperature", "0.7"]) && !greedy(&["--top-k", "5"]) && !greedy(&["-n", "2"]));
        let draws = line(&["-n", "4", "--max-tokens", "7"]).sampling.draws(1, 9).unwrap();
        assert_eq!((draws.n, draws.max_new, draws.sampler), (4, 7, SamplerConfig::default()));
        assert!(line(&[]).sampling.draws(16, 9).unwrap().told().starts_with("temperature 1, 9 new"));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (args, words) in [
            (&["-n", "4", "--temperature", "0"][..], "-n 4 with --temperature 0"),
            (&["-n", "2", "--greedy"], "-n 2 with --greedy"),
            (&["--temperature", "0", "--top-p", "0.9"], "--top-p says nothing"),
        ] {
            let e = line(args).sampling.draws(1, 9).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        }
        assert!(Line::try_parse_from(["x", "--greedy", "--top-k", "5"]).is_err());
        assert!(Line::try_parse_from(["x", "--temperature", "-1"]).is_err());
        assert!(Line::try_parse_from(["x", "--resume"]).is_err(), "without --out");
    }

    #[test]
    fn every_k_has_as_many_answers() {
        assert_eq!(line(&[]).passes.of(1).unwrap(), [1]);
        assert_eq!(line(&[]).passes.of(20).unwrap(), [1, 2, 4, 8, 16]);
        assert_eq!(line(&["-k", "4,1,4"]).passes.of(5).unwrap(), [1, 4]);
        let e = line(&["-k", "1,8"]).passes.of(4).unwrap_err().to_string();
        assert!(e.starts_with("-k 8 with -n 4: pass@8"), "{e}");
        assert!(Line::try_parse_from(["x", "-k", "0"]).is_err());
    }
}
