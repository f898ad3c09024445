//! Block spectra of small nets, and what SGD and Adam make of the same nets.

mod gap;
mod heterogeneity;
mod images;
mod net;
mod partition;
mod structure;
mod tuning;

pub(crate) use gap::GapSettings;
pub(crate) use heterogeneity::HeterogeneitySettings;
pub(crate) use partition::PartitionSettings;
pub(crate) use structure::StructureSettings;
pub(crate) use tuning::TuningSettings;

use rhumb_core::{Curvature, Objective, Optimizer};
use rhumb_krylov::slq::SlqOptions;
use rhumb_optim::{Kind, OptimizerConfig, ScheduleConfig, ScheduleKind, UnitRule};
use rhumb_spectrum::{BlockSpectrum, CurvatureOf, Cut, Reduction, Sample, SlqRun, SpectrumError, blocks};

use self::net::{HELD_OUT, Net, NetKind, matrices};
use crate::exit::{Code, Failure};

/// Text rows of 64 characters weigh as eight images.
fn rows_for(text: bool, rows: usize) -> usize {
    if text { (rows / 8).max(1) } else { rows }
}

/// A net under its name, made anew whenever it is asked for.
type Maker = (String, Box<dyn Fn() -> Result<Net, Failure>>);

/// The nets, then the perceptrons that are scaled apart by hand.
fn named(nets: &[NetKind], dials: &[f64], rows: usize, seed: u64) -> Vec<Maker> {
    let net = |k: &NetKind| -> Maker {
        let (k, rows) = (*k, rows_for(matches!(k, NetKind::Decoder | NetKind::Bert), rows));
        (k.name().to_owned(), Box::new(move || Net::new(k, rows, seed)))
    };
    let dial = |c: &f64| -> Maker {
        let c = *c;
        (format!("dial-{c}"), Box::new(move || Net::dialled(c, rows, seed)))
    };
    nets.iter().map(net).chain(dials.iter().map(dial)).collect()
}

fn numerical(e: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Code::Numerical, e)
}

/// The spectra of the matrices of a net at a point, on its first batch; with `full`, of all parameters as one block.
fn spectra(
    net: &mut Net,
    at: &[f32],
    (least, full): (usize, bool),
    options: SlqOptions,
) -> Result<Vec<BlockSpectrum>, SpectrumError> {
    let layout = net.layout().clone();
    let names = matrices(&layout, least.max(options.steps));
    let cut = if full { Cut::Full } else { Cut::Tensor };
    let chosen = blocks(&layout, cut, if full { &[] } else { &names })?;
    let samples = [Sample { batch: 0, rows: net.rows(0) }];
    let mut of = CurvatureOf::new(net, at, &samples, Curvature::Hessian, Reduction::Mean)?;
    let mut run = SlqRun::<f32>::new(chosen, options)?;
    while !run.step(&mut of)?.done {}
    Ok(run.found().to_vec())
}

/// How a net is trained: half a cosine after a rise over a twentieth of the steps, nothing clipped.
#[derive(Clone, Copy, Debug)]
struct Training<'a> {
    kind: Kind,
    lr: f64,
    steps: u64,
    /// Blocks of Adam-mini in place of its preset's.
    units: &'a [UnitRule],
}

/// The parameters at the end; `None` when the loss was not finite on the way.
fn train(net: &mut Net, start: &[f32], t: Training<'_>) -> Result<Option<Vec<f32>>, Failure> {
    let wrong = |e: rhumb_optim::OptimError| Failure::new(Code::Usage, e);
    let config = OptimizerConfig {
        kind: t.kind,
        units: t.units.to_vec(),
        lr: t.lr,
        beta2: if t.kind == Kind::Sgd { OptimizerConfig::default().beta2 } else { 0.95 },
        momentum: if t.kind == Kind::Sgd { 0.9 } else { OptimizerConfig::default().momentum },
        ..OptimizerConfig::default()
    };
    let mut optimizer: Box<dyn Optimizer<f32>> = config.build(net.layout()).map_err(wrong)?;
    let schedule = ScheduleConfig {
        kind: ScheduleKind::Cosine,
        warmup_steps: t.steps / 20,
        ..ScheduleConfig::default()
    };
    let schedule = schedule.build(t.lr, t.steps).map_err(wrong)?;
    let (mut at, mut grad) = (start.to_vec(), vec![0.0; start.len()]);
    for k in 0..t.steps {
        match net.value_grad(&at, &(k as usize), &mut grad) {
            Ok(_) => optimizer.step(schedule.at(k), &mut at, &grad),
            // What was evaluated before fails for its parameters only: scores of -inf, a loss that is not finite.
            Err(_) if k > 0 => return Ok(None),
            Err(e) => return Err(numerical(e)),
        }
    }
    Ok(Some(at))
}

/// Mean loss of trained parameters on held-out batches; infinite where it cannot be computed, as of a training that diverged
/// in its last step.
fn held_out(net: &mut Net, at: &[f32], batches: std::ops::Range<usize>) -> f64 {
    let loss = net.loss(at, HELD_OUT + batches.start..HELD_OUT + batches.end);
    loss.unwrap_or(f64::INFINITY)
}
