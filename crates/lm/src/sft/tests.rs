#![allow(clippy::unwrap_used, reason = "tests")]

use rhumb_core::{Budget, CheckpointPlan, Manifest, RunControl, Streams};
use rhumb_linalg::rng::Rng;
use rhumb_nn::loss::{LOSSES, LossKind};
use rhumb_nn::model::{DecoderConfig, LoraConfig, init};
use rhumb_optim::{Kind, OptimizerConfig, ScheduleConfig};

use super::*;

fn decoder() -> DecoderConfig {
    DecoderConfig::from_json(&serde_json::json!({
        "model_type": "llama", "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true
    }))
    .unwrap()
}

fn examples(n: usize, seed: u64) -> Vec<Example> {
    let mut rng = Rng::new(seed);
    (0..n)
        .map(|line| {
            let len = 5 + rng.below(9);
            let first = rng.below(20) as u32;
            let ids: Vec<u32> = (0..len as u32).map(|i| (first + 2 * i) % 23).collect();
            Example { live: (0..len).map(|i| i > 1).collect(), ids, line: line + 1 }
        })
        .collect()
}

fn config(kind: Kind) -> SftConfig {
    SftConfig {
        steps: 12,
        batch: 2,
        accumulate: 1,
        tokens: 24,
        optimizer: OptimizerConfig { kind, lr: 1e-2, beta2: 0.95, ..OptimizerConfig::default() },
        schedule: ScheduleConfig { warmup_steps: 2, ..ScheduleConfig::default() },
        loss: LossKind::GemLinear { beta: 0.7 },
        clip_norm: None,
        recompute: false,
        update_in_backward: false,
        eval_every: 4,
        seed: 5,
    }
}

fn full(config: SftConfig) -> Sft {
    let model = Decoder::new(decoder()).unwrap();
    let params = init(model.layout(), 2, 0.05, 1);
    Sft::new(config, model, params, Arc::new(Vec::new()), examples(40, 3), &examples(8, 4)).unwrap()
}

fn drive(sft: &mut Sft, steps: u64, plan: Option<&CheckpointPlan>, resume: bool) {
    let manifest = Manifest {
        name: "test".into(),
        config: serde_json::Value::Null,
        seeds: vec![1],
        versions: std::collections::BTreeMap::default(),
        machine: rhumb_core::Machine::here(1),
        started_unix_s: None,
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let clock = || 0.0;
    let control = RunControl { manifest: &manifest, clock: &clock, stop: &stop, checkpoint: plan, resume };
    rhumb_core::run(sft, &Budget::steps(steps), &mut Streams::new(1), &mut [], &control).unwrap();
}

#[test]
fn training_lowers_the_held_out_surrogate_with_every_optimizer() {
    for (kind, lr) in [(Kind::AdamMini, 1e-2), (Kind::AdamW, 1e-2), (Kind::Sgd, 0.5)] {
        let mut settings = config(kind);
        settings.optimizer.lr = lr;
        let mut sft = full(settings);
        let before = sft.evaluate().unwrap().unwrap().summary().unwrap();
        drive(&mut sft, 12, None, false);
        let after = sft.evaluate().unwrap().unwrap().summary().unwrap();
        assert!(after.surrogate < before.surrogate - 0.2, "{kind:?}: {before:?} {after:?}");
    }
}

#[test]
fn updates_during_the_backward_pass_give_the_same_bits() {
    let mut a = full(config(Kind::AdamMini));
    let mut b = full(SftConfig { update_in_backward: true, ..config(Kind::AdamMini) });
    drive(&mut a, 6, None, false);
    drive(&mut b, 6, None, false);
    assert_eq!(a.params(), b.params());
    assert!(b.memory().gradients == 0 && a.memory().gradients > 0);
}

#[test]
fn a_gradient_that_is_not_finite_stops_the_step_that_has_it_and_names_a_tensor() {
    for update_in_backward in [false, true] {
        let mut settings = SftConfig { update_in_backward, ..config(Kind::Sgd) };
        settings.optimizer.lr = 1e30;
        settings.schedule.warmup_steps = 0;
        let mut sft = full(settings);
        let mut streams = Streams::new(1);
        let mut one = |k| {
            let mut record = rhumb_core::Record::default();
            let mut evals = rhumb_core::Counts::default();
            sft.step(&mut Step { k, streams: &mut streams, record: &mut record, evals: &mut evals })
        };
        one(0).unwrap();
        let error = one(1).unwrap_err();
        assert!(
            matches!(&error, EvalError::NonFinite { what: "gradient", block: Some(_) }),
            "{update_in_backward}: {error:?}"
        );
    }
}

#[test]
fn accumulation_weighs_every_trained_token_alike() {
    let one = SftConfig { batch: 4, ..config(Kind::AdamW) };
    let four = SftConfig { batch: 1, accumulate: 4, ..one.clone() };
    let (mut a, mut b) = (full(one), full(four));
    drive(&mut a, 5, None, false);
    drive(&mut b, 5, None, false);
    for (x, y) in a.params().iter().zip(b.params()) {
        assert!((x - y).abs() < 2e-4, "{x} {y}");
    }
}

#[test]
fn every_loss_trains_and_tells_the_same_sums() {
    for loss in LOSSES {
        let mut sft = full(SftConfig { loss: loss.kind(None).unwrap(), ..config(Kind::AdamMini) });
        let before = sft.evaluate().unwrap().unwrap().summary().unwrap();
        let mut record = rhumb_core::Record::default();
        let (mut streams, mut evals) = (Streams::new(1), rhumb_core::Counts::default());
        for k in 0..12 {
            record = rhumb_core::Record::default();
            sft.step(&mut Step { k, streams: &mut streams, record: &mut record, evals: &mut evals }).unwrap();
        }
        for name in ["loss", "ce", "entropy", "accuracy", "tokens", "eval_ce", "eval_ppl", "eval_entropy"] {
            assert!(record.get(name).is_some_and(f64::is_finite), "{} {name}", loss.name);
        }
        let after = sft.evaluate().unwrap().unwrap().summary().unwrap();
        assert_eq!(record.get("eval_ppl"), Some(after.ce.exp()));
        assert!(after.surrogate < before.surrogate, "{}: {before:?} {after:?}", loss.name);
    }
}

/// Noise large enough to be told from rounding.
const NEFT: LossKind = LossKind::Neft { alpha: 2.0 };

#[test]
fn noise_on_embeddings_moves_training_by_the_seed_and_leaves_evaluation_alone() {
    let run = |loss, seed| {
        let mut sft = full(SftConfig { loss, seed, ..config(Kind::AdamW) });
        let start = sft.evaluate().unwrap().unwrap();
        drive(&mut sft, 3, None, false);
        assert_eq!(sft.evaluate().unwrap(), sft.evaluate().unwrap());
        (start, sft.params().to_vec())
    };
    let ((plain, ce), (same, neft)) = (run(LossKind::Ce, 5), run(NEFT, 5));
    assert_eq!(plain, same);
    assert_ne!(ce, neft);
    assert_eq!(neft, run(NEFT, 5).1);
    assert_ne!(neft, run(NEFT, 6).1);
    assert_eq!(ce, run(LossKind::Neft { alpha: 0.0 }, 5).1);
}

#[test]
fn noise_does_not_depend_on_the_cut_into_micro_batches() {
    let one = SftConfig { loss: NEFT, batch: 4, ..config(Kind::AdamW) };
    let four = SftConfig { batch: 1, accumulate: 4, ..one.clone() };
    let streamed = SftConfig { update_in_backward: true, ..one.clone() };
    let (mut a, mut b, mut c) = (full(one), full(four), full(streamed));
    drive(&mut a, 5, None, false);
    drive(&mut b, 5, None, false);
    drive(&mut c, 5, None, false);
    let worst = a.params().iter().zip(b.params()).fold(0f32, |m, (x, y)| m.max((x - y).abs()));
    assert!(worst < 2e-4, "{worst}");
    assert_eq!(a.params(), c.params());
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_an_undisturbed_one() {
    let dir = tempfile::tempdir().unwrap();
    let plan = CheckpointPlan { path: dir.path().join("state.bin"), every_steps: Some(3), every_s: None };
    let config = || SftConfig { loss: NEFT, ..config(Kind::AdamMini) };
    let mut whole = full(config());
    drive(&mut whole, 12, None, false);
    let mut first = full(config());
    drive(&mut first, 7, Some(&plan), false);
    let mut second = full(config());
    drive(&mut second, 12, Some(&plan), true);
    assert_eq!(whole.params(), second.params());
    assert_eq!(whole.best(), second.best());
}

#[test]
fn adapters_start_as_nothing_and_merge_into_the_same_losses() {
    let lora = LoraConfig { rank: 3, alpha: 6.0, ..LoraConfig::default() };
    let base = Decoder::new(decoder()).unwrap();
    let frozen: Vec<f32> = init(base.layout(), 2, 0.05, 1);
    let model = Decoder::with_lora(decoder(), &lora).unwrap();
    let params = init(model.layout(), 2, 0.05, 2);
    let held = examples(8, 4);
    let mut sft = Sft::new(
        config(Kind::AdamMini),
        model.clone(),
        params,
        Arc::new(frozen.clone()),
        examples(40, 3),
        &held,
    )
    .unwrap();
    let plain = HeldOut::new(&held, 24, LossKind::Ce).unwrap();
    let start = plain.score(&base, &frozen, &[]).unwrap().summary().unwrap();
    assert!((sft.evaluate().unwrap().unwrap().summary().unwrap().ce - start.ce).abs() < 1e-12);
    drive(&mut sft, 12, None, false);
    let adapted = sft.evaluate().unwrap().unwrap().summary().unwrap();
    let merged = model.merge(&frozen, sft.params());
    let folded = plain.score(&base, &merged, &[]).unwrap().summary().unwrap();
    assert!(adapted.ce < start.ce - 0.05, "{} {}", adapted.ce, start.ce);
    assert!((adapted.ce - folded.ce).abs() < 1e-5, "{} {}", adapted.ce, folded.ce);
}

#[test]
fn settings_that_exclude_each_other_are_refused_with_the_reason() {
    let refuse = |c: SftConfig| c.check().unwrap_err().to_string();
    let base = SftConfig { update_in_backward: true, ..config(Kind::AdamMini) };
    assert!(
        refuse(SftConfig { clip_norm: Some(1.0), ..base.clone() }).contains("the norm is known only when")
    );
    assert!(refuse(SftConfig { accumulate: 2, ..base }).contains("accumulation"));
    assert!(
        refuse(SftConfig { loss: LossKind::GemLinear { beta: 0.0 }, ..config(Kind::Sgd) }).contains("beta")
    );
}
