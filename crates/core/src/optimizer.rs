//! The optimizer's contract.

use rhumb_linalg::Real;

use crate::{CheckpointError, Layout, StateReader, StateWriter};

/// A first-order optimizer over the blocks of a [`Layout`].
///
/// The primitive is one block, not the whole model: the same code serves a whole step and an update during
/// the backward pass, after which the gradient of the block is freed.
pub trait Optimizer<T: Real>: Send {
    /// The field's name for it, e.g. `"adam-mini"`.
    fn name(&self) -> &'static str;
    /// The cut it was built for.
    fn layout(&self) -> &Layout;
    /// Opens a step (`t += 1`).
    fn begin(&mut self);
    /// Updates block number `block`; `params` and `grad` hold that block only.
    fn step_block(&mut self, lr: f64, block: usize, params: &mut [T], grad: &[T]);
    /// Bytes of state actually held.
    fn state_bytes(&self) -> usize;
    /// Writes the state, section by section and by parameter name.
    ///
    /// # Errors
    /// Passes on what [`StateWriter`] says.
    fn save(&self, out: &mut StateWriter<'_>) -> Result<(), CheckpointError>;
    /// Restores a state written by [`Optimizer::save`] for the same layout and partition.
    ///
    /// # Errors
    /// A message saying what does not match; the state may then be half restored.
    fn load(&mut self, src: &mut StateReader) -> Result<(), CheckpointError>;
    /// A whole step: [`Optimizer::begin`], then every block.
    fn step(&mut self, lr: f64, params: &mut [T], grad: &[T]) {
        self.begin();
        for i in 0..self.layout().blocks().len() {
            let r = self.layout().blocks()[i].range.clone();
            self.step_block(lr, i, &mut params[r.clone()], &grad[r]);
        }
    }
}
