//! Models: one definition each for training, generation and second derivatives.

mod cache;
mod config;
mod decoder;
mod encoder;
mod generate;
mod image;
mod lora;
mod mlp;
mod objective;
mod tensor;
mod weights;

pub use cache::KvCache;
pub(crate) use cache::LayerCache;
pub use config::{DecoderConfig, Family, ModelError, RopeConfig};
pub use decoder::{BatchShape, Decoder, Plan};
pub use encoder::{Encoder, EncoderConfig, MaskedEncoder, MaskedObjective, Masking};
pub use generate::{Branches, Session};
pub use image::{ImageBatch, ImageConfig, ImageModel, ImageNet, ImageObjective, Statistics};
pub use lora::LoraConfig;
pub use mlp::{Mlp, MlpBatch, MlpConfig, MlpLoss, MlpObjective, Targets};
pub use objective::{DecoderObjective, TokenBatch, score};
pub use tensor::{TensorData, TensorMap, elements};
pub use weights::{Tensors, init, load, store, stored, stored_shape};
