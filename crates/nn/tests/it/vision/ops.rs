//! Operations on images against their definitions.

use std::sync::Arc;

use rhumb_nn::loss::Mse;
use rhumb_nn::op::{Data, Op};
use rhumb_nn::ops::{AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d, Moments, Window};
use rhumb_nn::tape::{Graph, Request, Span, Src, Tape};

use super::{dot, normal};

/// The cross-correlation by its definition.
fn written_out(op: Conv2d, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (win, [oh, ow]) = (op.window, op.window.out());
    let (ci, co) = (op.inp / op.groups, op.out / op.groups);
    let mut y = vec![0.0; op.batch * op.out * oh * ow];
    for (at, y) in y.iter_mut().enumerate() {
        let (n, o, oy, ox) = (at / (op.out * oh * ow), at / (oh * ow) % op.out, at / ow % oh, at % ow);
        for c in 0..ci {
            for ky in 0..win.kernel[0] {
                for kx in 0..win.kernel[1] {
                    let iy = (oy * win.stride[0] + ky).wrapping_sub(win.padding[0]);
                    let ix = (ox * win.stride[1] + kx).wrapping_sub(win.padding[1]);
                    if iy < win.plane[0] && ix < win.plane[1] {
                        let from = ((n * op.inp + o / co * ci + c) * win.plane[0] + iy) * win.plane[1] + ix;
                        *y += x[from] * w[((o * ci + c) * win.kernel[0] + ky) * win.kernel[1] + kx];
                    }
                }
            }
        }
    }
    y
}

/// Cuts of every kind: bands of rows, several images in one product, more images than tasks, one task alone.
#[test]
fn convolutions_of_all_cuts_equal_the_definition_and_keep_the_bits_of_one_thread() {
    for (batch, inp, out, groups, window) in [
        (1, 1, 2, 1, Window::square([40, 70], 3, 1, 1)),
        (2, 64, 3, 1, Window::square([20, 20], 3, 1, 1)),
        (37, 2, 4, 2, Window::square([7, 5], 3, 1, 1)),
        (3, 256, 230, 1, Window::square([3, 3], 3, 2, 1)),
        (19, 3, 2, 1, Window::square([9, 9], 1, 1, 0)),
        (2, 1, 2, 1, Window::square([1, 2], 5, 1, 2)),
        (3, 2, 1, 1, Window::square([3, 1], 7, 1, 3)),
        (2, 1, 1, 1, Window { plane: [3, 2], kernel: [2, 4], stride: [1, 3], padding: [2, 2] }),
    ] {
        let op = Conv2d { batch, inp, out, groups, window, bias: false };
        let (nx, nw) = (batch * inp * window.area(), out * inp / groups * window.taps());
        let len = batch * out * window.positions();
        let mut g = Graph::new();
        let take = |range| Src::Param(Span { range, trainable: true });
        let y = g.push(op, &[take(0..nx), take(nx..nx + nw)]);
        let input = g.input(len, false);
        g.finish(Mse { len }, &[y.into(), input.into()]);
        let (p, u, v, target) = (normal(nx + nw, 1), normal(nx + nw, 2), normal(nx + nw, 3), normal(len, 4));
        let mut tape = Tape::new(g).unwrap();
        let mut run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut out = [vec![f64::NAN; len], vec![f64::NAN; p.len()], vec![f64::NAN; p.len()]];
                let inputs: [&[f64]; 1] = [&target];
                let data = Data { inputs: &inputs, ..Data::default() };
                let req = Request { data, weight: 1.0, ..Request::default() };
                tape.value(&p, &[], data, None, y, &mut out[0]).unwrap();
                tape.gradient(&p, req, &mut out[1], false, &mut []).unwrap();
                tape.hvp(&p, req, &v, &mut out[2]).unwrap();
                out
            })
        };
        let [value, gradient, hv] = run(1);
        assert!(run(2) == [value.clone(), gradient.clone(), hv.clone()], "{op:?}");
        // J a for a direction a, and the second derivative along two.
        let both = |a: &[f64], b: &[f64]| {
            sum(&written_out(op, &a[..nx], &b[nx..]), &written_out(op, &b[..nx], &a[nx..]))
        };
        let want = written_out(op, &p[..nx], &p[nx..]);
        let near = |what: &str, got: f64, want: f64, scale: f64| {
            assert!((got - want).abs() <= 1e-12 * scale, "{op:?}: {what} {got} and {want}");
        };
        value.iter().zip(&want).for_each(|(y, w)| near("value", *y, *w, 1e2));
        let error: Vec<f64> = want.iter().zip(&target).map(|(y, t)| y - t).collect();
        let scale = norm(&error) * norm(&both(&p, &v));
        near("gradient", dot(&gradient, &v), dot(&error, &both(&p, &v)), scale);
        let curve = dot(&both(&p, &u), &both(&p, &v)) + dot(&error, &both(&u, &v));
        near("Hessian", dot(&u, &hv), curve, norm(&u) * norm(&hv));
    }
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// The value of one operation on given inputs.
fn value(op: impl Op<f64> + 'static, inputs: &[&[f64]]) -> Vec<f64> {
    let mut g = Graph::new();
    let from: Vec<Src> = inputs.iter().map(|x| g.input(x.len(), false).into()).collect();
    let y = g.push(op, &from);
    let mut out = vec![f64::NAN; g.len_of(y)];
    let data = Data { inputs, ..Data::default() };
    Tape::new(g).unwrap().value(&[], &[], data, None, y, &mut out).unwrap();
    out
}

#[test]
fn small_images_have_the_values_computed_by_hand() {
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let window = Window::square([3, 3], 2, 1, 0);
    let conv = Conv2d { batch: 1, inp: 1, out: 1, groups: 1, window, bias: true };
    // 1 + 2 * 2 - 4 + 0 * 5 + 10 at the first place; every step to the right adds 2, every row down 6.
    assert_eq!(value(conv, &[&image, &[1.0, 2.0, -1.0, 0.0], &[10.0]]), [11.0, 13.0, 17.0, 19.0]);
    assert_eq!(value(MaxPool2d { planes: 1, window }, &[&image]), [5.0, 6.0, 8.0, 9.0]);
    assert_eq!(value(AvgPool2d { planes: 1, window }, &[&image]), [3.0, 4.0, 6.0, 7.0]);
    assert_eq!(value(AvgPool2d { planes: 1, window: Window::whole([3, 3]) }, &[&image]), [5.0]);
    // Padding counts as zeros in a mean and not at all in a maximum.
    let padded = Window::square([3, 3], 2, 2, 1);
    let negative = image.map(|x| -x);
    assert_eq!(value(MaxPool2d { planes: 1, window: padded }, &[&negative]), [-1.0, -2.0, -4.0, -5.0]);
    assert_eq!(value(AvgPool2d { planes: 1, window: padded }, &[&image]), [0.25, 1.25, 2.75, 7.0]);
    let poisoned = [1.0, f64::NAN, 3.0, 4.0];
    for all in [Window::whole([2, 2]), Window::square([2, 2], 2, 2, 0)] {
        assert!(value(MaxPool2d { planes: 1, window: all }, &[&poisoned])[0].is_nan());
    }
    let wide = [1.0, 5.0, f64::INFINITY, 0.0, -3.0, 2.0, 9.0, 9.0, 6.0, 0.0];
    let pairs = Window::square([2, 5], 2, 2, 0);
    assert_eq!(value(MaxPool2d { planes: 1, window: pairs }, &[&wide]), [9.0, f64::INFINITY]);
    // Two images of one channel: mean 3, variance 5.
    let x = [0.0, 2.0, 4.0, 6.0];
    let sink = Arc::default();
    let norm =
        BatchNorm2d { batch: 2, channels: 1, area: 2, eps: 0.0, moments: Moments::Batch(Arc::clone(&sink)) };
    let y = value(norm, &[&x, &[5.0_f64.sqrt()], &[1.0]]);
    assert!(y.iter().zip([-2.0, 0.0, 2.0, 4.0]).all(|(y, w)| (y - w).abs() < 1e-14), "{y:?}");
    sink.read(|mean, var| assert_eq!((mean, var), (&[3.0][..], &[20.0 / 3.0][..])));
    let norm = BatchNorm2d { batch: 2, channels: 1, area: 2, eps: 0.0, moments: Moments::Given };
    assert_eq!(value(norm, &[&x, &[3.0], &[1.0], &[2.0], &[4.0]]), [-2.0, 1.0, 4.0, 7.0]);
}
