//! Integration tests of fine-tuning.
#![allow(clippy::unwrap_used, reason = "tests")]

mod curve;
mod data;
