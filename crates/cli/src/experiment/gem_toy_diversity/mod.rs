//! A small network that knows several right answers is fine-tuned on data that prefer one: what every loss keeps.

mod student;
mod world;

use rhumb_lm::gem::control_temperature;
use rhumb_nn::loss::LossKind;
use rhumb_optim::ScheduleKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::student::{Judge, NAMES, Student, Training, fresh, network};
use self::world::{Sizes, World};
use super::{Experiment, Metrics};
use crate::cmd::train::loss::Loss;
use crate::exit::{Code, Failure};
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Name of cross-entropy at temperature 1 / beta among the arms.
const CONTROL: &str = "control";
/// Name of GEM at temperature beta among the arms.
const COOLED: &str = "gem-linear/cooled";
/// Name of cross-entropy with weight decay among the arms.
const DECAY: &str = "ce+decay";

/// Settings of `gem-toy-diversity`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ToySettings {
    /// Questions that are learnt first, with every right answer as likely.
    pub(crate) before: usize,
    /// Passes over them.
    pub(crate) before_epochs: u64,
    /// Questions to fine-tune on, with one right answer preferred.
    pub(crate) fine_tune: usize,
    /// Passes over them.
    pub(crate) epochs: u64,
    /// Questions that judge.
    pub(crate) test: usize,
    /// Learning rate of the fine-tuning.
    pub(crate) lr: f64,
    /// One arm for each, with the usual number of every loss but beta.
    pub(crate) losses: Vec<Loss>,
    /// The temperature inside GEM.
    pub(crate) beta: f64,
    /// Weight decay of one more arm, cross-entropy with it; 0 leaves that arm out.
    pub(crate) decay: f64,
}

impl Default for ToySettings {
    fn default() -> Self {
        ToySettings {
            before: 20_000,
            before_epochs: 15,
            fine_tune: 1000,
            epochs: 20,
            test: 1000,
            lr: 2e-3,
            losses: <Loss as clap::ValueEnum>::value_variants().to_vec(),
            beta: 0.7,
            decay: 0.1,
        }
    }
}

impl ToySettings {
    fn check(&self) -> Result<(), String> {
        let sizes = [self.before, self.fine_tune, self.test];
        if sizes.contains(&0) || self.before_epochs == 0 || self.epochs == 0 {
            return Err("algorithm: before, fine_tune, test and the epochs have to be above 0".to_owned());
        }
        if !self.losses.contains(&Loss::CE) || !self.losses.contains(&Loss::GEM_LINEAR) {
            return Err("algorithm.losses: ce and gem-linear have to be among them".to_owned());
        }
        if self.losses.iter().enumerate().any(|(i, l)| self.losses[..i].contains(l)) {
            return Err("algorithm.losses: name none twice".to_owned());
        }
        if !(self.decay >= 0.0 && self.decay.is_finite()) {
            return Err(format!("algorithm.decay: {} is no weight decay; give 0 or more", self.decay));
        }
        Ok(())
    }

    fn arms(&self) -> Result<Vec<(&'static str, LossKind, f64)>, Failure> {
        let mut arms = Vec::new();
        for loss in &self.losses {
            let kind = LossKind::parse(loss.name(), loss.is_gem().then_some(self.beta));
            arms.push((loss.name(), kind.map_err(|e| Failure::new(Code::Usage, e))?, 0.0));
        }
        if self.decay > 0.0 {
            arms.push((DECAY, LossKind::Ce, self.decay));
        }
        Ok(arms)
    }
}

impl Experiment for ToySettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        self.check().map_err(Failure::usage)?;
        let arms = self.arms()?;
        let sizes = Sizes { before: self.before, fine_tune: self.fine_tune, test: self.test };
        let world = World::new(ctx.seed, sizes);
        let sample = world.before.first(4000);
        let judge = Judge { train: &world.fine_tune, test: &world.test, before: &sample };
        let measure =
            |params: &[f64], t: f64| judge.measure(params, t).map_err(|e| Failure::new(Code::Numerical, e));
        let model = network(LossKind::Ce).map_err(|e| Failure::new(Code::Usage, e))?;
        let first = Training {
            loss: LossKind::Ce,
            decay: 0.0,
            lr: 3e-3,
            schedule: ScheduleKind::Linear,
            batch: 200,
            epochs: self.before_epochs,
        };
        let seed = ctx.seed;
        let mut train = |name: &str, training: Training, data, start: Vec<f64>| {
            let mut student = Student::new(training, data, start, seed)?;
            let budget = ctx.budget;
            ctx.budget.steps = Some(training.steps(data));
            let outcome = ctx.drive(name, &mut student);
            ctx.budget = budget;
            outcome.map(|_| student.params())
        };
        let base = train("before", first, &world.before, fresh(&model, seed))?;
        let mut rows = vec![("before", measure(&base, 1.0)?)];
        let mut at_other = Vec::new();
        for (name, loss, decay) in arms {
            let training = Training {
                loss,
                decay,
                lr: self.lr,
                schedule: ScheduleKind::Cosine,
                batch: 50,
                epochs: self.epochs,
            };
            let params = train(name, training, &world.fine_tune, base.clone())?;
            rows.push((name, measure(&params, 1.0)?));
            if name == Loss::CE.name() {
                at_other.push((CONTROL, measure(&params, control_temperature(self.beta))?));
            } else if name == Loss::GEM_LINEAR.name() {
                at_other.push((COOLED, measure(&params, self.beta)?));
            }
        }
        rows.extend(at_other);
        Ok(self.report(&rows, ctx))
    }
}

impl ToySettings {
    fn report(&self, rows: &[(&'static str, Vec<f64>)], ctx: &mut Context<'_>) -> Metrics {
        let mut metrics = Metrics::default();
        let mut table = Table::new(std::iter::once("arm").chain(NAMES));
        for (arm, values) in rows {
            for (name, value) in NAMES.iter().zip(values) {
                metrics.put(format!("{arm}/{name}"), *value);
            }
            table.row(std::iter::once((*arm).to_owned()).chain(values.iter().map(|v| number(*v))));
        }
        for name in ["test_ce", "greedy"] {
            let of = |arm: &str| metrics.get(&format!("{arm}/{name}"));
            if let (Some(gem), Some(ce)) = (of(Loss::GEM_LINEAR.name()), of(Loss::CE.name())) {
                metrics.put(format!("distance/{name}"), (gem - ce).abs());
            }
        }
        ctx.show(Section::Table("On other questions".to_owned(), table));
        ctx.show(Section::Text(format!(
            "control: the cross-entropy arm at temperature {}; {COOLED}: the GEM arm at temperature {}. before_ce is \
             the cross-entropy on what was learnt first: what is forgotten shows there.",
            number(1.0 / self.beta),
            self.beta
        )));
        metrics
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::Value;

    /// Other random numbers, other code: `reference/gem_toy_diversity.py`.
    #[test]
    fn the_recorded_study_has_the_differences_of_an_independent_program() {
        let theirs: Value =
            serde_json::from_str(include_str!("../../../../../fixtures/gem/toy-diversity.json")).unwrap();
        let ours: Value =
            serde_json::from_str(include_str!("../../../../../results/gem/toy-diversity.json")).unwrap();
        let seeds = ours["result"]["seeds"].as_array().unwrap();
        assert_eq!(seeds.len(), 3);
        let mean = |arm: &str, name: &str| {
            let of = |s: &Value| s["metrics"][format!("{arm}/{name}")].as_f64().unwrap();
            seeds.iter().map(of).sum::<f64>() / seeds.len() as f64
        };
        let tolerances = [
            ("entropy", 0.05),
            ("test_ce", 0.01),
            ("before_ce", 0.05),
            ("pass@1", 0.005),
            ("pass@4", 0.005),
            ("pass@16", 0.005),
            ("pass@64", 0.01),
        ];
        for (name, tolerance) in tolerances {
            let got = mean("gem-linear", name) - mean("ce", name);
            let at = |arm: &str| theirs["means"][arm][name].as_f64().unwrap();
            let want = at("gem-linear") - at("ce");
            assert!((got - want).abs() < tolerance, "{name}: {got} against {want}");
        }
    }
}
