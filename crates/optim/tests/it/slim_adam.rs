//! Signal-to-noise ratios and the axes that follow from them.

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_optim::{Axis, OptimizerConfig, Partition, Preset, SlimAdam, SlimAdamConfig, Snr, SnrRecord};

use crate::{close, one, params};

#[test]
fn the_ratio_is_squared_mean_over_variance_along_each_axis() {
    // Rows 1 2 | 3 6: means 1.5, 4.5, variances 0.25, 2.25; columns 1 3 | 2 6: 2, 4 and 1, 4; all: 3 and 3.5.
    let snr = Snr::of(&[1.0, 2.0, 3.0, 6.0], 2);
    close(&[snr.fan_in, snr.fan_out, snr.both], &[9.0, 4.0, 9.0 / 3.5], 1e-12);
}

#[test]
fn slices_without_variance_are_left_out_and_a_constant_tensor_is_all_signal() {
    let snr = Snr::of(&[1.0, 1.0, 1.0, 3.0], 2);
    close(&[snr.fan_in, snr.fan_out], &[4.0, 4.0], 1e-12);
    assert_eq!(Snr::of(&[2.0_f32; 6], 3).choose(1.0), Axis::Both);
    assert_eq!(Snr::of(&[0.0_f32; 6], 3).choose(1.0), Axis::None);
    assert_eq!(Snr::of::<f64>(&[], 0), Snr::default());
}

#[test]
fn the_largest_ratio_above_the_cutoff_wins() {
    let snr = Snr { fan_in: 3.0, fan_out: 4.0, both: 2.0 };
    assert_eq!([5.0, 3.5, 1.0].map(|c| snr.choose(c)), [Axis::None, Axis::FanOut, Axis::FanOut]);
    assert_eq!(Snr { fan_in: 4.0, fan_out: 4.0, both: 4.0 }.choose(1.0), Axis::Both);
}

#[test]
fn a_record_averages_over_its_measurements_and_spares_norms_and_vectors() {
    let mut l = Layout::new();
    l.push("w", &[2, 2], Role::Mlp);
    l.push("norm", &[2, 2], Role::Norm);
    l.push("b", &[2], Role::Other);
    let mut record = SnrRecord::new(&l);
    record.measure(&[1.0, 2.0, 3.0, 6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    record.measure(&[1.0, 3.0, 2.0, 6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let mean = record.means()[0];
    close(&[mean.fan_in, mean.fan_out], &[6.5, 6.5], 1e-12);
    assert_eq!(record.axes(1.0), [Axis::FanOut, Axis::None, Axis::None]);
}

#[test]
fn each_axis_keeps_one_second_moment_per_slice() {
    let g = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let squares = |v: &[f64]| v.iter().map(|x| 0.05 * x).collect::<Vec<_>>();
    for (axis, want) in [
        (Axis::None, vec![1.0, 4.0, 9.0, 16.0, 25.0, 36.0]),
        (Axis::FanIn, vec![14.0 / 3.0, 77.0 / 3.0]),
        (Axis::FanOut, vec![8.5, 14.5, 22.5]),
        (Axis::Both, vec![91.0 / 6.0]),
    ] {
        let l = one("w", &[2, 3], Role::Mlp);
        let decay = Partition::per_element(&l, Preset::Rhumb);
        let mut o = SlimAdam::<f64>::new(&l, &decay, vec![axis], params()).unwrap();
        let mut p = [0.0; 6];
        o.step(0.01, &mut p, &g);
        close(o.second_moments(), &squares(&want), 1e-12);
        assert_eq!(o.state_bytes(), 8 * (6 + want.len()));
        let per = 6 / want.len();
        for (i, p) in p.iter().enumerate() {
            let v = match axis {
                Axis::FanOut => want[i % 3],
                _ => want[i / per],
            };
            assert!((p + 0.01 * g[i] / (v.sqrt() + 1e-8)).abs() < 1e-12, "{axis:?} {i}");
        }
    }
}

#[test]
fn without_an_axis_it_is_adamw_and_over_the_fan_in_adam_mini() {
    let l = one("mlp.w", &[4, 5], Role::Mlp);
    let decay = Partition::per_element(&l, Preset::Rhumb);
    let run = |o: &mut dyn Optimizer<f64>| {
        let mut p = vec![0.3; 20];
        for t in 0..5 {
            let g: Vec<f64> = (0..20).map(|i| f64::from((7 * i + 3 * t) % 11 - 5)).collect();
            o.step(0.01, &mut p, &g);
        }
        p
    };
    let slim = |axis| run(&mut SlimAdam::new(&l, &decay, vec![axis], params()).unwrap());
    close(&slim(Axis::None), &run(&mut crate::adamw(&l, params())), 1e-14);
    close(&slim(Axis::FanIn), &run(&mut crate::mini(&l, Preset::Rhumb, params())), 1e-14);
}

#[test]
fn measured_axes_free_their_memory_after_the_measured_steps() {
    let l = one("mlp.w", &[40, 50], Role::Mlp);
    let config = OptimizerConfig {
        kind: rhumb_optim::Kind::SlimAdam,
        slim_adam: Some(SlimAdamConfig { measure_steps: 4, cutoff: 1.0 }),
        ..OptimizerConfig::default()
    };
    let mut o = config.build::<f32>(&l).unwrap();
    let mut p = vec![0.0_f32; 2000];
    // Rows of equal magnitude, each row another: the fan-in has the signal.
    let g: Vec<f32> = (0..2000).map(|i| (1 + i / 50) as f32 * if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    for _ in 0..4 {
        o.step(0.01, &mut p, &g);
        assert_eq!(o.state_bytes(), 16_000);
    }
    o.step(0.01, &mut p, &g);
    assert_eq!(o.state_bytes(), 4 * (2000 + 40));
    assert_eq!(config.state_bytes(&l, 4).unwrap(), 16_000);
}

#[test]
fn the_number_of_axes_is_checked() {
    let l = one("w", &[2, 3], Role::Mlp);
    let decay = Partition::per_element(&l, Preset::Rhumb);
    let e = SlimAdam::<f32>::new(&l, &decay, vec![], params()).unwrap_err().to_string();
    assert!(e.contains("0 axes"), "{e}");
}
