//! What SGD loses to Adam, each at the best learning rate of a grid.

use rhumb_optim::{Kind, UnitRule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::{Net, NetKind};
use super::{Training, held_out, named, train};
use crate::exit::Failure;
use crate::experiment::{Experiment, Metrics};
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `hessian-gap`.
///
/// Rates are chosen on the first half of the held-out batches, with every seed, and judged on the second half.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GapSettings {
    /// The nets.
    pub(crate) nets: Vec<NetKind>,
    /// Perceptrons of five layers whose weights are multiplied by powers of each number, the function staying the same.
    pub(crate) dials: Vec<f64>,
    /// Learning rates of Adam.
    pub(crate) adam: Vec<f64>,
    /// Learning rates of SGD with momentum 0.9.
    pub(crate) sgd: Vec<f64>,
    /// Steps of each training.
    pub(crate) steps: u64,
    /// Images of a batch; text has an eighth as many rows of 64 characters.
    pub(crate) rows: usize,
    /// Held-out batches.
    pub(crate) held_out: usize,
}

impl Default for GapSettings {
    fn default() -> Self {
        GapSettings {
            nets: Vec::new(),
            dials: Vec::new(),
            adam: vec![3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
            sgd: vec![1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0],
            steps: 300,
            rows: 64,
            held_out: 8,
        }
    }
}

/// An optimizer and the rates that it is tried with.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a> {
    pub(super) kind: Kind,
    pub(super) lrs: &'a [f64],
    pub(super) steps: u64,
    /// Blocks of Adam-mini in place of its preset's.
    pub(super) units: &'a [UnitRule],
}

/// One optimizer at its best rate.
#[derive(Clone, Copy)]
pub(super) struct Best {
    pub(super) lr: f64,
    /// On the batches that judge.
    pub(super) loss: f64,
    /// The rate is the smallest or the largest that was tried.
    pub(super) edge: bool,
}

/// A training of a net from its start, at each rate; the folder of each is `name`.
pub(super) fn best(
    ctx: &mut Context<'_>,
    name: &str,
    make: &dyn Fn() -> Result<Net, Failure>,
    start: Option<&[f32]>,
    grid: Grid<'_>,
    batches: usize,
) -> Result<Best, Failure> {
    let half = (batches / 2).max(1);
    let Grid { kind, lrs, steps, units } = grid;
    let mut found: Vec<(f64, f64, f64)> = Vec::with_capacity(lrs.len());
    for &lr in lrs {
        let losses: [Option<f64>; 2] = ctx.once(&format!("{name}-{lr}"), |_| {
            let mut net = make()?;
            let from = start.map_or_else(|| net.start.clone(), <[f32]>::to_vec);
            let Some(at) = train(&mut net, &from, Training { kind, lr, steps, units })? else {
                return Ok([None, None]);
            };
            let choose = held_out(&mut net, &at, 0..half);
            let judge = held_out(&mut net, &at, half..2 * half);
            Ok([Some(choose).filter(|x| x.is_finite()), Some(judge).filter(|x| x.is_finite())])
        })?;
        if let [Some(choose), Some(judge)] = losses {
            found.push((lr, choose, judge));
        }
    }
    let best = found.iter().min_by(|a, b| a.1.total_cmp(&b.1)).copied();
    let (lr, _, loss) = best.unwrap_or((f64::NAN, f64::NAN, f64::NAN));
    let edge = lrs.first() == Some(&lr) || lrs.last() == Some(&lr);
    Ok(Best { lr, loss, edge })
}

impl Experiment for GapSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        if self.nets.is_empty() && self.dials.is_empty() {
            return Err(Failure::usage("algorithm: name nets or dials"));
        }
        let (seed, mut metrics) = (ctx.seed, Metrics::default());
        let mut table = Table::new(["net", "Adam", "at", "SGD", "at", "SGD - Adam"]);
        for (name, make) in &named(&self.nets, &self.dials, self.rows, seed) {
            let adam = Grid { kind: Kind::AdamW, lrs: &self.adam, steps: self.steps, units: &[] };
            let adam = best(ctx, &format!("{name}/adam"), make, None, adam, self.held_out)?;
            let sgd = Grid { kind: Kind::Sgd, lrs: &self.sgd, steps: self.steps, units: &[] };
            let sgd = best(ctx, &format!("{name}/sgd"), make, None, sgd, self.held_out)?;
            for (what, value) in [
                ("adam", adam.loss),
                ("sgd", sgd.loss),
                ("gap", sgd.loss - adam.loss),
                ("adam-lr", adam.lr),
                ("sgd-lr", sgd.lr),
            ] {
                metrics.put(format!("{name}/{what}"), value);
            }
            let at = |b: &Best| format!("{}{}", number(b.lr), if b.edge { " (edge)" } else { "" });
            table.row([
                name.clone(),
                number(adam.loss),
                at(&adam),
                number(sgd.loss),
                at(&sgd),
                number(sgd.loss - adam.loss),
            ]);
        }
        ctx.show(Section::Table("Held-out loss, nats; each at its best rate".to_owned(), table));
        Ok(metrics)
    }
}
