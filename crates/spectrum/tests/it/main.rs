//! Integration tests of block spectra.
#![allow(clippy::unwrap_used, reason = "tests")]

mod peers;
