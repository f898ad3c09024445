//! What the quick start trains on.

pub mod corpus;
pub mod study;
