//! The commands on models as a user runs them: arguments in, text, JSON and exit codes out.
#![allow(clippy::unwrap_used, reason = "tests")]

mod commands;
mod fixture;
mod real;
