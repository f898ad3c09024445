//! Moments kept in fewer bits.

use std::path::Path;

use rhumb_core::{Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_optim::{AdamMini, AdamW, Kind, OptimizerConfig, Partition, Preset, StateFormat};

use crate::params;

const FORMATS: [StateFormat; 3] = [StateFormat::Full, StateFormat::Bf16, StateFormat::EightBit];

/// Rows that share no divisor with 256, heads, a fused tensor of two runs, a block above the cached size, single
/// elements, and tensors below the limit of the eight-bit format.
fn layout() -> Layout {
    let mut l = Layout::new();
    l.push("embed", &[301, 333], Role::Embed);
    l.push("q", &[256, 300], Role::Query { head_dim: 64 });
    l.push("qkv", &[36, 1000], Role::Qkv { head_dim: 3, heads: 6, kv_heads: 3 });
    l.push("conv", &[600, 500], Role::Other);
    l.push("narrow", &[3000, 7], Role::Mlp);
    l.push("wide", &[3, 80_001], Role::Mlp);
    l.push("bias", &[140_001], Role::Bias);
    l.push("norm", &[300], Role::Norm);
    l
}

fn random<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| T::of(r.normal())).collect()
}

fn bits(p: &[f32]) -> Vec<u32> {
    p.iter().map(|x| x.to_bits()).collect()
}

fn config(kind: Kind, state: StateFormat) -> OptimizerConfig {
    OptimizerConfig { kind, state, weight_decay: 0.1, ..OptimizerConfig::default() }
}

fn saved(o: &dyn Optimizer<f32>) -> StateReader {
    let mut bytes = Vec::new();
    let mut w = StateWriter::new(&mut bytes, Path::new("memory")).unwrap();
    o.save(&mut w).unwrap();
    w.finish().unwrap();
    StateReader::from_bytes(bytes, Path::new("memory")).unwrap()
}

#[test]
fn one_and_two_threads_give_the_same_bits_in_every_format() {
    let layout = layout();
    for kind in [Kind::AdamMini, Kind::AdamW] {
        for state in FORMATS {
            let run = |threads| {
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                    let mut o = config(kind, state).build::<f32>(&layout).unwrap();
                    let mut p = random::<f32>(layout.len(), 7);
                    for t in 0..3 {
                        o.step(0.01, &mut p, &random(layout.len(), 50 + t));
                    }
                    bits(&p)
                })
            };
            assert!(run(1) == run(2), "{kind:?} {state:?}");
        }
    }
}

#[test]
fn block_by_block_and_whole_steps_give_the_same_bits() {
    let layout = layout();
    for state in FORMATS {
        let (mut a, mut b) = (random::<f32>(layout.len(), 1), random::<f32>(layout.len(), 1));
        let mut whole = config(Kind::AdamMini, state).build::<f32>(&layout).unwrap();
        let mut parts = config(Kind::AdamMini, state).build::<f32>(&layout).unwrap();
        for t in 0..3 {
            let g = random::<f32>(layout.len(), 20 + t);
            whole.step(0.01, &mut a, &g);
            parts.begin();
            // As in a backward pass: the last tensor first.
            for (i, block) in layout.blocks().iter().enumerate().rev() {
                let r = block.range.clone();
                parts.step_block(0.01, i, &mut b[r.clone()], &g[r]);
            }
        }
        assert!(bits(&a) == bits(&b), "{state:?}");
    }
}

#[test]
fn a_restored_optimizer_continues_with_the_same_bits_in_every_format() {
    let layout = layout();
    for kind in [Kind::AdamMini, Kind::AdamW] {
        for state in FORMATS {
            let mut a = config(kind, state).build::<f32>(&layout).unwrap();
            let mut pa = random::<f32>(layout.len(), 1);
            for t in 0..2 {
                a.step(0.01, &mut pa, &random(layout.len(), 10 + t));
            }
            let mut b = config(kind, state).build::<f32>(&layout).unwrap();
            b.load(&mut saved(&*a)).unwrap();
            let mut pb = pa.clone();
            for t in 2..5 {
                let g = random(layout.len(), 10 + t);
                a.step(0.01, &mut pa, &g);
                b.step(0.01, &mut pb, &g);
            }
            assert!(bits(&pa) == bits(&pb), "{kind:?} {state:?}");
        }
    }
}

#[test]
fn state_of_another_format_is_refused_by_name() {
    let layout = layout();
    for kind in [Kind::AdamMini, Kind::AdamW] {
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let a = config(kind, FORMATS[from]).build::<f32>(&layout).unwrap();
            let mut b = config(kind, FORMATS[to]).build::<f32>(&layout).unwrap();
            let e = b.load(&mut saved(&*a)).unwrap_err().to_string();
            let (from, to) = (FORMATS[from].tag(), FORMATS[to].tag());
            assert!(e.contains(&format!("state format {from}, this run has {to}")), "{e}");
        }
    }
}

#[test]
fn bytes_held_are_the_formula_in_every_format() {
    let l = layout();
    let n = l.len();
    let blocks = Partition::preset(Preset::Rhumb, &l).unwrap().blocks();
    let small = 300;
    // A scale per 256 numbers, counted anew from the beginning of each run; the fused tensor has two.
    let runs = [301 * 333, 256 * 300, 27_000, 9000, 300_000, 21_000, 240_003, 140_001];
    let eight = n - small + 4 * small + 4 * runs.iter().map(|n: &usize| n.div_ceil(256)).sum::<usize>();
    // AdamW has one run per tensor.
    let runs = [301 * 333, 256 * 300, 36_000, 300_000, 21_000, 240_003, 140_001];
    let each = n - small + 4 * small + 4 * runs.iter().map(|n: &usize| n.div_ceil(256)).sum::<usize>();
    for (kind, state, want) in [
        (Kind::AdamMini, StateFormat::Full, 4 * n + 4 * blocks),
        (Kind::AdamMini, StateFormat::Bf16, 2 * n + 4 * blocks),
        (Kind::AdamMini, StateFormat::EightBit, eight + 4 * blocks),
        (Kind::AdamW, StateFormat::Full, 8 * n),
        (Kind::AdamW, StateFormat::Bf16, 6 * n),
        (Kind::AdamW, StateFormat::EightBit, 2 * each),
    ] {
        let c = config(kind, state);
        assert_eq!(c.build::<f32>(&l).unwrap().state_bytes(), want, "{kind:?} {state:?}");
        assert_eq!(c.state_bytes(&l, 4).unwrap(), want, "{kind:?} {state:?}");
    }
    let double = config(Kind::AdamMini, StateFormat::Bf16);
    assert_eq!(double.build::<f64>(&l).unwrap().state_bytes(), 2 * n + 8 * blocks);
    assert_eq!(double.state_bytes(&l, 8).unwrap(), 2 * n + 8 * blocks);
}

#[test]
fn the_first_step_differs_from_full_state_by_nothing() {
    // Moments are rounded after their use, so that the first step cannot know the format.
    let layout = layout();
    for kind in [Kind::AdamMini, Kind::AdamW] {
        let g = random::<f32>(layout.len(), 3);
        let mut all = FORMATS.map(|state| {
            let mut p = random::<f32>(layout.len(), 2);
            config(kind, state).build::<f32>(&layout).unwrap().step(0.01, &mut p, &g);
            bits(&p)
        });
        let full = std::mem::take(&mut all[0]);
        assert!(all[1..].iter().all(|p| *p == full), "{kind:?}");
    }
}

#[test]
fn moments_stay_within_the_error_of_their_format() {
    let layout = layout();
    let mut full =
        AdamMini::<f32>::new(&layout, Partition::preset(Preset::Rhumb, &layout).unwrap(), params());
    let g = random::<f32>(layout.len(), 4);
    let mut p = random::<f32>(layout.len(), 5);
    full.step(0.01, &mut p, &g);
    let want = full.first_moments().into_owned();
    let top = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    for (state, relative, of_top) in
        [(StateFormat::Bf16, 1.0 / 128.0, 0.0), (StateFormat::EightBit, 0.0, 0.00704)]
    {
        let partition = Partition::preset(Preset::Rhumb, &layout).unwrap();
        let mut o = AdamMini::<f32>::with_format(&layout, partition, params(), state);
        o.step(0.01, &mut random::<f32>(layout.len(), 5), &g);
        assert_eq!(o.second_moments(), full.second_moments());
        let mut differ = 0;
        for (got, want) in o.first_moments().iter().zip(&want) {
            assert!((got - want).abs() <= relative * want.abs() + of_top * top, "{state:?}: {got} {want}");
            differ += usize::from(got.to_bits() != want.to_bits());
        }
        assert!(differ > layout.len() / 2, "{state:?} keeps everything?");
        assert_eq!((o.format(), full.format()), (state, StateFormat::Full));
    }
}

/// Steps until the loss ½ Σ h (x − target)² is a millionth of its start, over a condition number of 100.
fn steps_to_converge(kind: Kind, state: StateFormat) -> usize {
    let mut l = Layout::new();
    l.push("w", &[64, 128], Role::Mlp);
    let h: Vec<f64> = (0..l.len()).map(|i| 10f64.powf((i % 128) as f64 / 64.0)).collect();
    let target = random::<f32>(l.len(), 1);
    let mut x = vec![0.0_f32; l.len()];
    let mut o =
        OptimizerConfig { kind, state, beta2: 0.95, ..OptimizerConfig::default() }.build::<f32>(&l).unwrap();
    let loss = |x: &[f32]| -> f64 {
        x.iter().zip(&target).zip(&h).map(|((x, t), h)| 0.5 * h * f64::from(x - t).powi(2)).sum()
    };
    let start = loss(&x);
    for t in 0..3000_i32 {
        let g: Vec<f32> = x.iter().zip(&target).zip(&h).map(|((x, t), h)| *h as f32 * (x - t)).collect();
        o.step(0.05 * 0.995_f64.powi(t), &mut x, &g);
        if loss(&x) < 1e-6 * start {
            return t as usize;
        }
    }
    usize::MAX
}

#[test]
fn a_quadratic_converges_about_as_fast_as_with_full_state() {
    for kind in [Kind::AdamMini, Kind::AdamW] {
        let full = steps_to_converge(kind, StateFormat::Full);
        assert!(full < 3000, "{kind:?}: {full}");
        for state in [StateFormat::Bf16, StateFormat::EightBit] {
            let steps = steps_to_converge(kind, state);
            assert!(steps < full + full / 4, "{kind:?} {state:?}: {steps} steps, {full} with full state");
        }
    }
}

#[test]
fn a_parameter_whose_second_moment_is_tiny_in_its_block_does_not_jump() {
    // Without the rule that a second moment never becomes zero, one pause of the gradient would divide the first
    // moment that survives by epsilon.
    let mut l = Layout::new();
    l.push("w", &[4096, 2], Role::Mlp);
    let mut o = config(Kind::AdamW, StateFormat::EightBit).build::<f32>(&l).unwrap();
    let mut p = vec![0.0_f32; l.len()];
    let g: Vec<f32> = (0..l.len()).map(|i| if i % 2 == 0 { 1.0 } else { 1e-4 }).collect();
    o.step(1e-3, &mut p, &g);
    let before = p.clone();
    o.step(1e-3, &mut p, &vec![0.0; l.len()]);
    for (a, b) in p.iter().zip(&before) {
        assert!((a - b).abs() < 2e-3, "{b} to {a}");
    }
}

#[test]
fn converters_keep_the_format_and_the_first_moments() {
    let mut l = Layout::new();
    l.push("mlp", &[64, 128], Role::Mlp);
    for state in FORMATS {
        let decay = Partition::per_element(&l, Preset::Rhumb);
        let mut a = AdamW::<f32>::with_format(&l, &decay, params(), state);
        let mut p = random::<f32>(l.len(), 3);
        a.step(0.01, &mut p, &random(l.len(), 4));
        let partition = Partition::preset(Preset::Rhumb, &l).unwrap();
        let mini = AdamMini::from_adamw(&a, partition).unwrap();
        let back = mini.to_adamw();
        assert_eq!((mini.format(), back.format()), (state, state));
        let (m, n) = (a.first_moments(), mini.first_moments());
        // A block of eight-bit numbers whose largest is negative is scaled anew.
        let tolerance = if state == StateFormat::EightBit { 0.01 } else { 0.0 };
        let top = m.iter().fold(0.0_f32, |t, x| t.max(x.abs()));
        assert!(m.iter().zip(n.iter()).all(|(a, b)| (a - b).abs() <= tolerance * top), "{state:?}");
    }
}

#[test]
fn a_format_is_named_in_the_settings_and_refused_where_a_kind_has_none() {
    for (text, want) in
        [("f32", StateFormat::Full), ("bf16", StateFormat::Bf16), ("8bit", StateFormat::EightBit)]
    {
        let c: OptimizerConfig = serde_json::from_str(&format!(r#"{{"state": "{text}"}}"#)).unwrap();
        assert_eq!((c.state, c.state.tag()), (want, text));
        c.validate().unwrap();
    }
    let e = serde_json::from_str::<OptimizerConfig>(r#"{"state": "fp8"}"#).unwrap_err().to_string();
    assert!(e.contains("bf16") && e.contains("8bit"), "{e}");
    for kind in ["sgd", "lion", "adafactor", "muon", "slim-adam"] {
        let text = format!(r#"{{"kind": "{kind}", "state": "8bit"}}"#);
        let e = serde_json::from_str::<OptimizerConfig>(&text).unwrap().validate().unwrap_err().to_string();
        assert!(e.contains("state = 8bit") && e.contains("adam-mini and adamw"), "{e}");
    }
}
