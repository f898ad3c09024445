//! Integration tests of the core.
#![allow(clippy::unwrap_used, reason = "tests")]

mod kill;
