//! Adam-mini with blocks by measured curvature beside blocks by rule, and its rivals.

use rhumb_core::{Curvature, Objective};
use rhumb_optim::{Kind, OptimizerConfig, Unit, UnitRule};
use rhumb_spectrum::{CurvatureOf, Reduction, Sample, sharing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gap::{Grid, best};
use super::net::{Net, NetKind};
use super::{Training, numerical, rows_for, train};
use crate::cmd::spectrum::sampled;
use crate::cmd::train::measured::{Decision, PROBES, decide};
use crate::exit::Failure;
use crate::experiment::{Experiment, Metrics};
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `hessian-partition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PartitionSettings {
    /// The nets.
    pub(crate) nets: Vec<NetKind>,
    /// Steps of Adam, at 3e-3, before each measurement; the trainings begin at the start all the same.
    pub(crate) after: Vec<u64>,
    /// Learning rates, the same for all optimizers.
    pub(crate) rates: Vec<f64>,
    /// Steps of each training.
    pub(crate) steps: u64,
    /// Images of a batch; text has an eighth as many rows of 64 characters.
    pub(crate) rows: usize,
    /// Held-out batches.
    pub(crate) held_out: usize,
}

impl Default for PartitionSettings {
    fn default() -> Self {
        PartitionSettings {
            nets: vec![NetKind::Decoder, NetKind::Vit],
            after: vec![0, 100],
            rates: vec![1e-3, 3e-3, 1e-2, 3e-2],
            steps: 300,
            rows: 64,
            held_out: 8,
        }
    }
}

/// An optimizer with its blocks.
struct Arm {
    name: String,
    kind: Kind,
    units: Vec<UnitRule>,
}

impl PartitionSettings {
    fn arms(&self, measured: &[Vec<Decision>]) -> Vec<Arm> {
        let arm = |name: &str, kind, units| Arm { name: name.to_owned(), kind, units };
        let whole = vec![UnitRule { names: "*".to_owned(), unit: Unit::Tensor }];
        let mut arms = vec![
            arm("adam", Kind::AdamW, Vec::new()),
            arm("slim-adam", Kind::SlimAdam, Vec::new()),
            arm("rule", Kind::AdamMini, Vec::new()),
            arm("tensors", Kind::AdamMini, whole),
        ];
        for (after, decided) in self.after.iter().zip(measured) {
            let units = decided.iter().map(|d| d.rule.clone()).collect();
            arms.push(arm(&format!("measured-{after}"), Kind::AdamMini, units));
        }
        arms
    }

    fn measure(
        &self,
        make: &dyn Fn() -> Result<Net, Failure>,
        seed: u64,
    ) -> Result<Vec<Vec<Decision>>, Failure> {
        let mut all = Vec::with_capacity(self.after.len());
        for &steps in &self.after {
            let mut net = make()?;
            let mut at = net.start.clone();
            if steps > 0 {
                let t = Training { kind: Kind::AdamW, lr: 3e-3, steps, units: &[] };
                at = train(&mut net, &at, t)?
                    .ok_or_else(|| numerical(anyhow::anyhow!("the training diverged")))?;
            }
            let layout = net.layout().clone();
            let samples = [Sample { batch: 0, rows: net.rows(0) }];
            let mut of = CurvatureOf::new(&mut net, &at, &samples, Curvature::GaussNewton, Reduction::Mean)
                .map_err(numerical)?;
            let found = sharing(&mut of, &layout, &sampled(&layout), (PROBES, seed), &mut |_| true)
                .map_err(numerical)?;
            all.push(decide(&layout, found));
        }
        Ok(all)
    }
}

impl Experiment for PartitionSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        let (seed, mut metrics) = (ctx.seed, Metrics::default());
        let mut table =
            Table::new(["net", "optimizer", "second moments", "held-out loss", "at", "behind Adam"]);
        let mut cuts =
            Table::new(["net", "measured after", "tensors", "variation", "inside heads", "blocks"]);
        for kind in &self.nets {
            let net = kind.name();
            let rows = rows_for(matches!(kind, NetKind::Decoder | NetKind::Bert), self.rows);
            let make = || Net::new(*kind, rows, seed);
            let measured: Vec<Vec<Decision>> =
                ctx.once(&format!("{net}/measured"), |_| self.measure(&make, seed))?;
            for (after, decided) in self.after.iter().zip(&measured) {
                for d in decided {
                    cuts.row([
                        net.to_owned(),
                        after.to_string(),
                        d.rule.names.clone(),
                        number(d.mean.whole.cv2),
                        d.mean.heads.map(|h| number(h.cv2)).unwrap_or_default(),
                        format!("{:?}", d.rule.unit).to_lowercase(),
                    ]);
                }
            }
            let layout = make()?.layout().clone();
            let mut adam = f64::NAN;
            for Arm { name, kind, units } in self.arms(&measured) {
                let config = OptimizerConfig { kind, units: units.clone(), ..OptimizerConfig::default() };
                let bytes = config.state_bytes(&layout, 4).map_err(|e| Failure::usage(e.to_string()))?;
                let moments = bytes / 4 - layout.len();
                let grid = Grid { kind, lrs: &self.rates, steps: self.steps, units: &units };
                let found = best(ctx, &format!("{net}/{name}"), &make, None, grid, self.held_out)?;
                if name == "adam" {
                    adam = found.loss;
                }
                for (what, value) in [
                    ("loss", found.loss),
                    ("lr", found.lr),
                    ("behind", found.loss - adam),
                    ("moments", moments as f64),
                ] {
                    metrics.put(format!("{net}/{name}/{what}"), value);
                }
                let edge = if found.edge { " (edge)" } else { "" };
                table.row([
                    net.to_owned(),
                    name,
                    moments.to_string(),
                    number(found.loss),
                    format!("{}{edge}", number(found.lr)),
                    number(found.loss - adam),
                ]);
            }
        }
        ctx.show(Section::Table("Blocks by measured curvature".to_owned(), cuts));
        ctx.show(Section::Table("Held-out loss, nats; each at its best rate".to_owned(), table));
        Ok(metrics)
    }
}
