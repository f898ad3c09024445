//! One table of all operations; every row runs the whole battery.
//!
//! Each operation is wrapped as `loss = sum(c * y)`-like through a squared error against a fixed target, so
//! that the loss has curvature of its own and the operation's second derivatives matter.

mod bench;
mod cases;
mod long;
mod vision;

use rhumb_core::{Curvature, Product};

use bench::Bench;
use cases::{Field, cases};

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

#[test]
fn the_vjp_of_every_operation_equals_central_differences() {
    for case in cases::<f64>().iter().filter(|c| c.field == Field::Gradient) {
        let mut b = Bench::new(case);
        let (loss, g) = b.gradient();
        for seed in 0..4 {
            let v = b.direction(seed);
            let h = 1e-5;
            let slope = (b.moved(&v, h).0 - b.moved(&v, -h).0) / (2.0 * h);
            // A difference of two losses cannot be known better than their last bits.
            let rounding = 4.0 * f64::EPSILON * loss / h;
            let err = (slope - dot(&g, &v)).abs() / slope.abs().max(1e-3);
            assert!(
                err < 1e-7 + rounding / slope.abs().max(1e-3),
                "{}: slope {slope}, gradient {} (relative {err:.1e})",
                case.name,
                dot(&g, &v)
            );
        }
    }
}

#[test]
fn the_hessian_product_of_every_operation_equals_differences_of_gradients() {
    for case in cases::<f64>().iter().filter(|c| c.field != Field::Free) {
        let mut b = Bench::new(case);
        for seed in 0..3 {
            let v = b.direction(seed);
            let h = 1e-5;
            let (hi, lo) = (b.moved(&v, h).1, b.moved(&v, -h).1);
            let want: Vec<f64> = hi.iter().zip(&lo).map(|(a, b)| (a - b) / (2.0 * h)).collect();
            let got = b.hvp(&v);
            let diff: Vec<f64> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
            let err = norm(&diff) / norm(&want).max(1e-3);
            assert!(err < 1e-6, "{}: relative error {err:.1e}", case.name);
        }
    }
}

/// Two blocks that together are everything, cut through the middle of whatever tensors lie there.
#[test]
fn products_with_blocks_are_those_of_the_whole_hessian_of_every_operation() {
    for case in cases::<f64>().iter().filter(|c| c.field != Field::Free) {
        let mut b = Bench::new(case);
        let n = b.params.len();
        let (a, z) = (n / 5, n - n / 3);
        let middle = a..z;
        let blocks = [vec![0..a, z..n], vec![middle]];
        let v = b.direction(4);
        let gather = |block: &[std::ops::Range<usize>], x: &[f64]| -> Vec<f64> {
            block.iter().flat_map(|r| x[r.clone()].to_vec()).collect()
        };
        let vs = blocks.each_ref().map(|block| gather(block, &v));
        let mut outs = vs.each_ref().map(|v| vec![f64::NAN; v.len()]);
        let mut requests: Vec<_> = blocks
            .iter()
            .zip(&vs)
            .zip(&mut outs)
            .map(|((block, v), out)| Product { of: Curvature::Hessian, block, v, out })
            .collect();
        let loss = b.with(|t, p, req| t.products(p, req, &mut requests).unwrap().loss);
        assert!(loss == b.gradient().0, "{}: loss", case.name);
        for ((block, v), got) in blocks.iter().zip(&vs).zip(&outs) {
            let mut whole = vec![0.0; n];
            let mut next = v.iter();
            block.iter().flat_map(Clone::clone).for_each(|i| whole[i] = *next.next().unwrap());
            let want = gather(block, &b.hvp(&whole));
            let diff: Vec<f64> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
            let err = norm(&diff) / norm(&want).max(1e-9);
            assert!(err < 1e-12, "{}: block {block:?}, relative error {err:.1e}", case.name);
        }
    }
}

#[test]
fn the_hessian_of_every_operation_is_symmetric() {
    for case in cases::<f64>().iter().filter(|c| c.field != Field::Free) {
        let mut b = Bench::new(case);
        let (u, v) = (b.direction(1), b.direction(2));
        let (hu, hv) = (b.hvp(&u), b.hvp(&v));
        let (a, c) = (dot(&u, &hv), dot(&v, &hu));
        let scale = norm(&u) * norm(&hv);
        assert!((a - c).abs() <= 1e-12 * scale.max(1e-9), "{}: {a} and {c}", case.name);
    }
}

#[test]
fn gradients_accumulate_and_stream_to_the_same_bits() {
    for case in &cases::<f64>() {
        let mut b = Bench::new(case);
        let (_, g) = b.gradient();
        let mut twice = g.clone();
        b.with(|t, p, req| t.gradient(p, req, &mut twice, true, &mut []).unwrap());
        for (a, t) in g.iter().zip(&twice) {
            assert!((2.0 * a - t).abs() <= 1e-12 * a.abs().max(1.0), "{}", case.name);
        }
        let mut params = b.params.clone();
        let mut streamed = vec![0.0; g.len()];
        b.with(|t, _, req| {
            t.gradient_streaming(&mut params, req, &mut |r, p, g| {
                streamed[r].copy_from_slice(g);
                p.fill(f64::NAN);
            })
            .unwrap()
        });
        assert_eq!(streamed, g, "{}: no rule may read a span after it was handed over", case.name);
    }
}

#[test]
fn repeated_sweeps_and_other_thread_counts_give_the_same_bits() {
    for case in &cases::<f64>() {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let mut b = Bench::new(case);
        let v = b.direction(1);
        let first = one.install(|| (b.gradient(), b.try_hvp(&v)));
        let second = two.install(|| (b.gradient(), b.try_hvp(&v)));
        assert!(first == second, "{}", case.name);
    }
}

#[test]
fn every_operation_in_f32_agrees_with_itself_in_f64() {
    fn far(single: &[f32], double: &[f64]) -> f64 {
        let diff: Vec<f64> = single.iter().zip(double).map(|(a, b)| f64::from(*a) - b).collect();
        norm(&diff) / norm(double)
    }
    for (single, double) in cases::<f32>().iter().zip(&cases::<f64>()) {
        let (mut s, mut d) = (Bench::new(single), Bench::new(double));
        let ((loss, g), (want, exact)) = (s.gradient(), d.gradient());
        assert!((loss - want).abs() < 1e-5 * want.abs().max(0.1), "{}: {loss} and {want}", single.name);
        let err = far(&g, &exact);
        assert!(err < 1e-5, "{}: gradients differ by {err:.1e}", single.name);
        if single.field != Field::Free {
            let err = far(&s.hvp(&s.direction(1)), &d.hvp(&d.direction(1)));
            assert!(err < 1e-5, "{}: Hessian products differ by {err:.1e}", single.name);
        }
    }
}

#[test]
fn a_field_without_a_potential_has_no_hessian_product() {
    let all = cases::<f64>();
    let free: Vec<_> = all.iter().filter(|c| c.field == Field::Free).collect();
    assert_eq!(free.len(), 3);
    for case in free {
        let mut b = Bench::new(case);
        let v = b.direction(1);
        let e = b.try_hvp(&v).unwrap_err().to_string();
        assert!(e.contains("no gradient of a function"), "{e}");
    }
}
