//! The spectrum of a loss of one's own, given with its gradient as a closure over slices:
//! `cargo run -p rhumb-spectrum --example own_objective`.
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use rhumb_core::{Curvature, Layout, Objective, Role};
use rhumb_krylov::slq::SlqOptions;
use rhumb_spectrum::{
    Advice, CurvatureOf, Cut, FnObjective, Reduction, Sample, SlqRun, SpectrumError, blocks,
};

/// Pairs of a wave and a slow drift; the model is `a sin(b t) + c t + d`.
fn main() -> Result<(), SpectrumError> {
    let points: Vec<(f64, f64)> =
        (0..50).map(|i| 0.2 * f64::from(i)).map(|t| (t, (1.3 * t).sin() + 0.1 * t)).collect();
    let mut layout = Layout::new();
    layout.push("wave", &[2], Role::Other);
    layout.push("drift", &[2], Role::Other);
    // Mean squared error; the gradient is written into `g`, the loss returned.
    let mut loss = FnObjective::with_layout(layout, |x: &[f64], g: &mut [f64]| {
        g.fill(0.0);
        let n = points.len() as f64;
        let mut sum = 0.0;
        for &(t, y) in &points {
            let (sin, cos) = (x[1] * t).sin_cos();
            let off = x[0] * sin + x[2] * t + x[3] - y;
            sum += off * off / n;
            for (g, d) in g.iter_mut().zip([sin, x[0] * t * cos, t, 1.0]) {
                *g += 2.0 * off * d / n;
            }
        }
        sum
    });
    let parts = blocks(Objective::<f64>::layout(&loss), Cut::Tensor, &[])?;
    let samples = [Sample { batch: (), rows: points.len() }];
    let at = [1.0, 1.3, 0.1, 0.0];
    let mut hessian = CurvatureOf::new(&mut loss, &at, &samples, Curvature::Hessian, Reduction::Mean)?;
    let mut run = SlqRun::<f64>::new(parts, SlqOptions { steps: 2, starts: 2, ..SlqOptions::default() })?;
    while !run.step(&mut hessian)?.done {}
    for b in run.found() {
        let (top, low) = (b.top, b.bottom);
        println!("{}: {:.4} ± {:.0e} down to {:.4}", b.block.name, top.value, top.residual, low.value);
    }
    let advice = Advice::of(run.found())?;
    println!("{} is the steepest, {} the flattest", advice.largest.0, advice.smallest.0);
    Ok(())
}
