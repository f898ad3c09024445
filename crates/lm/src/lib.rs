//! Fine-tuning of language models: the GEM loss family, conversations, packing, evaluation.
//!
//! # Example
//! From lines of JSON to a trained model, here a tiny one over bytes. [`rhumb_core::run()`] drives the same steps with
//! checkpoints, budgets and observers.
//!
//! ```
//! use std::sync::Arc;
//!
//! use rhumb_core::{Algorithm, Counts, Record, Step, Streams};
//! use rhumb_lm::data::{ChatFormat, Rows, Split, Tokenizing, split};
//! use rhumb_lm::sft::{Sft, SftConfig};
//! use rhumb_io::template::ChatTemplate;
//! use rhumb_io::tokenizer::{Tokenizer, json_of_bytes};
//! use rhumb_nn::loss::LossKind;
//! use rhumb_nn::model::{Decoder, DecoderConfig, init};
//! use rhumb_optim::{Kind, OptimizerConfig, ScheduleConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tokenizer = Tokenizer::from_json(&json_of_bytes())?;
//! let template = ChatTemplate::new(
//!     "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' %}\
//!      {% generation %}{{ m.content }};{% endgeneration %}{% else %}{{ m.content }};{% endif %}{% endfor %}\
//!      {% if add_generation_prompt %}a:{% endif %}",
//!     None,
//!     None,
//! )?;
//! let lines: String = (0..20)
//!     .map(|i| {
//!         format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"{i}\"}}, {{\"role\": \"assistant\", \"content\": \"{i}!\"}}]}}\n")
//!     })
//!     .collect();
//!
//! let stage = Tokenizing {
//!     encoder: &tokenizer,
//!     format: Some(&template as &dyn ChatFormat),
//!     eos: None,
//!     max_len: 32,
//! };
//! let prepared = stage.run(Rows::new(lines.as_bytes(), "chat.jsonl"), "chat.jsonl")?;
//! assert!(prepared.dropped.is_empty());
//! let Split { train, held_out, .. } = split(prepared.examples, 4, 1)?;
//!
//! let model = Decoder::new(DecoderConfig::from_json(&serde_json::json!({
//!     "model_type": "llama", "vocab_size": 257, "hidden_size": 16, "num_hidden_layers": 1,
//!     "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32,
//! }))?)?;
//! let params = init(model.layout(), 1, 0.05, 1);
//! let config = SftConfig {
//!     steps: 10,
//!     batch: 2,
//!     accumulate: 1,
//!     tokens: 32,
//!     optimizer: OptimizerConfig { kind: Kind::AdamMini, lr: 1e-2, ..OptimizerConfig::default() },
//!     schedule: ScheduleConfig { warmup_steps: 1, ..ScheduleConfig::default() },
//!     loss: LossKind::GemLinear { beta: 0.7 },
//!     clip_norm: Some(1.0),
//!     recompute: false,
//!     update_in_backward: false,
//!     eval_every: 5,
//!     seed: 1,
//! };
//! // A model without adapters has no frozen parameters.
//! let mut sft = Sft::new(config, model, params, Arc::new(Vec::new()), train, &held_out)?;
//! let before = sft.evaluate()?.and_then(|s| s.summary()).map(|s| s.ce);
//! let (mut streams, mut evals) = (Streams::new(1), Counts::default());
//! for k in 0..10 {
//!     let mut record = Record::default();
//!     sft.step(&mut Step { k, streams: &mut streams, record: &mut record, evals: &mut evals })?;
//! }
//! assert!(sft.best().map(|b| b.ce) < before);
//! let trained = sft.finish();
//! assert_eq!(trained.params.len(), trained.model.layout().len());
//! # Ok(())
//! # }
//! ```

pub mod data;
pub mod eval;
pub mod gem;
pub mod pretrain;
pub mod quickstart;
pub mod sft;
