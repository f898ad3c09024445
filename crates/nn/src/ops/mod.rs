//! The operations: they know shapes and call kernels.

mod attention;
mod batch_norm;
mod conv;
mod dropout;
mod embed;
mod linear;
mod norm;
mod patch;
mod pointwise;
mod pool;
mod softmax;

pub use attention::{Attention, Rope, RopeTable};
pub use batch_norm::{BatchMoments, BatchNorm2d, Moments};
pub use conv::Conv2d;
pub use dropout::Dropout;
pub use embed::Embed;
pub use linear::{Linear, LowRank};
pub use norm::{LayerNorm, QkNorm, RmsNorm};
pub use patch::{Patches, PoolRows, Positions};
pub use pointwise::{Activation, Residual, SwiGlu};
pub use pool::{AvgPool2d, MaxPool2d};
pub use softmax::{LogSoftmax, Softmax};

pub use crate::kernel::act::Act;
pub use crate::kernel::window::Window;
