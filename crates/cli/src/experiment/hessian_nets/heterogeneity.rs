//! How much the spectra of blocks differ before training.

use rhumb_core::Objective;
use rhumb_krylov::Orthogonality;
use rhumb_krylov::slq::SlqOptions;
use rhumb_spectrum::{Axis, BlockSpectrum, Heterogeneity, divergences};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::NetKind;
use super::{named, numerical, spectra};
use crate::exit::Failure;
use crate::experiment::{Experiment, Metrics};
use crate::report::{HeatMap, LinePlot, Section, Series};
use crate::session::Context;
use crate::table::{Table, number};

/// Settings of `hessian-heterogeneity`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeterogeneitySettings {
    /// The nets.
    pub(crate) nets: Vec<NetKind>,
    /// Perceptrons of five layers whose weights are multiplied by powers of each number, the function staying the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) dials: Vec<f64>,
    /// Lanczos steps.
    pub(crate) steps: usize,
    /// Start vectors.
    pub(crate) probes: usize,
    /// Images of the batch; text has an eighth as many rows of 64 characters.
    pub(crate) rows: usize,
    /// Smaller matrices are left out.
    pub(crate) least: usize,
}

impl Default for HeterogeneitySettings {
    fn default() -> Self {
        use NetKind::{Bert, Decoder, Mlp, Resnet18, SmallCnn, Vit};
        let nets = vec![SmallCnn, Resnet18, Mlp, Decoder, Bert, Vit];
        HeterogeneitySettings { nets, dials: Vec::new(), steps: 60, probes: 2, rows: 64, least: 64 }
    }
}

#[derive(Serialize, Deserialize)]
struct Found {
    parameters: usize,
    blocks: Vec<BlockSpectrum>,
    full: Vec<BlockSpectrum>,
}

impl Experiment for HeterogeneitySettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        let mut metrics = Metrics::default();
        let header = ["net", "parameters", "blocks", "JS0, raw", "scaled", "shape", "scale", "decades"];
        let mut table = Table::new(header);
        let mut fulls: Vec<BlockSpectrum> = Vec::new();
        let seed = ctx.seed;
        let options =
            SlqOptions { steps: self.steps, starts: self.probes, seed, orthogonality: Orthogonality::Full };
        for (net_name, make) in named(&self.nets, &self.dials, self.rows, seed) {
            let found: Found = ctx.once(&net_name, |_| {
                let mut net = make()?;
                let at = net.start.clone();
                let blocks = spectra(&mut net, &at, (self.least, false), options).map_err(numerical)?;
                let full = spectra(&mut net, &at, (self.least, true), options).map_err(numerical)?;
                Ok(Found { parameters: net.layout().len(), blocks, full })
            })?;
            let h = Heterogeneity::of(&found.blocks).map_err(numerical)?;
            let (raw, scaled) = (h.raw.unwrap_or(f64::NAN), h.scaled.unwrap_or(f64::NAN));
            for (name, value) in [
                ("js", raw),
                ("scaled", scaled),
                ("shape", h.shape),
                ("scale", h.scale),
                ("decades", h.decades),
                ("blocks", found.blocks.len() as f64),
            ] {
                metrics.put(format!("{net_name}/{name}"), value);
            }
            for (name, value) in [("shape-noise", h.shape_noise), ("scale-noise", h.scale_noise)] {
                if let Some(value) = value {
                    metrics.put(format!("{net_name}/{name}"), value);
                }
            }
            table.row([
                net_name.clone(),
                found.parameters.to_string(),
                found.blocks.len().to_string(),
                number(raw),
                number(scaled),
                number(h.shape),
                number(h.scale),
                number(h.decades),
            ]);
            let d = divergences(&found.blocks, Axis::ScaledLog, Heterogeneity::DECADES).map_err(numerical)?;
            ctx.show(Section::Heat(HeatMap {
                title: format!("{net_name}: divergence of the shapes of block spectra"),
                unit: "Jensen-Shannon, nats".into(),
                names: d.names.clone(),
                values: d.js.clone(),
                most: std::f64::consts::LN_2,
            }));
            let mut full = found.full;
            full.iter_mut().for_each(|f| net_name.clone_into(&mut f.block.name));
            fulls.append(&mut full);
        }
        if fulls.len() > 1 {
            for (axis, name, width) in [
                (Axis::Raw, "full/js", Axis::OFFICIAL),
                (Axis::Scaled, "full/scaled", Heterogeneity::SIGMA),
                (Axis::ScaledLog, "full/shape", Heterogeneity::DECADES),
                (Axis::Log, "full/scale", Heterogeneity::DECADES),
            ] {
                metrics.put(name, divergences(&fulls, axis, width).map_or(f64::NAN, |d| d.mean));
            }
            ctx.show(Section::Lines(whole(&fulls)));
        }
        ctx.show(Section::Table("Before training".to_owned(), table));
        Ok(metrics)
    }
}

/// Densities of the whole matrices, scaled by the tenth-largest magnitude.
fn whole(fulls: &[BlockSpectrum]) -> LinePlot {
    let series = fulls.iter().filter_map(|f| {
        let (mut s, by) = (f.spectrum(), f.magnitude(10));
        s.runs.iter_mut().flat_map(|r| &mut r.nodes).for_each(|x| *x /= by);
        let floor = 1e-6;
        let grid = s.log_grid(Heterogeneity::DECADES, floor).ok()?;
        let d = s.log_density(&grid, Heterogeneity::DECADES, floor).ok()?;
        let points = d.values.iter().enumerate().map(|(i, v)| (10f64.powf(d.grid.at(i)), *v)).collect();
        Some(Series::new(f.block.name.clone(), points))
    });
    LinePlot {
        title: "Spectra of the whole Hessians".into(),
        x: "magnitude, in tenth-largest ones".into(),
        y: "share of the spectrum per decade".into(),
        log_x: true,
        series: series.collect(),
        ..LinePlot::default()
    }
}
