//! The rows of the table for images.

use std::sync::Arc;

use rhumb_linalg::Real;
use rhumb_nn::ops::*;
use rhumb_nn::tape::{Graph, Span, Src};

use super::cases::{Build, Case, Field, N, Shapes, end, var};

/// Images of a vision case.
const IMAGES: usize = 3;

fn conv<T: Real>(g: &mut Graph<T>, s: &mut Shapes, op: Conv2d) {
    let x = var(g, s, op.batch * op.inp * op.window.area());
    let mut inputs = vec![x.into(), s.take(op.out * op.inp / op.groups * op.window.taps())];
    if op.bias {
        inputs.push(s.take(op.out));
    }
    let y = g.push(op, &inputs);
    end(g, y, op.batch * op.out * op.window.positions());
}

fn batch_norm<T: Real>(g: &mut Graph<T>, s: &mut Shapes, moments: Moments) {
    let x = var(g, s, IMAGES * 2 * 5);
    let mut inputs = vec![x.into(), s.take(2), s.take(2)];
    if matches!(moments, Moments::Given) {
        inputs.extend([0..2, 2..4].map(|range| Src::Param(Span { range, trainable: false })));
    }
    let y = g.push(BatchNorm2d { batch: IMAGES, channels: 2, area: 5, eps: 1e-3, moments }, &inputs);
    end(g, y, IMAGES * 2 * 5);
}

fn pooled<T: Real>(g: &mut Graph<T>, s: &mut Shapes, window: Window, max: bool) {
    let x = var(g, s, 4 * window.area());
    let y = if max {
        g.push(MaxPool2d { planes: 4, window }, &[x.into()])
    } else {
        g.push(AvgPool2d { planes: 4, window }, &[x.into()])
    };
    end(g, y, 4 * window.positions());
}

fn positions<T: Real>(g: &mut Graph<T>, s: &mut Shapes, class: bool) {
    let op = Positions { batch: IMAGES, len: 4, width: 3, class };
    let mut inputs = vec![var(g, s, IMAGES * 12).into(), s.take(op.rows() * 3)];
    if class {
        inputs.push(s.take(3));
    }
    let y = g.push(op, &inputs);
    end(g, y, IMAGES * op.rows() * 3);
}

/// Convolutions, pools, batch norms and what images need to become rows.
pub(super) fn cases<T: Real>() -> Vec<Case<T>> {
    let mut out = Vec::new();
    let mut push = |name: &str, params: usize, build: Build<T>| {
        out.push(Case { name: name.into(), params, field: Field::Gradient, tokens: N, build });
    };
    let same = Window::square([5, 4], 3, 1, 1);
    let uneven = Window { plane: [6, 5], kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
    let point = |side| Window::square([side; 2], 1, 1, 0);
    let strided = Window::square([4, 5], 1, 2, 0);
    for (name, inp, out, groups, window, bias) in [
        ("conv2d", 2, 3, 1, same, false),
        ("conv2d with steps and a bias", 2, 3, 1, uneven, true),
        ("conv2d in groups", 4, 6, 2, Window::square([3; 2], 3, 2, 1), true),
        ("conv2d by channel", 3, 3, 3, same, false),
        ("conv2d of points", 3, 2, 1, point(3), true),
        ("conv2d of points in place", 4, 2, 2, point(8), true),
        ("conv2d of points with steps", 3, 2, 1, strided, false),
    ] {
        let op = Conv2d { batch: IMAGES, inp, out, groups, window, bias };
        let params =
            IMAGES * inp * window.area() + out * inp / groups * window.taps() + out * usize::from(bias);
        push(name, params, Box::new(move |g, s| conv(g, s, op)));
    }
    let overlap = Window::square([6, 5], 3, 2, 1);
    for (name, window, max) in [
        ("max-pool2d", Window::square([4, 6], 2, 2, 0), true),
        ("max-pool2d of overlapping windows", overlap, true),
        ("avg-pool2d", Window::square([4, 6], 2, 2, 0), false),
        ("avg-pool2d of overlapping windows", overlap, false),
        ("avg-pool2d of the plane", Window::whole([3, 4]), false),
    ] {
        push(name, 4 * window.area(), Box::new(move |g, s| pooled(g, s, window, max)));
    }
    push("batch-norm2d", 34, Box::new(|g, s| batch_norm(g, s, Moments::Batch(Arc::default()))));
    push("batch-norm2d of given moments", 34, Box::new(|g, s| batch_norm(g, s, Moments::Given)));
    push(
        "patches",
        IMAGES * 48,
        Box::new(|g, s| {
            let x = var(g, s, IMAGES * 48);
            let y = g.push(Patches { batch: IMAGES, channels: 2, plane: [4, 6], size: 2 }, &[x.into()]);
            end(g, y, IMAGES * 48);
        }),
    );
    push("positions", IMAGES * 12 + 12, Box::new(|g, s| positions(g, s, false)));
    push("positions with a class token", IMAGES * 12 + 18, Box::new(|g, s| positions(g, s, true)));
    for (name, first) in [("pool-rows by the first", true), ("pool-rows by the mean", false)] {
        push(
            name,
            IMAGES * 12,
            Box::new(move |g, s| {
                let x = var(g, s, IMAGES * 12);
                let y = g.push(PoolRows { batch: IMAGES, len: 4, width: 3, first }, &[x.into()]);
                end(g, y, IMAGES * 3);
            }),
        );
    }
    out
}
