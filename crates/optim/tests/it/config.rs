//! Settings in, optimizers or clear refusals out.

use rhumb_core::Role;
use rhumb_optim::{Kind, OptimizerConfig, Preset};

use crate::one;

fn parse(text: &str) -> Result<OptimizerConfig, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[test]
fn settings_parse_by_name_and_defaults_fill_the_rest() {
    let c = parse(r#"{"kind": "adam-mini", "preset": "1.1.1", "beta2": 0.95}"#).unwrap();
    assert_eq!((c.kind, c.preset), (Kind::AdamMini, Preset::V1_1_1));
    assert_eq!(c, OptimizerConfig { preset: Preset::V1_1_1, beta2: 0.95, ..OptimizerConfig::default() });
    for kind in ["adamw", "adam-mini", "sgd", "lion", "adafactor", "muon", "slim-adam"] {
        let c = parse(&format!(r#"{{"kind": "{kind}"}}"#)).unwrap();
        assert_eq!(c.build::<f32>(&one("w", &[2, 2], Role::Mlp)).unwrap().name(), kind);
    }
}

#[test]
fn unknown_keys_and_kinds_are_refused() {
    assert!(parse(r#"{"betas": [0.9, 0.95]}"#).unwrap_err().contains("betas"));
    assert!(parse(r#"{"kind": "shampoo"}"#).unwrap_err().contains("adam-mini"));
    assert!(parse(r#"{"kind": "muon", "muon": {"heads": 3}}"#).unwrap_err().contains("per_head"));
    assert!(
        parse(r#"{"kind": "muon", "muon": {"adjust_lr": "none"}}"#).unwrap_err().contains("match_rms_adamw")
    );
    assert!(parse(r#"{"preset": "9.9"}"#).unwrap_err().contains("1.1.1"));
}

#[test]
fn values_out_of_range_are_refused_with_key_value_and_remedy() {
    for (text, key) in [
        (r#"{"lr": -1.0}"#, "lr = -1"),
        (r#"{"beta1": 1.0}"#, "beta1 = 1"),
        (r#"{"beta2": -0.1}"#, "beta2"),
        (r#"{"eps": 0.0}"#, "eps = 0"),
        (r#"{"weight_decay": -0.1}"#, "weight_decay"),
        (r#"{"kind": "adamw", "momentum": 0.9}"#, "belong to sgd"),
        (r#"{"kind": "adamw", "lion": {}}"#, "kind = \"lion\""),
        (r#"{"kind": "sgd", "muon": {}}"#, "kind = \"muon\""),
        (r#"{"kind": "lion", "adafactor": {}}"#, "kind = \"adafactor\""),
        (r#"{"kind": "muon", "slim_adam": {}}"#, "kind = \"slim-adam\""),
        (r#"{"kind": "lion", "beta2": 0.9}"#, "beta2 = 0.9: belongs to the Adam family"),
        (r#"{"kind": "adafactor", "eps": 1e-6}"#, "eps"),
        (r#"{"kind": "muon", "momentum": 0.9}"#, "table of its own"),
        (r#"{"kind": "lion", "lion": {"beta1": 1.0}}"#, "lion.beta1 = 1"),
        (r#"{"kind": "adafactor", "adafactor": {"beta1": -0.1}}"#, "adafactor.beta1"),
        (r#"{"kind": "adafactor", "adafactor": {"beta2_decay": 0.8}}"#, "adafactor.beta2_decay = 0.8"),
        (r#"{"kind": "adafactor", "adafactor": {"eps1": -1.0}}"#, "adafactor.eps1"),
        (r#"{"kind": "adafactor", "adafactor": {"eps2": -1.0}}"#, "adafactor.eps2"),
        (r#"{"kind": "adafactor", "adafactor": {"clip_threshold": 0.0}}"#, "adafactor.clip_threshold = 0"),
        (r#"{"kind": "muon", "muon": {"momentum": 1.0}}"#, "muon.momentum = 1"),
        (r#"{"kind": "muon", "muon": {"ns_steps": 0}}"#, "muon.ns_steps = 0"),
        (r#"{"kind": "muon", "muon": {"eps": 0.0}}"#, "muon.eps = 0"),
        (r#"{"kind": "muon", "muon": {"adamw_lr_ratio": -1.0}}"#, "muon.adamw_lr_ratio"),
        (r#"{"kind": "muon", "beta1": 2.0}"#, "beta1 = 2"),
        (r#"{"kind": "slim-adam", "slim_adam": {"cutoff": -1.0}}"#, "slim_adam.cutoff"),
        (r#"{"kind": "sgd", "nesterov": true}"#, "momentum"),
        (r#"{"kind": "sgd", "momentum": 1.5}"#, "momentum = 1.5"),
    ] {
        let e = parse(text).unwrap().validate().unwrap_err().to_string();
        assert!(e.contains(key), "{text}: {e}");
    }
    let nan = OptimizerConfig { lr: f64::NAN, ..OptimizerConfig::default() };
    assert!(nan.validate().unwrap_err().to_string().contains("NaN"));
}

#[test]
fn decay_everywhere_reaches_norms() {
    let layout = one("norm", &[2], Role::Norm);
    for (decay_everywhere, want) in [(false, 1.0), (true, 0.99)] {
        let c = OptimizerConfig { decay_everywhere, weight_decay: 0.1, ..OptimizerConfig::default() };
        let mut p = [1.0, 1.0];
        c.build::<f64>(&layout).unwrap().step(0.1, &mut p, &[0.0, 0.0]);
        assert!((p[0] - want).abs() < 1e-12, "{p:?}");
    }
}

#[test]
fn the_schema_lists_every_key() {
    let schema = serde_json::to_string(&schemars::schema_for!(OptimizerConfig)).unwrap();
    for key in ["kind", "lr", "beta1", "eps", "weight_decay", "nesterov", "preset", "adam-mini", "1.1.1"] {
        assert!(schema.contains(&format!("\"{key}\"")), "{key}");
    }
}

#[test]
fn words_sizes_and_strictness_of_the_name_presets_come_from_settings() {
    let c = parse(r#"{"preset": "1.1.1", "names": {"strict": true, "keywords": {"value": []}}}"#).unwrap();
    assert_eq!(c.partition(&one("v_proj", &[4, 6], Role::Other)).unwrap().blocks(), 1);
    let e = c.build::<f32>(&one("wpe", &[4, 6], Role::Other)).err().unwrap().to_string();
    assert!(e.contains("wpe") && e.contains("position table"), "{e}");
    let c = parse(r#"{"preset": "v0", "names": {"heads": 2, "dim": 4}}"#).unwrap();
    assert_eq!(c.partition(&one("attn.qkv.weight", &[12, 4], Role::Other)).unwrap().blocks(), 6);
    assert_eq!(c.state_bytes(&one("attn.qkv.weight", &[12, 4], Role::Other), 4).unwrap(), 4 * (48 + 6));

    // Settings that a preset or a kind would ignore are refused.
    let e = parse(r#"{"preset": "1.0.4", "names": {"keywords": {"value": []}}}"#).unwrap().validate();
    assert!(e.unwrap_err().to_string().contains("keywords.value"));
    let e = parse(r#"{"kind": "adamw", "names": {"strict": true}}"#).unwrap().validate();
    assert!(e.unwrap_err().to_string().contains("adam-mini"));
    assert!(parse(r#"{"names": {"lenient": true}}"#).unwrap_err().contains("strict"));
    // Defaults leave no trace in a manifest.
    assert!(!serde_json::to_string(&OptimizerConfig::default()).unwrap().contains("names"));
}
