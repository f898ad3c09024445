//! Fine-tuning of language models: the GEM loss family, conversations, packing, evaluation.

pub mod data;
pub mod gem;
pub mod metrics;
pub mod pretrain;
pub mod quickstart;
pub mod sft;
