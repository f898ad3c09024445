//! Parameter groups: who is in one, what is different there, and what happens to saved state.

use std::path::Path;

use rhumb_core::{Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::rng::Rng;
use rhumb_optim::{GroupConfig, Kind, OptimizerConfig, Preset, StateFormat};

fn layout() -> Layout {
    let mut l = Layout::new();
    l.push("wte", &[5, 4], Role::Embed);
    l.push("h.0.q", &[4, 4], Role::Query { head_dim: 2 });
    l.push("h.0.mlp", &[6, 4], Role::Mlp);
    l.push("h.1.mlp", &[6, 4], Role::Mlp);
    l.push("h.1.norm", &[4], Role::Norm);
    l
}

fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| r.normal()).collect()
}

fn config(kind: Kind, groups: Vec<GroupConfig>) -> OptimizerConfig {
    OptimizerConfig { kind, weight_decay: 0.1, groups, ..OptimizerConfig::default() }
}

fn names(names: &[&str]) -> GroupConfig {
    GroupConfig { names: names.iter().map(|n| (*n).to_owned()).collect(), ..GroupConfig::default() }
}

fn roles(roles: &[&str]) -> GroupConfig {
    GroupConfig { roles: roles.iter().map(|n| (*n).to_owned()).collect(), ..GroupConfig::default() }
}

fn run(config: &OptimizerConfig, layout: &Layout) -> Vec<f64> {
    let mut o = config.build::<f64>(layout).unwrap();
    let mut p = random(layout.len(), 1);
    for t in 0..5 {
        o.step(0.01, &mut p, &random(layout.len(), 10 + t));
    }
    assert_eq!(o.state_bytes(), config.state_bytes(layout, 8).unwrap());
    p
}

const KINDS: [Kind; 7] =
    [Kind::AdamMini, Kind::AdamW, Kind::Sgd, Kind::Lion, Kind::Adafactor, Kind::Muon, Kind::SlimAdam];

#[test]
fn groups_without_differences_change_nothing() {
    let l = layout();
    for kind in KINDS {
        let grouped = config(kind, vec![names(&["h.?.mlp"]), roles(&["norm"])]);
        assert_eq!(run(&grouped, &l), run(&config(kind, vec![]), &l), "{kind:?}");
    }
}

#[test]
fn each_group_equals_a_run_with_its_settings_for_all() {
    let l = layout();
    for kind in KINDS {
        let groups = vec![
            GroupConfig { lr_ratio: 0.5, ..names(&["wte"]) },
            GroupConfig { weight_decay: Some(0.4), ..roles(&["mlp", "norm"]) },
        ];
        let mixed = run(&config(kind, groups), &l);
        let half = {
            let mut o = config(kind, vec![]).build::<f64>(&l).unwrap();
            let mut p = random(l.len(), 1);
            for t in 0..5 {
                o.step(0.005, &mut p, &random(l.len(), 10 + t));
            }
            p
        };
        let decayed =
            run(&OptimizerConfig { weight_decay: 0.4, decay_everywhere: true, ..config(kind, vec![]) }, &l);
        let plain = run(&config(kind, vec![]), &l);
        for (block, want) in l.blocks().iter().zip([&half, &plain, &decayed, &decayed, &decayed]) {
            assert_eq!(mixed[block.range.clone()], want[block.range.clone()], "{kind:?} {}", block.name);
        }
    }
}

#[test]
fn frozen_tensors_stay_and_cost_nothing() {
    let l = layout();
    for kind in KINDS {
        let frozen = config(kind, vec![GroupConfig { frozen: true, ..names(&["h.1.*", "wte"]) }]);
        let p = run(&frozen, &l);
        let start = random(l.len(), 1);
        for b in l.blocks() {
            assert_eq!(
                p[b.range.clone()] == start[b.range.clone()],
                b.name != "h.0.q" && b.name != "h.0.mlp"
            );
        }
        let mut left = Layout::new();
        for b in &l.blocks()[1..3] {
            left.push(b.name.clone(), &b.shape, b.role);
        }
        assert_eq!(frozen.state_bytes(&l, 4).unwrap(), config(kind, vec![]).state_bytes(&left, 4).unwrap());
    }
    let all = config(Kind::AdamW, vec![GroupConfig { frozen: true, ..names(&["*"]) }]);
    let mut o = all.build::<f64>(&l).unwrap();
    let mut p = random(l.len(), 1);
    o.step(0.1, &mut p, &random(l.len(), 2));
    assert_eq!((p, o.state_bytes(), o.name()), (random(l.len(), 1), 0, "adamw"));
}

#[test]
fn the_first_group_that_matches_holds_a_tensor() {
    let l = layout();
    let groups = vec![
        GroupConfig { frozen: true, ..names(&["h.0.*"]) },
        GroupConfig { lr_ratio: 0.0, ..roles(&["mlp"]) },
    ];
    let c = OptimizerConfig { weight_decay: 0.0, ..config(Kind::AdamW, groups) };
    assert_eq!(c.state_bytes(&l, 4).unwrap(), 8 * (20 + 24 + 4));
}

#[test]
fn mistakes_are_refused_with_what_to_write() {
    let l = layout();
    for (group, word) in [
        (GroupConfig::default(), "without names and roles"),
        (names(&["h.9.*"]), "h.9.*"),
        (roles(&["mpl"]), "mpl"),
        (GroupConfig { lr_ratio: -1.0, ..names(&["*"]) }, "groups.lr_ratio = -1"),
        (GroupConfig { weight_decay: Some(f64::NAN), ..names(&["*"]) }, "groups.weight_decay = NaN"),
    ] {
        let e = config(Kind::AdamW, vec![group]).build::<f32>(&l).err().unwrap().to_string();
        assert!(e.contains(word), "{e}");
    }
    let shadowed = vec![names(&["h.*"]), roles(&["mlp"])];
    assert!(config(Kind::Sgd, shadowed).build::<f32>(&l).err().unwrap().to_string().contains("before wider"));
    let e =
        serde_json::from_str::<OptimizerConfig>(r#"{"groups": [{"name": "x"}]}"#).unwrap_err().to_string();
    assert!(e.contains("`name`"), "{e}");
}

fn save(o: &dyn Optimizer<f64>) -> StateReader {
    let mut bytes = Vec::new();
    let mut w = StateWriter::new(&mut bytes, Path::new("memory")).unwrap();
    o.save(&mut w).unwrap();
    w.finish().unwrap();
    StateReader::from_bytes(bytes, Path::new("memory")).unwrap()
}

#[test]
fn grouped_state_resumes_bit_for_bit_and_other_groups_are_refused() {
    let l = layout();
    let with = |kind| config(kind, vec![GroupConfig { lr_ratio: 0.5, ..roles(&["mlp"]) }]);
    for kind in KINDS {
        let mut a = with(kind).build::<f64>(&l).unwrap();
        let mut p = random(l.len(), 1);
        (0..3).for_each(|t| a.step(0.01, &mut p, &random(l.len(), 10 + t)));
        let mut b = with(kind).build::<f64>(&l).unwrap();
        b.load(&mut save(&*a)).unwrap();
        let mut q = p.clone();
        for t in 3..6 {
            a.step(0.01, &mut p, &random(l.len(), 10 + t));
            b.step(0.01, &mut q, &random(l.len(), 10 + t));
        }
        assert_eq!(p, q, "{kind:?}");
        let other = config(kind, vec![roles(&["norm"])]);
        let e = other.build::<f64>(&l).unwrap().load(&mut save(&*a)).unwrap_err().to_string();
        assert!(e.contains("other parameter groups"), "{e}");
        let plain = config(kind, vec![]).build::<f64>(&l).unwrap();
        let e = b.load(&mut save(&*plain)).unwrap_err().to_string();
        assert!(e.contains("no parameter groups"), "{e}");
    }
}

#[test]
fn a_group_may_have_another_optimizer() {
    let l = layout();
    for kind in KINDS {
        let group = GroupConfig { kind: Some(Kind::Sgd), momentum: Some(0.9), ..names(&["h.?.mlp"]) };
        let mixed = run(&config(kind, vec![group]), &l);
        // The decay of the run is decoupled; SGD's own is another one.
        let weight_decay = if kind == Kind::Sgd { 0.1 } else { 0.0 };
        let sgd = OptimizerConfig { momentum: 0.9, weight_decay, ..config(Kind::Sgd, vec![]) };
        let sgd = run(&sgd, &l);
        let plain = run(&config(kind, vec![]), &l);
        for (block, want) in l.blocks().iter().zip([&plain, &plain, &sgd, &sgd, &plain]) {
            assert_eq!(mixed[block.range.clone()], want[block.range.clone()], "{kind:?} {}", block.name);
        }
        if kind != Kind::Sgd {
            assert_ne!(mixed, plain, "{kind:?}");
        }
    }
}

#[test]
fn settings_of_the_run_that_the_group_s_optimizer_does_not_have_stay_outside() {
    let l = layout();
    let base = OptimizerConfig { beta2: 0.95, state: StateFormat::Bf16, ..config(Kind::AdamMini, vec![]) };
    for kind in KINDS {
        let group = GroupConfig { kind: Some(kind), ..roles(&["embed"]) };
        let grouped = OptimizerConfig { groups: vec![group], ..base.clone() };
        let mut o = grouped.build::<f64>(&l).unwrap();
        o.step(0.01, &mut random(l.len(), 1), &random(l.len(), 2));
        assert_eq!(o.state_bytes(), grouped.state_bytes(&l, 8).unwrap(), "{kind:?}");
    }
    let momentum = GroupConfig { momentum: Some(0.9), ..roles(&["embed"]) };
    let error = config(Kind::AdamW, vec![momentum]).validate().unwrap_err().to_string();
    assert!(error.contains("momentum"), "{error}");
    let frozen = GroupConfig { frozen: true, lr_ratio: 0.5, ..roles(&["embed"]) };
    let error = config(Kind::AdamW, vec![frozen]).validate().unwrap_err().to_string();
    assert!(error.contains("never updated"), "{error}");
    let wrong = GroupConfig { kind: Some(Kind::Sgd), momentum: Some(1.5), ..roles(&["embed"]) };
    assert!(config(Kind::AdamW, vec![wrong]).validate().is_err());
}

#[test]
fn a_group_leaves_the_sizes_of_the_model_to_presets_by_name() {
    // Heads of 4 rows in a model of width 8: dim / heads would be 2.
    let mut l = Layout::new();
    l.push("embed.weight", &[10, 8], Role::Embed);
    l.push("layers.0.q_proj.weight", &[16, 8], Role::Query { head_dim: 4 });
    l.push("layers.0.k_proj.weight", &[8, 8], Role::Key { head_dim: 4 });
    l.push("layers.0.mlp.up_proj.weight", &[12, 8], Role::Mlp);
    for preset in [Preset::Rhumb, Preset::V0, Preset::V1_0_4, Preset::V1_1_0, Preset::V1_1_1] {
        let plain = OptimizerConfig { preset, ..config(Kind::AdamMini, vec![]) };
        let groups = vec![roles(&["key"]), names(&["*up_proj*"])];
        let grouped = OptimizerConfig { groups, ..plain.clone() };
        assert_eq!(run(&grouped, &l), run(&plain, &l), "{preset:?}");
        let bytes = |c: &OptimizerConfig| c.state_bytes(&l, 8).unwrap();
        assert_eq!(bytes(&grouped), bytes(&plain), "{preset:?}");
    }
}

#[test]
fn a_seed_chooses_the_roundings_of_bf16_and_nothing_else() {
    let l = layout();
    let of = |state, seed| run_f32(&OptimizerConfig { state, seed, ..config(Kind::AdamMini, vec![]) }, &l);
    assert_eq!(of(StateFormat::Full, 1), of(StateFormat::Full, 2));
    assert_eq!(of(StateFormat::Bf16, 1), of(StateFormat::Bf16, 1));
    assert_ne!(of(StateFormat::Bf16, 1), of(StateFormat::Bf16, 2));
}

fn run_f32(config: &OptimizerConfig, layout: &Layout) -> Vec<f32> {
    let single = |v: Vec<f64>| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let mut o = config.build::<f32>(layout).unwrap();
    let mut p = single(random(layout.len(), 1));
    for t in 0..5 {
        o.step(0.01, &mut p, &single(random(layout.len(), 10 + t)));
    }
    p
}

#[test]
fn state_of_groups_with_other_optimizers_resumes_and_is_not_taken_for_another() {
    let l = layout();
    let of = |kind| {
        let group = GroupConfig { kind: Some(kind), ..names(&["h.?.mlp"]) };
        config(Kind::AdamW, vec![group]).build::<f64>(&l).unwrap()
    };
    let (mut whole, mut p) = (of(Kind::Lion), random(l.len(), 1));
    let mut saved = Vec::new();
    let mut at = Vec::new();
    for t in 0..6 {
        if t == 3 {
            let mut out = StateWriter::new(&mut saved, Path::new("memory")).unwrap();
            whole.save(&mut out).unwrap();
            out.finish().unwrap();
            at.clone_from(&p);
        }
        whole.step(0.01, &mut p, &random(l.len(), 10 + t));
    }
    let read = || StateReader::from_bytes(saved.clone(), Path::new("memory")).unwrap();
    let mut again = of(Kind::Lion);
    again.load(&mut read()).unwrap();
    for t in 3..6 {
        again.step(0.01, &mut at, &random(l.len(), 10 + t));
    }
    assert_eq!(at, p);
    let error = of(Kind::Adafactor).load(&mut read()).unwrap_err().to_string();
    assert!(error.contains("other parameter groups"), "{error}");
}
