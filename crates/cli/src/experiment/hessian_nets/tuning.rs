//! A decoder before and after pre-training: its spectra, and what SGD loses from either start.

use rhumb_core::Objective;
use rhumb_krylov::Orthogonality;
use rhumb_krylov::slq::SlqOptions;
use rhumb_optim::Kind;
use rhumb_spectrum::{BlockSpectrum, Heterogeneity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gap::{Grid, best};
use super::net::Net;
use super::{Training, numerical, rows_for, spectra, train};
use crate::exit::Failure;
use crate::experiment::{Experiment, Metrics};
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `hessian-tuning`: a decoder learns one generated language and is then trained on another, or is trained on
/// that from the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TuningSettings {
    /// Steps of the pre-training, by Adam.
    pub(crate) pretrain: u64,
    /// Its learning rate.
    pub(crate) lr: f64,
    /// Learning rates of Adam.
    pub(crate) adam: Vec<f64>,
    /// Learning rates of SGD with momentum 0.9.
    pub(crate) sgd: Vec<f64>,
    /// Steps of each training.
    pub(crate) steps: u64,
    /// Rows of 64 characters in a batch, times eight.
    pub(crate) rows: usize,
    /// Held-out batches.
    pub(crate) held_out: usize,
    /// Lanczos steps.
    pub(crate) lanczos: usize,
    /// Start vectors.
    pub(crate) probes: usize,
}

impl Default for TuningSettings {
    fn default() -> Self {
        TuningSettings {
            pretrain: 1000,
            lr: 3e-3,
            adam: vec![3e-4, 1e-3, 3e-3, 1e-2],
            sgd: vec![1e-2, 3e-2, 0.1, 0.3, 1.0],
            steps: 200,
            rows: 64,
            held_out: 8,
            lanczos: 60,
            probes: 2,
        }
    }
}

impl Experiment for TuningSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        let (seed, rows) = (ctx.seed, rows_for(true, self.rows));
        let mut metrics = Metrics::default();
        let learnt: Vec<f32> = ctx.once("pretrain", |_| {
            let mut net = Net::of_language(rows, seed, 0)?;
            let start = net.start.clone();
            let t = Training { kind: Kind::AdamW, lr: self.lr, steps: self.pretrain, units: &[] };
            train(&mut net, &start, t)?.ok_or_else(|| numerical(anyhow::anyhow!("the pre-training diverged")))
        })?;
        let make = || Net::of_language(rows, seed, 1);
        // Languages have the same letters; another alphabet would be another embedding.
        if make()?.layout().len() != learnt.len() {
            return Err(Failure::usage("the two languages have different alphabets: choose another seed"));
        }
        let options =
            SlqOptions { steps: self.lanczos, starts: self.probes, seed, orthogonality: Orthogonality::Full };
        let mut table =
            Table::new(["start", "JS", "JS, shape", "JS, with scale", "decades", "Adam", "SGD", "gap"]);
        for (name, from) in [("fresh", None), ("pretrained", Some(&learnt[..]))] {
            let found: Vec<BlockSpectrum> = ctx.once(&format!("{name}/spectra"), |_| {
                let mut net = make()?;
                let at = from.map_or_else(|| net.start.clone(), <[f32]>::to_vec);
                spectra(&mut net, &at, (64, false), options).map_err(numerical)
            })?;
            let h = Heterogeneity::of(&found).map_err(numerical)?;
            let adam = Grid { kind: Kind::AdamW, lrs: &self.adam, steps: self.steps, units: &[] };
            let adam = best(ctx, &format!("{name}/adam"), &make, from, adam, self.held_out)?;
            let sgd = Grid { kind: Kind::Sgd, lrs: &self.sgd, steps: self.steps, units: &[] };
            let sgd = best(ctx, &format!("{name}/sgd"), &make, from, sgd, self.held_out)?;
            for (what, value) in [
                ("js", h.raw.unwrap_or(f64::NAN)),
                ("scaled", h.scaled.unwrap_or(f64::NAN)),
                ("shape", h.shape),
                ("scale", h.scale),
                ("decades", h.decades),
                ("adam", adam.loss),
                ("sgd", sgd.loss),
                ("gap", sgd.loss - adam.loss),
                ("adam-lr", adam.lr),
                ("sgd-lr", sgd.lr),
            ] {
                metrics.put(format!("{name}/{what}"), value);
            }
            table.row([
                name.to_owned(),
                number(h.raw.unwrap_or(f64::NAN)),
                number(h.shape),
                number(h.scale),
                number(h.decades),
                number(adam.loss),
                number(sgd.loss),
                number(sgd.loss - adam.loss),
            ]);
        }
        ctx.show(Section::Table("Training on the second language".to_owned(), table));
        Ok(metrics)
    }
}
