//! How much of a decoder's curvature lies inside the blocks of heads and of rows.

use rhumb_core::{Curvature, Objective, Role};
use rhumb_optim::Kind;
use rhumb_spectrum::{CurvatureOf, Cut, Diagonality, Reduction, Sample, block_diagonality, blocks};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::{Net, NetKind, matrices};
use super::{Training, numerical, rows_for, train};
use crate::exit::Failure;
use crate::experiment::{Experiment, Metrics};
use crate::report::Section;
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `hessian-structure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StructureSettings {
    /// Steps of training by Adam, at 3e-3, before the curvature is looked at; zero looks at the start.
    pub(crate) train: u64,
    /// Rows of 64 characters in a batch, times eight.
    pub(crate) rows: usize,
    /// Products for each matrix and partition.
    pub(crate) products: usize,
}

impl Default for StructureSettings {
    fn default() -> Self {
        StructureSettings { train: 300, rows: 64, products: 64 }
    }
}

/// Of one matrix.
#[derive(Serialize, Deserialize)]
struct Found {
    name: String,
    heads: Option<Diagonality>,
    rows: Diagonality,
}

impl Experiment for StructureSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        let seed = ctx.seed;
        let found: Vec<Found> = ctx.once("decoder", |_| {
            let mut net = Net::new(NetKind::Decoder, rows_for(true, self.rows), seed)?;
            let mut at = net.start.clone();
            if self.train > 0 {
                let t = Training { kind: Kind::AdamW, lr: 3e-3, steps: self.train, units: &[] };
                at = train(&mut net, &at, t)?
                    .ok_or_else(|| numerical(anyhow::anyhow!("the training diverged")))?;
            }
            let layout = net.layout().clone();
            let samples = [Sample { batch: 0, rows: net.rows(0) }];
            let mut of = CurvatureOf::new(&mut net, &at, &samples, Curvature::Hessian, Reduction::Mean)
                .map_err(numerical)?;
            let mut out = Vec::new();
            for name in matrices(&layout, 1) {
                let one = std::slice::from_ref(&name);
                let cut = |c| blocks(&layout, c, one).map_err(numerical);
                let outer = cut(Cut::Tensor)?.remove(0);
                let mut share = |parts: &[_]| {
                    let each = self.products.div_ceil(parts.len());
                    block_diagonality(&mut of, &outer, parts, (each, self.products), seed).map_err(numerical)
                };
                let (heads, rows) = (cut(Cut::Head)?, cut(Cut::Row)?);
                let heads = if heads.len() > 1 { Some(share(&heads)?) } else { None };
                out.push(Found { name, heads, rows: share(&rows)? });
            }
            Ok(out)
        })?;
        let net = Net::new(NetKind::Decoder, 1, seed)?;
        let role = |name: &str| net.layout().find(name).map_or(Role::Other, |b| b.role);
        let mut metrics = Metrics::default();
        for (group, of) in [
            ("qk", &(|r| matches!(r, Role::Query { .. } | Role::Key { .. })) as &dyn Fn(Role) -> bool),
            ("v", &|r| matches!(r, Role::Value { .. })),
            ("o", &|r| r == Role::AttnOut),
            ("mlp", &|r| r == Role::Mlp),
            ("embed", &|r| matches!(r, Role::Embed | Role::Head)),
        ] {
            let own: Vec<&Found> = found.iter().filter(|f| of(role(&f.name))).collect();
            let mean = |f: &dyn Fn(&Found) -> Option<f64>| {
                let all: Vec<f64> = own.iter().filter_map(|x| f(x)).collect();
                all.iter().sum::<f64>() / all.len() as f64
            };
            for (what, value) in [
                ("rows", mean(&|f| Some(f.rows.share))),
                ("rows-even", mean(&|f| Some(f.rows.unstructured))),
                ("heads", mean(&|f| f.heads.as_ref().map(|h| h.share))),
                ("heads-even", mean(&|f| f.heads.as_ref().map(|h| h.unstructured))),
            ] {
                // Most matrices have no heads.
                if value.is_finite() {
                    metrics.put(format!("{group}/{what}"), value);
                }
            }
        }
        let mut table = Table::new(["matrix", "inside heads", "if even", "inside rows", "if even"]);
        let share = |d: &Diagonality| format!("{} ± {}", number(d.share), number(d.error));
        for f in &found {
            let heads = f.heads.as_ref();
            table.row([
                f.name.clone(),
                heads.map(share).unwrap_or_default(),
                heads.map(|d| number(d.unstructured)).unwrap_or_default(),
                share(&f.rows),
                number(f.rows.unstructured),
            ]);
        }
        ctx.show(Section::Table(
            "Share of the squared Frobenius norm of the Hessian inside blocks".to_owned(),
            table,
        ));
        Ok(metrics)
    }
}
