//! What a tape refuses, and parameters that the loss does not depend on.

use rhumb_core::EvalError;
use rhumb_nn::loss::Mse;
use rhumb_nn::op::Data;
use rhumb_nn::ops::{Act, Activation, Residual};
use rhumb_nn::tape::{Graph, Request, Span, Src, Tape};

fn params(range: std::ops::Range<usize>) -> Src {
    Src::Param(Span { range, trainable: true })
}

fn tanh(g: &mut Graph<f64>, at: std::ops::Range<usize>) -> Src {
    g.push(Activation { len: at.len(), act: Act::Tanh }, &[params(at)]).into()
}

/// `1/2 sum (tanh(p[2..4]) - 1)^2`, beside two parameters that no operation reads and two whose value is unused.
fn graph() -> Graph<f64> {
    let mut g = Graph::new();
    tanh(&mut g, 4..6);
    let y = tanh(&mut g, 2..4);
    let target = g.input(2, false);
    g.finish(Mse { len: 2 }, &[y, target.into()]);
    g
}

const TARGET: &[&[f64]] = &[&[1.0, 1.0]];

fn request(inputs: &'static [&'static [f64]]) -> Request<'static, f64> {
    Request { weight: 1.0, data: Data { inputs, ..Data::default() }, ..Request::default() }
}

#[test]
fn parameters_without_influence_on_the_loss_have_gradient_and_hessian_zero() {
    let mut tape = Tape::new(graph()).unwrap();
    let p = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];
    let (mut g, mut hv) = ([f64::NAN; 7], [f64::NAN; 7]);
    tape.gradient(&p, request(TARGET), &mut g, false, &mut []).unwrap();
    tape.hvp(&p, request(TARGET), &[1.0; 7], &mut hv).unwrap();
    for out in [g, hv] {
        assert!(out.iter().enumerate().all(|(i, v)| (*v != 0.0) == (i == 2 || i == 3)), "{out:?}");
        assert!(out.iter().all(|v| v.is_finite()), "{out:?}");
    }
    let mut handed = Vec::new();
    let mut q = p;
    tape.gradient_streaming(&mut q, request(TARGET), &mut |r, _, _| handed.push(r)).unwrap();
    assert_eq!(handed, vec![2..4_usize; 1]);
}

#[test]
fn a_short_slice_is_refused_with_both_lengths() {
    let mut tape = Tape::new(graph()).unwrap();
    let mut g = [0.0; 5];
    let e = tape.gradient(&[0.0; 5], request(TARGET), &mut g, false, &mut []).unwrap_err();
    assert_eq!(e, EvalError::Shape { what: "parameters", want: 6, got: 5 });
    let e = tape.gradient(&[0.0; 6], request(TARGET), &mut g, false, &mut []).unwrap_err();
    assert_eq!(e, EvalError::Shape { what: "gradient", want: 6, got: 5 });
    let e = tape.loss(&[0.0; 6], &[], request(&[&[1.0]]).data, 1.0).unwrap_err();
    assert_eq!(e, EvalError::Shape { what: "graph input", want: 2, got: 1 });
    let e = tape.loss(&[0.0; 6], &[], request(&[]).data, 1.0).unwrap_err();
    assert_eq!(e, EvalError::Shape { what: "number of graph inputs", want: 1, got: 0 });
}

#[test]
fn a_loss_that_is_not_finite_is_an_error_with_and_without_gradient_and_the_tape_goes_on() {
    let mut tape = Tape::new(graph()).unwrap();
    let (p, mut g) = ([f64::NAN; 6], [0.0; 6]);
    let want = Err(EvalError::NonFinite { what: "loss", block: None });
    assert_eq!(tape.loss(&p, &[], request(TARGET).data, 1.0), want);
    assert_eq!(tape.gradient(&p, request(TARGET), &mut g, false, &mut []), want);
    let bytes = tape.activation_bytes();
    for _ in 0..3 {
        assert_eq!(tape.gradient(&p, request(TARGET), &mut g, false, &mut []), want);
    }
    assert_eq!(tape.activation_bytes(), bytes, "an interrupted sweep gives its buffers back");
    assert!(tape.gradient(&[0.5; 6], request(TARGET), &mut g, false, &mut []).is_ok());
}

fn refusal(build: impl FnOnce(&mut Graph<f64>)) -> String {
    let mut g = Graph::new();
    build(&mut g);
    Tape::new(g).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn graphs_that_no_sweep_could_differentiate_are_refused() {
    let text = refusal(|g| {
        let (a, b) = (tanh(g, 0..4), tanh(g, 2..6));
        g.finish(Mse { len: 4 }, &[a, b]);
    });
    assert!(text.contains("overlap"), "{text}");
    let text = refusal(|g| {
        let a = tanh(g, 0..4);
        g.finish(Mse { len: 4 }, &[a.clone(), a]);
    });
    assert!(text.contains("one value twice"), "{text}");
    let text = refusal(|g| {
        let b = tanh(g, 4..8);
        let y = g.push(Residual { len: 4 }, &[params(0..4), b]);
        let target = g.input(4, false);
        g.finish(Mse { len: 4 }, &[y.into(), target.into()]);
    });
    assert!(text.contains("residual hands its adjoint on to parameters"), "{text}");
}
