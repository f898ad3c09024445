//! Optimizer state of the published decoders, counted by the allocator and not by the formula.
//!
//! The allocator counts every call in every thread, so tests take turns.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; the measured bytes must be seen")]

#[path = "it/partition/models.rs"]
#[allow(dead_code, reason = "savings of 1.0.4 are tested elsewhere")]
mod models;

use std::alloc::System;
use std::sync::{Mutex, PoisonError};

use rhumb_core::{Layout, Optimizer};
use rhumb_optim::{AdamMini, AdamParams, AdamW, Partition, Preset};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use models::{MODELS, Model};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static TURN: Mutex<()> = Mutex::new(());

/// State that fits most machines beside a build.
const BUDGET: usize = 2_000_000_000;

/// What `f` builds, and the bytes that it still holds.
fn held<R>(f: impl FnOnce() -> R) -> (R, usize) {
    let region = Region::new(ALLOCATOR);
    let built = f();
    let s = region.change();
    (built, s.bytes_allocated - s.bytes_deallocated)
}

/// Builds one optimizer in `f32` and checks the bytes that it holds besides its copy of the layout.
fn check(m: &Model, layout: &Layout, want: usize, build: impl FnOnce() -> Box<dyn Optimizer<f32>>) {
    let (copy, names) = held(|| layout.clone());
    drop(copy);
    let (o, bytes) = held(build);
    assert_eq!(o.state_bytes(), want, "{}", m.name);
    let state = bytes - names;
    // Where each tensor's state begins, and the optimizer itself.
    let bookkeeping = 512 + 256 * layout.blocks().len();
    eprintln!("{} {}: {state} bytes held, {want} by the formula", m.name, o.name());
    assert!(state >= want && state - want <= bookkeeping, "{} {}: {state} for {want}", m.name, o.name());
}

fn measure(m: &Model, budget: usize) {
    let layout = m.layout();
    let params = AdamParams::new(0.9, 0.95, 1e-8, 0.1).unwrap();
    let partition = Partition::preset(Preset::V1_1_1, &layout).unwrap();
    let (adamw, mini) = (8 * m.parameters, 4 * (m.parameters + m.blocks));
    if adamw <= budget {
        check(m, &layout, adamw, || Box::new(AdamW::new(&layout, &partition, params)));
    }
    if mini <= budget {
        check(m, &layout, mini, || Box::new(AdamMini::new(&layout, partition, params)));
    }
}

#[test]
fn published_decoders_up_to_two_gigabytes_of_state_hold_what_the_formula_says() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    MODELS.iter().for_each(|m| measure(m, BUDGET));
}

#[test]
#[ignore = "holds 8.5 GB"]
fn a_llama_of_a_billion_parameters_holds_what_the_formula_says() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let m = MODELS.iter().find(|m| m.name == "Llama2-1B").unwrap();
    measure(m, usize::MAX);
}
