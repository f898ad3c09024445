//! Integration tests of the compute core and the models.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

mod conformance;
mod gem;
mod parity;
