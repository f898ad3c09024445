//! Fine-tuning of language models: the GEM loss family, conversations, packing, evaluation.

pub mod data;
