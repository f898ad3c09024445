//! A progress bar that watches a run.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhumb_core::{Manifest, ObserveError, Observer, Outcome, Record};

use crate::machine::OwnMemory;
use crate::output::{Global, say};
use crate::table::{bytes, number, seconds};

/// Without an evaluation, a line is written after this long.
const SILENCE: Duration = Duration::from_secs(30);

/// Shows steps, rate, time left, loss and memory on standard error: as a bar on a terminal, elsewhere as a line per
/// evaluation; nothing when quiet.
pub(crate) struct Progress {
    log: Option<Log>,
    bar: ProgressBar,
    memory: OwnMemory,
    memory_text: String,
    memory_at: Option<Instant>,
}

impl Progress {
    /// A bar with a name in front; `steps` is the budget, where one is known.
    pub(crate) fn new(label: &str, steps: Option<u64>, global: Global) -> Self {
        let target =
            if global.shows_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(steps, target);
        let template = if steps.is_some() {
            "{prefix} {bar:24} {pos}/{len} {per_sec} eta {eta} {msg}"
        } else {
            "{prefix} {spinner} {pos} {per_sec} {msg}"
        };
        // The template is a constant; a default style is better than no run.
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix(label.to_owned());
        let log = global.logs_progress().then(|| Log::new(label, steps));
        Progress { log, bar, memory: OwnMemory::new(), memory_text: String::new(), memory_at: None }
    }

    fn refresh_memory(&mut self) {
        // Reading it costs a file access, so once a second is enough.
        if self.bar.is_hidden() || self.memory_at.is_some_and(|t| t.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.memory_at = Some(Instant::now());
        self.memory_text = self.memory.resident().map(|b| format!(" mem {}", bytes(b))).unwrap_or_default();
    }
}

impl Observer for Progress {
    fn start(&mut self, _: &Manifest) -> Result<(), ObserveError> {
        self.bar.reset();
        Ok(())
    }

    fn resume(&mut self, _: &Manifest, next_step: u64) -> Result<(), ObserveError> {
        self.bar.set_position(next_step);
        self.bar.reset_eta();
        if let Some(log) = &mut self.log {
            log.first = next_step;
        }
        Ok(())
    }

    fn record(&mut self, r: &Record) -> Result<(), ObserveError> {
        self.refresh_memory();
        self.bar.set_position(r.step + 1);
        let loss = ["loss", "train/loss", "train_loss"].iter().find_map(|k| r.get(k));
        let loss = loss.map(|l| format!("loss {}", number(l))).unwrap_or_default();
        self.bar.set_message(format!("{loss}{}", self.memory_text));
        if let Some(line) = self.log.as_mut().and_then(|log| log.line(r, Instant::now())) {
            say(&line);
        }
        Ok(())
    }

    fn finish(&mut self, _: &Outcome) -> Result<(), ObserveError> {
        self.bar.finish_and_clear();
        Ok(())
    }
}

/// Progress in lines.
struct Log {
    label: String,
    steps: Option<u64>,
    /// Step that this process began with.
    first: u64,
    began: Instant,
    told: Instant,
}

impl Log {
    fn new(label: &str, steps: Option<u64>) -> Self {
        let now = Instant::now();
        Log { label: label.to_owned(), steps, first: 0, began: now, told: now }
    }

    /// The line of a record that brings an evaluation, or that comes after a long silence.
    fn line(&mut self, r: &Record, now: Instant) -> Option<String> {
        let eval = r.get("eval_ce");
        if eval.is_none() && now.duration_since(self.told) < SILENCE {
            return None;
        }
        self.told = now;
        let done = r.step + 1;
        let spent = now.duration_since(self.began).as_secs_f64();
        let rate = done.saturating_sub(self.first) as f64 / spent.max(1e-9);
        let mut line = format!("{} {done}", self.label);
        if let Some(steps) = self.steps {
            line += &format!("/{steps}");
        }
        for (name, key) in [
            ("loss", "loss"),
            ("cross-entropy", "ce"),
            ("held-out cross-entropy", "eval_ce"),
            ("perplexity", "eval_ppl"),
        ] {
            // With plain cross-entropy the first two are one number.
            let twin = key == "ce" && r.get("ce") == r.get("loss");
            if let Some(v) = r.get(key).filter(|_| !twin) {
                line += &format!(", {name} {}", number(v));
            }
        }
        line += &format!(", {rate:.3} steps/s");
        if let Some(steps) = self.steps.filter(|s| *s > done) {
            line += &format!(", eta {}", seconds(steps.saturating_sub(done) as f64 / rate));
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_line_is_written_for_an_evaluation_and_after_a_long_silence() {
        let mut log = Log::new("sft", Some(40));
        log.first = 10;
        let (at, mut r) = (log.began + Duration::from_secs(5), Record::new(19));
        r.put("loss", 1.5);
        r.put("ce", 1.5);
        assert_eq!(log.line(&r, at), None);
        r.put("eval_ce", 2.25);
        let want = "sft 20/40, loss 1.5, held-out cross-entropy 2.25, 2.000 steps/s, eta 10.0 s";
        assert_eq!(log.line(&r, at).unwrap(), want);
        let mut late = Record::new(24);
        late.put("loss", 1.0);
        assert_eq!(log.line(&late, at + Duration::from_secs(29)), None);
        assert!(log.line(&late, at + SILENCE).is_some());
    }
}
