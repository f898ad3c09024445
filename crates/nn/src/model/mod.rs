//! Models: one definition each for training, generation and second derivatives.

mod cache;

pub use cache::KvCache;
