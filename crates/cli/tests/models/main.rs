//! The commands on models as a user runs them: arguments in, text, JSON and exit codes out.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; a skipped one must be seen")]

mod commands;
mod eval;
mod eval_real;
mod fixture;
mod folders;
mod formats;
mod humaneval;
mod kill;
mod limits;
mod numbers;
mod optimizers;
mod packed;
mod pretrain;
mod real;
mod refusals;
mod spectrum;
mod study;
mod talk;
mod train;
