//! Gradient descent beside Adam on quadratics with the same eigenvalues in two arrangements.

mod instance;
mod settings;
#[cfg(test)]
mod tests;

use rhumb_core::stats::quantile;
use rhumb_core::{
    Algorithm, CheckpointError, EvalError, MemoryReport, StateReader, StateWriter, Status, Step,
};
use rhumb_linalg::rng::Rng;
use rhumb_optim::{Kind, OptimizerConfig};

use self::instance::{Goal, Instance, fewest};
pub(crate) use self::settings::CasesSettings;
use self::settings::extremes;
use super::{Experiment, Metrics};
use crate::exit::Failure;
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Quadratics where the recipe names no number.
const TRIALS: u64 = 100;
/// What is measured of one.
const QUANTITIES: [&str; 6] = ["kappa", "gd", "gd_best", "adam", "sgd_run", "adam_run"];

/// All quadratics of a case, one a step.
struct Trials<'a> {
    settings: &'a CasesSettings,
    blocks: Vec<Vec<f64>>,
    seed: u64,
    /// [`QUANTITIES`] of every quadratic; zero stands for what was not run.
    found: Vec<f64>,
}

impl Trials<'_> {
    fn measure(&self, k: u64) -> Result<[f64; QUANTITIES.len()], EvalError> {
        let s = self.settings;
        // Named without the case, so that all cases have the same starts.
        let instance = Instance::draw(&self.blocks, &mut Rng::named(self.seed, &format!("quadratic/{k}")));
        let goal = Goal { gap: s.gap, limit: s.limit };
        let (mu, l) = extremes(&self.blocks);
        let gd = instance.gradient_descent(2.0 / (l + mu), goal);
        let gd_best =
            fewest(&s.multiples, s.limit, |m, _| instance.gradient_descent(m * 2.0 / (l + mu), goal));
        let d = instance.first_sizes();
        let (low, high) = instance.extremes(&d).map_err(|e| EvalError::Unsupported(e.to_string()))?;
        let adam = fewest(&s.multiples, s.limit, |m, limit| {
            instance.descent(&d, m * 2.0 / (low + high), Goal { gap: s.gap, limit })
        });
        let [sgd_run, adam_run] = if k < s.run.trials { self.as_run(&instance, l)? } else { [0, 0] };
        Ok([high / low, gd as f64, gd_best as f64, adam as f64, sgd_run as f64, adam_run as f64])
    }

    /// Steps of SGD with momentum and of Adam.
    fn as_run(&self, instance: &Instance, l: f64) -> Result<[u64; 2], EvalError> {
        let run = &self.settings.run;
        let plain = OptimizerConfig { weight_decay: 0.0, ..OptimizerConfig::default() };
        let sgd = run.sgd.iter().map(|part| OptimizerConfig {
            kind: Kind::Sgd,
            lr: part * 2.0 * (1.0 + run.beta1) / l,
            momentum: run.beta1,
            ..plain.clone()
        });
        let adam = run.lrs.iter().map(|lr| OptimizerConfig {
            kind: Kind::AdamW,
            lr: *lr,
            beta1: run.beta1,
            beta2: run.beta2,
            ..plain.clone()
        });
        let goal = Goal { gap: self.settings.gap, limit: run.limit };
        let steps = |all: Vec<OptimizerConfig>| {
            instance.scheduled(&all, goal).map_err(|e| EvalError::Unsupported(e.to_string()))
        };
        Ok([steps(sgd.collect())?, steps(adam.collect())?])
    }

    /// One quantity of all quadratics that have it.
    fn of(&self, name: &str) -> Vec<f64> {
        let at = QUANTITIES.iter().position(|q| *q == name).unwrap_or(0);
        self.found.chunks_exact(QUANTITIES.len()).map(|row| row[at]).filter(|v| *v > 0.0).collect()
    }
}

impl Algorithm for Trials<'_> {
    fn name(&self) -> &'static str {
        "hessian-quadratic"
    }

    fn step(&mut self, s: &mut Step<'_>) -> Result<Status, EvalError> {
        let row = self.measure(s.k)?;
        for (name, value) in QUANTITIES.iter().zip(row).filter(|(_, v)| *v > 0.0) {
            s.record.put(*name, value);
        }
        let at = s.k as usize * QUANTITIES.len();
        self.found[at..at + QUANTITIES.len()].copy_from_slice(&row);
        Ok(Status::Continue)
    }

    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
        out.put_reals("found", &self.found)
    }

    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError> {
        src.reals("found", &mut self.found)
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport { scratch: size_of_val(&self.found[..]) as u64, ..MemoryReport::default() }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

impl Experiment for CasesSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.check().map_err(Failure::usage)?;
        let trials = ctx.budget.steps.unwrap_or(TRIALS);
        ctx.budget.steps = Some(trials);
        let mut metrics = Metrics::default();
        let mut table = Table::new([
            "case",
            "kappa",
            "under Adam",
            "at most 1000",
            "GD, 2 / (L + mu)",
            "GD, best",
            "Adam, theory",
            "SGD, run",
            "Adam, run",
            "GD / theory",
            "GD / run",
            "SGD / run",
        ]);
        for case in &self.cases {
            let mut rng = Rng::named(ctx.seed, &format!("spectra/{}", case.name));
            let blocks = case.eigenvalues(self.rows, self.kappa, &mut rng);
            let (mu, l) = extremes(&blocks);
            let found = vec![0.0; trials as usize * QUANTITIES.len()];
            let mut all = Trials { settings: self, blocks, seed: ctx.seed, found };
            ctx.drive(&case.name, &mut all)?;
            let over =
                |a: &str, b: &str| median(all.of(a).iter().zip(all.of(b)).map(|(a, b)| a / b).collect());
            let mild = all.of("kappa").iter().filter(|k| **k <= 1000.0).count() as f64 / trials as f64;
            let values = [
                ("plain", l / mu),
                ("kappa", median(all.of("kappa"))),
                ("kappa_to_1000", mild),
                ("gd", median(all.of("gd"))),
                ("gd_best", median(all.of("gd_best"))),
                ("adam", median(all.of("adam"))),
                ("sgd_run", median(all.of("sgd_run"))),
                ("adam_run", median(all.of("adam_run"))),
                ("ratio", over("gd_best", "adam")),
                ("run_ratio", over("gd_best", "adam_run")),
                ("run_sgd_ratio", over("sgd_run", "adam_run")),
            ];
            for (name, value) in values {
                metrics.put(format!("{}/{name}", case.name), value);
            }
            let cut = |name: &str, limit: u64| all.of(name).iter().filter(|s| **s >= limit as f64).count();
            metrics.put(format!("{}/adam_cut", case.name), cut("adam", self.limit) as f64);
            metrics.put(format!("{}/adam_run_cut", case.name), cut("adam_run", self.run.limit) as f64);
            table.row(std::iter::once(case.name.clone()).chain(values.iter().map(|(_, v)| number(*v))));
        }
        let caption = format!(
            "Medians over {trials} quadratics (as run: {}): condition numbers and steps until {:e} of the loss is left",
            self.run.trials.min(trials),
            self.gap
        );
        ctx.show(Section::Table(caption, table));
        Ok(metrics)
    }
}
