//! What a run says: a table, a report, JSON.

use std::path::Path;

use rhumb_spectrum::{Advice, Axis, BlockSpectrum, Divergences, Heterogeneity, NormMap, divergences};
use serde_json::{Value, json};

use super::measure::{Found, Structure, from_spectrum};
use super::{Args, advice};
use crate::cmd::report::folder::Summary;
use crate::exit::Failure;
use crate::output::{Output, command_line, warn};
use crate::report::{HeatMap, LinePlot, Section, Series};
use crate::table::{Table, counted, number, seconds};

/// Curves in one plot.
const CURVES: usize = 6;
/// Magnitudes below this share of the largest one are drawn as it.
const FLOOR: f64 = 1e-8;

/// What was found, put in order.
pub(super) struct Told<'a> {
    args: &'a Args,
    models: Vec<Model<'a>>,
}

struct Model<'a> {
    found: &'a Found,
    /// Of two blocks or more.
    compared: Option<Compared>,
}

struct Compared {
    heterogeneity: Heterogeneity,
    advice: Advice,
    /// On the axes of the paper; none where eigenvalues so far apart fit no grid.
    raw: Option<Divergences>,
    scaled: Option<Divergences>,
    shape: Divergences,
    scale: Divergences,
}

impl<'a> Told<'a> {
    pub(super) fn of(args: &'a Args, found: &'a [Found]) -> Result<Self, Failure> {
        let model = |found: &'a Found| -> Result<Model<'a>, Failure> {
            if found.blocks.len() < 2 {
                return Ok(Model { found, compared: None });
            }
            // A block without curvature is no reason to lose the others.
            let compared = compare(&found.blocks);
            if let Err(e) = &compared {
                warn(&format!("{}: blocks are not compared: {e}", found.model));
            }
            Ok(Model { found, compared: compared.ok() })
        };
        Ok(Told { args, models: found.iter().map(model).collect::<Result<_, _>>()? })
    }

    /// One row for each block.
    pub(super) fn csv(&self) -> String {
        let mut out =
            "model,block,parameters,top,top_residual,bottom,bottom_residual,trace,trace_error,frobenius\n"
                .to_owned();
        for f in self.models.iter().map(|m| m.found) {
            for b in &f.blocks {
                let (trace, error) = b.trace();
                let error = error.map(|e| e.to_string()).unwrap_or_default();
                out.push_str(&format!(
                    "\"{}\",\"{}\",{},{},{},{},{},{trace},{error},{}\n",
                    f.model.replace('"', "\"\""),
                    b.block.name.replace('"', "\"\""),
                    b.block.dim(),
                    b.top.value,
                    b.top.residual,
                    b.bottom.value,
                    b.bottom.residual,
                    b.frobenius()
                ));
            }
        }
        out
    }

    fn settings(&self) -> String {
        let a = self.args;
        let operator = match a.operator {
            super::Operator::Hessian => "Hessian",
            super::Operator::Ggn => "generalised Gauss-Newton matrix",
            super::Operator::Fisher => "empirical Fisher matrix",
        };
        format!(
            "{operator}, {} from {}, {}{}",
            counted(u64::from(a.steps), "Lanczos step"),
            counted(u64::from(a.probes), "start vector"),
            if a.double { "f64" } else { "f32 with f64 sums" },
            if a.plain { ", without orthogonalisation" } else { "" }
        )
    }

    /// The result on the screen and for programs.
    pub(super) fn output(&self, out: &Path, wall_s: f64) -> Output {
        let mut text = format!("matrix  {}\n", self.settings());
        if self.models.len() > 1 {
            text.push_str(&format!("\n{}\n", self.sweep().render()));
        }
        for m in &self.models {
            let f = m.found;
            text.push_str(&format!(
                "model   {}: cross-entropy {} on {}; asymmetry of products {:.1e}\n\n{}",
                f.model,
                number(f.loss),
                counted(f.labels as u64, "label"),
                f.check.asymmetry,
                table(&f.blocks).render()
            ));
            if !f.structure.is_empty() {
                text.push('\n');
                text.push_str(&structure(&f.structure).render());
            }
            if let Some(m) = &f.map {
                let (inside, entries) = m.inside();
                text.push_str(&format!(
                    "\nbetween blocks  {} of the squared norm lies inside the blocks, which hold {} of the entries{}\n",
                    number(inside),
                    number(entries),
                    if inside < 0.5 { ": most of the curvature couples blocks, and spectra of single ones do not see it" } else { "" }
                ));
            }
            if let Some(c) = &m.compared {
                text.push_str(&format!("\nblocks  {}\n", words(c)));
                text.push_str(&format!("SGD     {}\n", advice::sgd(&c.advice, self.args.comparable())));
            }
            text.push_str(&format!(
                "\nblocks of Adam-mini  {}\n",
                advice::partition(&f.structure, self.args.structure > 0)
            ));
            text.push('\n');
        }
        text.push_str(&format!(
            "report  {}\ntime    {}\n",
            out.join("report.html").display(),
            seconds(wall_s)
        ));
        Output::new(text, self.json())
    }

    fn json(&self) -> Value {
        let model = |m: &Model<'_>| {
            let mut j = json!(m.found);
            if let Some(c) = &m.compared {
                j["heterogeneity"] = json!(c.heterogeneity);
                j["advice"] = json!(c.advice);
                j["js"] = json!({ "raw": c.raw, "scaled": c.scaled, "shape": c.shape, "scale": c.scale });
            }
            j
        };
        json!({ "models": self.models.iter().map(model).collect::<Vec<_>>() })
    }

    /// What the report shows.
    pub(super) fn summary(&self, _: &Path) -> Summary {
        let mut sections = Vec::new();
        let mut verdicts = vec![self.settings()];
        if self.models.len() > 1 {
            sections.push(Section::Table("Models".into(), self.sweep()));
        }
        for m in &self.models {
            let f = m.found;
            sections.push(Section::Heading(f.model.clone()));
            sections.push(Section::Text(format!(
                "Cross-entropy {} on {}. Two products with the same vector had the same bits; <u, Cv> and <v, Cu> differ by \
                 {:.1e} of their size.",
                number(f.loss),
                counted(f.labels as u64, "label"),
                f.check.asymmetry
            )));
            sections.push(Section::Table(
                "An eigenvalue lies within the residual of each value; trace and norm are estimates".into(),
                table(&f.blocks),
            ));
            sections.extend(densities(&f.blocks).into_iter().map(Section::Lines));
            if let Some(c) = &m.compared {
                verdicts.push(format!("{}: {}", f.model, words(c)));
                verdicts.push(format!(
                    "SGD on {}: {}",
                    f.model,
                    advice::sgd(&c.advice, self.args.comparable())
                ));
                sections.extend([map(&c.shape), map(&c.scale)].map(Section::Heat));
            }
            verdicts.push(format!(
                "Blocks of Adam-mini for {}: {}",
                f.model,
                advice::partition(&f.structure, self.args.structure > 0)
            ));
            if !f.structure.is_empty() {
                sections.push(Section::Table(
                    "Share of the squared Frobenius norm of a matrix inside the blocks of its heads and rows"
                        .into(),
                    structure(&f.structure),
                ));
            }
            if let Some(m) = &f.map {
                sections.push(Section::Heat(entries(m)));
            }
            if let Some(l) = &f.landscape {
                let points = l
                    .slice
                    .steps
                    .iter()
                    .zip(&l.slice.losses)
                    .map(|(s, l)| (*s, l.unwrap_or(f64::NAN)))
                    .collect();
                sections.push(Section::Lines(LinePlot {
                    title: format!("Loss of the first batch along the top eigenvector of {}, each filter by its own norm", l.block),
                    x: "step, in norms of each filter".into(),
                    y: "cross-entropy".into(),
                    series: vec![Series::new("loss", points)],
                    ..LinePlot::default()
                }));
            }
        }
        Summary {
            title: "Spectra of blocks".into(),
            verdicts,
            sections,
            command: command_line(&[]),
            result: self.json(),
        }
    }

    /// One row for each model.
    fn sweep(&self) -> Table {
        let mut t = Table::new(["model", "cross-entropy", "JS, shape", "JS, scale", "decades"]);
        for m in &self.models {
            let of = |f: fn(&Heterogeneity) -> f64| {
                m.compared.as_ref().map(|c| number(f(&c.heterogeneity))).unwrap_or_default()
            };
            let (shape, scale, decades) = (of(|h| h.shape), of(|h| h.scale), of(|h| h.decades));
            t.row([m.found.model.clone(), number(m.found.loss), shape, scale, decades]);
        }
        t
    }
}

fn compare(blocks: &[BlockSpectrum]) -> Result<Compared, Failure> {
    Ok(Compared {
        heterogeneity: Heterogeneity::of(blocks).map_err(from_spectrum)?,
        advice: Advice::of(blocks).map_err(from_spectrum)?,
        raw: divergences(blocks, Axis::Raw, Axis::OFFICIAL).ok(),
        scaled: divergences(blocks, Axis::Scaled, Heterogeneity::SIGMA).ok(),
        shape: divergences(blocks, Axis::ScaledLog, Heterogeneity::DECADES).map_err(from_spectrum)?,
        scale: divergences(blocks, Axis::Log, Heterogeneity::DECADES).map_err(from_spectrum)?,
    })
}

fn words(c: &Compared) -> String {
    let h = &c.heterogeneity;
    let or = |x: Option<f64>| x.map_or("not on one grid".to_owned(), number);
    let chance = |x: Option<f64>| {
        x.map_or("unknown with one start vector".to_owned(), |x| format!("{} by chance alone", number(x)))
    };
    format!(
        "mean Jensen-Shannon divergence of two blocks {} between the shapes of the spectra ({}) and {} with their scales \
         ({}; logarithmic axes, at most {}); as the paper's code smooths them {}, scaled as in its plots {}",
        number(h.shape),
        chance(h.shape_noise),
        number(h.scale),
        chance(h.scale_noise),
        number(std::f64::consts::LN_2),
        or(h.raw),
        or(h.scaled)
    )
}

fn table(blocks: &[BlockSpectrum]) -> Table {
    let header =
        ["block", "parameters", "largest", "residual", "smallest", "residual", "trace", "Frobenius norm"];
    let mut t = Table::new(header);
    for b in blocks {
        let (trace, error) = b.trace();
        let trace = error.map_or(number(trace), |e| format!("{} ± {}", number(trace), number(e)));
        t.row([
            b.block.name.clone(),
            b.block.dim().to_string(),
            number(b.top.value),
            format!("{:.1e}", b.top.residual),
            number(b.bottom.value),
            format!("{:.1e}", b.bottom.residual),
            trace,
            number(b.frobenius()),
        ]);
    }
    t
}

fn structure(all: &[Structure]) -> Table {
    let mut t = Table::new(["matrix", "inside heads", "if even", "inside rows", "if even"]);
    let share = |d: &rhumb_spectrum::Diagonality| format!("{} ± {}", number(d.share), number(d.error));
    for s in all {
        let heads = s.heads.as_ref();
        t.row([
            s.tensor.clone(),
            heads.map(share).unwrap_or_default(),
            heads.map(|d| number(d.unstructured)).unwrap_or_default(),
            share(&s.rows),
            number(s.rows.unstructured),
        ]);
    }
    t
}

fn map(d: &Divergences) -> HeatMap {
    let axis = match d.axis {
        Axis::Raw => "eigenvalues as they are",
        Axis::Scaled => "spectra scaled by their tenth-largest magnitude",
        Axis::Log => "logarithmic axis, scale kept",
        Axis::ScaledLog => "logarithmic axis, scaled",
    };
    HeatMap {
        title: format!("Jensen-Shannon divergence, {axis}"),
        unit: format!(
            "nats, mean {}; {} points from {}, step {}, smoothed by {}; divided by the step {}",
            number(d.mean),
            d.points,
            number(d.start),
            number(d.step),
            number(d.sigma),
            number(d.paper_scale)
        ),
        names: d.names.clone(),
        values: d.js.clone(),
        most: std::f64::consts::LN_2,
    }
}

/// Sizes of entries between blocks.
fn entries(m: &NormMap) -> HeatMap {
    let n = m.names.len();
    let values: Vec<f64> = (0..n * n).map(|at| m.entry(at / n, at % n)).collect();
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let (inside, even) = m.inside();
    HeatMap {
        title: "Size of the entries between blocks".into(),
        unit: format!(
            "root of their mean square, from {}; {} of the squared norm lies inside the blocks, which hold {} of the entries",
            counted(m.probes as u64, "product"),
            number(inside),
            number(even)
        ),
        names: m.names.clone(),
        values,
        most,
    }
}

/// Densities of magnitudes, a few blocks to a plot.
fn densities(blocks: &[BlockSpectrum]) -> Vec<LinePlot> {
    let largest = blocks.iter().map(|b| b.magnitude(1)).fold(0.0, f64::max);
    let curve = |b: &BlockSpectrum| -> Option<Series<(f64, f64)>> {
        let s = b.spectrum();
        let grid = s.log_grid(Heterogeneity::DECADES, FLOOR * largest).ok()?;
        let d = s.log_density(&grid, Heterogeneity::DECADES, FLOOR * largest).ok()?;
        let points = d.values.iter().enumerate().map(|(i, v)| (10f64.powf(d.grid.at(i)), *v)).collect();
        Some(Series::new(b.block.name.clone(), points))
    };
    let plot = |chunk: &[BlockSpectrum]| LinePlot {
        title: "Density of eigenvalues by magnitude".into(),
        x: "magnitude".into(),
        y: "share of the spectrum per decade".into(),
        log_x: true,
        series: chunk.iter().filter_map(curve).collect(),
        ..LinePlot::default()
    };
    if largest > 0.0 { blocks.chunks(CURVES).map(plot).collect() } else { Vec::new() }
}
