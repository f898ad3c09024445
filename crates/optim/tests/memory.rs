//! Bytes of state by a counting allocator, against the formula, and the table of both in the documentation.
//!
//! The allocator counts every call in every thread, so there is one test and nothing beside it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::System;
use std::path::Path;

use rhumb_core::{Layout, Role};
use rhumb_optim::{Kind, OptimizerConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A Llama of four layers with eight heads and four key-value heads.
fn llama(vocab: usize, d: usize, ff: usize) -> Layout {
    let head_dim = d / 8;
    let mut l = Layout::new();
    l.push("model.embed_tokens.weight", &[vocab, d], Role::Embed);
    for i in 0..4 {
        let p = format!("model.layers.{i}");
        l.push(format!("{p}.self_attn.q_proj.weight"), &[d, d], Role::Query { head_dim });
        l.push(format!("{p}.self_attn.k_proj.weight"), &[d / 2, d], Role::Key { head_dim });
        l.push(format!("{p}.self_attn.v_proj.weight"), &[d / 2, d], Role::Value { head_dim });
        l.push(format!("{p}.self_attn.o_proj.weight"), &[d, d], Role::AttnOut);
        l.push(format!("{p}.mlp.gate_proj.weight"), &[ff, d], Role::Mlp);
        l.push(format!("{p}.mlp.up_proj.weight"), &[ff, d], Role::Mlp);
        l.push(format!("{p}.mlp.down_proj.weight"), &[d, ff], Role::Mlp);
        l.push(format!("{p}.input_layernorm.weight"), &[d], Role::Norm);
        l.push(format!("{p}.post_attention_layernorm.weight"), &[d], Role::Norm);
    }
    l.push("model.norm.weight", &[d], Role::Norm);
    l.push("lm_head.weight", &[vocab, d], Role::Head);
    l
}

/// Vocabulary, width and feed-forward width of the model in the table, and of a smaller one, whose matrices still
/// have the 4096 scalars from which eight bits are used.
const MODEL: (usize, usize, usize) = (1024, 256, 704);
const SMALL: (usize, usize, usize) = (64, 128, 160);

/// Settings, and the formula in words for a matrix `[m, n]` of P scalars.
const ROWS: &[(&str, &str)] = &[
    (r#"{"kind": "sgd"}"#, "0"),
    (r#"{"kind": "sgd", "momentum": 0.9}"#, "4 P"),
    (r#"{"kind": "lion"}"#, "4 P"),
    (r#"{"kind": "adamw"}"#, "8 P"),
    (r#"{"kind": "adamw", "state": "bf16"}"#, "2 P + 4 P"),
    (r#"{"kind": "adamw", "state": "8bit"}"#, "2 (P + 4 per 256), 8 P for tensors below 4096"),
    (r#"{"kind": "adam-mini"}"#, "4 (P + blocks)"),
    (r#"{"kind": "adam-mini", "state": "bf16"}"#, "2 P + 4 blocks"),
    (r#"{"kind": "adam-mini", "state": "8bit"}"#, "P + 4 per 256 + 4 blocks"),
    (r#"{"kind": "adam-mini", "preset": "1.1.1"}"#, "4 (P + blocks)"),
    (r#"{"kind": "slim-adam"}"#, "4 (P + m or n)"),
    (r#"{"kind": "slim-adam", "slim_adam": {"measure_steps": 5}}"#, "8 P while it measures"),
    (r#"{"kind": "adafactor"}"#, "4 (m + n)"),
    (r#"{"kind": "adafactor", "adafactor": {"beta1": 0.9}}"#, "4 (P + m + n)"),
    (r#"{"kind": "muon"}"#, "4 P hidden matrices, 8 P elsewhere"),
];

const BEGIN: &str = "<!-- written by crates/optim/tests/memory.rs -->\n";
const END: &str = "<!-- end -->\n";

/// Bytes that live after building and two steps, the parameters and gradients not counted.
fn held(config: &OptimizerConfig, size: (usize, usize, usize)) -> usize {
    let layout = llama(size.0, size.1, size.2);
    let (mut p, g) = (vec![0.1_f32; layout.len()], vec![0.01_f32; layout.len()]);
    let region = Region::new(ALLOCATOR);
    let mut o = config.build::<f32>(&layout).unwrap();
    for _ in 0..2 {
        o.step(1e-3, &mut p, &g);
    }
    let s = region.change();
    let held = s.bytes_allocated - s.bytes_deallocated;
    assert_eq!(o.state_bytes(), config.state_bytes(&layout, 4).unwrap());
    // Muon's work space for its largest matrix is no state.
    let scratch = 4 * (2 * size.1 * size.2 + 2 * size.1 * size.1);
    held - if config.kind == Kind::Muon { scratch } else { 0 }
}

#[test]
fn the_allocator_counts_what_the_formula_says_and_the_documentation_repeats_it() {
    // One thread, so that the buffers of the matrix product do not depend on who takes which piece.
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(compare);
}

fn compare() {
    let (layout, small) = (llama(MODEL.0, MODEL.1, MODEL.2), llama(SMALL.0, SMALL.1, SMALL.2));
    // The pool of threads and the buffers of the products are not the optimizers'.
    let muon = OptimizerConfig { kind: Kind::Muon, ..OptimizerConfig::default() };
    held(&muon, MODEL);
    held(&muon, SMALL);
    let mut table = format!(
        "{BEGIN}| settings | bytes of state | formula | measured | per parameter |\n|---|---|---|---|---|\n"
    );
    for (text, words) in ROWS {
        let config: OptimizerConfig = serde_json::from_str(text).unwrap();
        let formula = config.state_bytes(&layout, 4).unwrap();
        // Names, shapes and plans take the same room in a model of any size.
        let bookkeeping = held(&config, SMALL) - config.state_bytes(&small, 4).unwrap();
        let measured = held(&config, MODEL) - bookkeeping;
        assert_eq!(measured, formula, "{text}");
        let settings = text[1..text.len() - 1].replace('"', "");
        let per = formula as f64 / layout.len() as f64;
        table.push_str(&format!("| `{settings}` | {words} | {formula} | {measured} | {per:.4} |\n"));
    }
    table.push_str(END);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/optimizers.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{table}{after}");
    if std::env::var_os("RHUMB_WRITE_DOCS").is_some() {
        std::fs::write(&page, wanted).unwrap();
    } else {
        assert!(
            text == wanted,
            "docs/src/optimizers.md is stale: run this test with RHUMB_WRITE_DOCS=1\n{table}"
        );
    }
}
