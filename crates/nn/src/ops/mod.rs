//! The operations: they know shapes and call kernels.

mod attention;
mod dropout;
mod embed;
mod linear;
mod norm;
mod pointwise;
mod softmax;

pub use attention::{Attention, Rope, RopeTable};
pub use dropout::Dropout;
pub use embed::Embed;
pub use linear::{Linear, LowRank};
pub use norm::{LayerNorm, QkNorm, RmsNorm};
pub use pointwise::{Activation, Residual, SwiGlu};
pub use softmax::{LogSoftmax, Softmax};

pub use crate::kernel::act::Act;
