//! Integration tests of the compute core and the models.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    clippy::print_stderr,
    reason = "tests; a skipped one must be seen"
)]

mod conformance;
mod curvature;
mod encoder;
mod gem;
mod mlp;
mod parity;
mod tape;
mod vision;
