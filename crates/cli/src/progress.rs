//! A progress bar that watches a run.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhumb_core::{Manifest, ObserveError, Observer, Outcome, Record};

use crate::machine::OwnMemory;
use crate::output::Global;
use crate::table::{bytes, number};

/// Shows steps, rate, time left, loss and memory on standard error; nothing when quiet or not on a terminal.
pub(crate) struct Progress {
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
        Progress { bar, memory: OwnMemory::new(), memory_text: String::new(), memory_at: None }
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
        Ok(())
    }

    fn record(&mut self, r: &Record) -> Result<(), ObserveError> {
        self.refresh_memory();
        self.bar.set_position(r.step + 1);
        let loss = ["loss", "train/loss", "train_loss"].iter().find_map(|k| r.get(k));
        let loss = loss.map(|l| format!("loss {}", number(l))).unwrap_or_default();
        self.bar.set_message(format!("{loss}{}", self.memory_text));
        Ok(())
    }

    fn finish(&mut self, _: &Outcome) -> Result<(), ObserveError> {
        self.bar.finish_and_clear();
        Ok(())
    }
}
